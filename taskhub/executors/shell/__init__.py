"""Runs a task as a shell command, in a process tree of its own."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
import json
import logging
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from taskhub.executors.shell.child import Child
from taskhub.executors.shell.client import Command, SpawnerClient
from taskhub.executors.shell.lock import acquire
from taskhub.executors.shell.reader import Output, PipeReader
from taskhub.executors.shell.spawner import protocol
from taskhub.plugin_api import JSON, NO_EXIT_CODE, Context, Executor, Problem, Result, TaskSpec

log = logging.getLogger(__name__)

KILL_GRACE_MS: Final = 5000
MOST_GRACE_MS: Final = 15_000
"""The engine gives an attempt up 30 s after it told it to stop."""
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
NO_COMMAND: Final = "nothing to run: no exec_command is given, and no params.cmd of a simple task"
PASSED_ON: Final = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR"})
SETTINGS: Final = frozenset({"cwd", "kill_grace_ms", "state_dir"})
TEXT: Final = {"type": "string", "minLength": 1}


class ShellExecutor(Executor):
    """Runs `exec_command` with `/bin/sh -c`, or with the shell that `exec_params.shell` names.

    Settings: `cwd` (default: the server's), `kill_grace_ms` between SIGTERM and SIGKILL, and
    `state_dir`, a folder that only servers of one data directory share: the next server does not
    start before the processes of a dead one have ended.
    """

    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"shell": TEXT, "cwd": TEXT},
        "patternProperties": {
            "^env\\.[A-Za-z_][A-Za-z0-9_]*\\Z": {
                "type": ["string", "number", "boolean", "null"],
                "description": "an environment variable; empty or null: not set by TaskHub",
            }
        },
        "additionalProperties": False,
    }

    def __init__(self) -> None:
        self._env: dict[str, str] = {}
        self._base: dict[bytes, bytes] = {}
        self._cwd = b""
        self._grace_s = KILL_GRACE_MS / 1000
        self._reader: PipeReader | None = None
        self._client: SpawnerClient | None = None
        self._lock: int | None = None

    async def start(self, settings: Mapping[str, Any]) -> None:
        _refuse_unknown(settings)
        self._grace_s = _grace_s(settings.get("kill_grace_ms", KILL_GRACE_MS))
        self._cwd = os.fsencode(await asyncio.to_thread(_folder, settings.get("cwd")))
        self._env = clean_environment(os.environ)
        self._base = {os.fsencode(name): os.fsencode(text) for name, text in self._env.items()}
        self._lock = await acquire(settings["state_dir"]) if "state_dir" in settings else None
        self._reader = PipeReader()
        self._client = SpawnerClient.start(self._env, self._reader, self._lock)

    async def close(self) -> None:
        client, self._client = self._client, None
        reader, self._reader = self._reader, None
        if client is not None:
            await client.close()
        if reader is not None:
            reader.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check(self, task: TaskSpec) -> Iterable[Problem]:
        if not task.exec_command.strip():
            yield Problem("/exec_command", "required: the shell command to run")
        texts = {"/exec_command": task.exec_command}
        texts |= {f"/exec_params/{k}": v for k, v in task.exec_params.items() if isinstance(v, str)}
        for pointer, text in texts.items():
            if "\0" in text:
                yield Problem(pointer, "must not contain a NUL character")
            elif not _is_encodable(text):
                yield Problem(pointer, "must be valid Unicode text")

    async def execute(self, context: Context) -> Result:
        if not context.task.exec_command.strip():
            return Result.failed(NO_COMMAND, NO_EXIT_CODE)
        try:
            client = await self._living_client()
            child = client.spawn(self._command(context), context.write)
        except (OSError, ValueError) as exc:
            return Result.failed(f"cannot start: {exc}", CANNOT_EXECUTE)
        try:
            await self._see_through(child, context)
        finally:
            child.close()
        if child.is_unknown:
            await self._sweep(context)
        if child.output.error is not None:
            raise child.output.error
        return to_result(child, context.task)

    async def _living_client(self) -> SpawnerClient:
        client = self._client
        if client is None or self._reader is None:
            raise ValueError("the executor is not running")
        if not client.alive:
            log.warning("spawner died, starting another", extra={"pid": client.pid})
            client = self._client = SpawnerClient.start(self._env, self._reader, self._lock)
        await client.ready()
        return client

    async def _see_through(self, child: Child, context: Context) -> None:
        stops = 0
        while not child.over:
            try:
                await child.wait()
                if child.output.owed:
                    await _drain(context, child.output)
                if child.output.error is not None and not child.stopping:
                    child.stop(self._grace_s)
            except asyncio.CancelledError:
                if child.output.ended and stops:
                    raise  # somebody insists, and only output is left to wait for
                child.stop(0.0 if stops else self._grace_s)
                stops += 1

    async def _sweep(self, context: Context) -> None:
        """End what a spawner that was killed has left: a repeated attempt must not meet it."""
        client = await self._living_client()
        rest = client.sweep(context.attempt_key.encode(), self._grace_s)
        try:
            while not rest.over:
                await rest.wait()
        finally:
            rest.close()

    def _command(self, context: Context) -> Command:
        task, params = context.task, context.task.exec_params
        cwd = str(params.get("cwd") or "")
        env = dict(self._base)
        for name, value in params.items():
            if name.startswith("env.") and (text := to_text(value)):
                env[name[4:].encode()] = text.encode()
        env[b"TASKHUB_RUN_ID"] = context.run_id.encode()
        env[b"TASKHUB_TASK_ID"] = task.id.encode()
        env[b"TASKHUB_ATTEMPT"] = b"%d" % context.attempt
        env[b"TASKHUB_ATTEMPT_KEY"] = key = context.attempt_key.encode()
        return Command(
            shell=str(params.get("shell") or "/bin/sh").encode(),
            text=task.exec_command.encode(),
            cwd=os.path.join(self._cwd, os.fsencode(cwd)) if cwd else self._cwd,  # noqa: PTH118
            env=env,
            key=key,
            captured=task.capture_output,
        )


async def _drain(context: Context, output: Output) -> None:
    try:
        await context.drain()
    except Exception as exc:  # noqa: BLE001  # raised again when the tree is gone
        output.error = output.error or exc
    output.paid()


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a task may see of the server's environment: nothing that could be a secret."""
    return {
        name: text for name, text in environ.items() if name in PASSED_ON or name.startswith("LC_")
    }


def to_text(value: JSON) -> str:
    """Return a scalar as the text of an environment variable, numbers and booleans as in JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def to_result(child: Child, task: TaskSpec) -> Result:
    """Say how the process ended, in the words and codes of a shell."""
    if child.failure is not None:
        return _not_started(*child.failure, task)
    if child.survivors:
        message = f"{child.survivors} processes could not be killed"
        return Result.failed(message, NO_EXIT_CODE)
    if child.status is None:
        return Result.lost("the process supervisor died")
    code = os.waitstatus_to_exitcode(child.status)
    if code == 0:
        return Result()
    if code < 0:
        return Result.failed(f"killed by {_signal_name(-code)}", 128 - code)
    return Result.failed(f"exit code {code}", code)


def _not_started(kind: int, error: int, task: TaskSpec) -> Result:
    reason = os.strerror(error)
    if kind == protocol.NO_CWD:
        return Result.failed(f"cannot enter cwd: {reason}", CANNOT_EXECUTE)
    shell = task.exec_params.get("shell") or "/bin/sh"
    code = NOT_FOUND if error == errno.ENOENT else CANNOT_EXECUTE
    return Result.failed(f"cannot run {shell}: {reason}", code)


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    for name in settings.keys() - SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown setting {name!r}{hint}")


def _folder(value: object) -> Path:
    """Return the folder that commands start in; raise ValueError if there is none."""
    if value is None:
        return Path.cwd()
    if not isinstance(value, str) or not Path(value).is_dir():
        raise ValueError(f"cwd: {value!r} is not a folder")
    return Path(value).absolute()


def _grace_s(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_GRACE_MS:
        raise ValueError(f"kill_grace_ms must be an integer from 0 to {MOST_GRACE_MS}")
    return value / 1000


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
