"""The body of `POST /api/tasks` -> the one task it asks for, or everything wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from taskhub.domain.task import JSON, TaskSpec
from taskhub.errors import InvalidError, MissingNameError
from taskhub.ports.executor import Executors
from taskhub.spec.fields import LONGEST_ECHO, Fields, Findings
from taskhub.spec.limits import SpecLimits
from taskhub.spec.parameters import encoded
from taskhub.spec.strict_json import INT64_MAX
from taskhub.spec.task import TaskReader

BODY: Final = frozenset({"name", "type", "params", "timeout_sec", "max_retries"})
SHELL: Final = "Shell"
ASKED: Final = "task"
"""The name in a task's metadata of what its author sent: `type` and `params`."""
EXEC: Final = ("exec_type", "exec_command", "exec_params")
ANY_ID: Final = "0"
MOST_SECONDS: Final = INT64_MAX // 1000


def load_simple_task(body: JSON, executors: Executors, limits: SpecLimits) -> TaskSpec:
    """Return what `POST /api/tasks` asks for; the caller gives it an id.

    Without a command it is a Shell task that has nothing to run, and fails when it does. Raises
    `MissingNameError` or another `InvalidError` with every problem and its pointer into `body`.
    """
    findings = Findings()
    fields = Fields.of(body, "", findings)
    if not isinstance(body, dict):
        findings.raise_any()
    fields.only(BODY)
    name = fields.value.get("name")
    has_name = name is not None and name != ""
    if not has_name:
        fields.wrong("name", "is missing")
    given = fields.object("params")
    if len(encoded(given)) > limits.exec_params_bytes:
        fields.wrong("params", f"is larger than {limits.exec_params_bytes} bytes")
    asked: dict[str, JSON] = {"type": fields.integer("type", 0), "params": given}
    params = Fields(given, "/params", findings)
    timeout_sec = _either(fields, params, "timeout_sec", MOST_SECONDS)
    retries = _either(fields, params, "max_retries", limits.retries)
    task = _task(fields, params, TaskReader(executors, limits))
    _raise_any(findings, has_name=has_name)
    return replace(
        task,
        timeout_ms=timeout_sec * 1000,
        retry_count=0 if task.exec_type == SHELL and _is_blank(task.exec_command) else retries,
        metadata={ASKED: asked},
    )


def asked_of(task: TaskSpec) -> tuple[int, Mapping[str, JSON]]:
    """Return the `type` and `params` that the author of a simple task sent."""
    asked: Any = task.metadata[ASKED]
    return asked["type"], asked["params"]


def _raise_any(findings: Findings, *, has_name: bool) -> None:
    try:
        findings.raise_any()
    except InvalidError as exc:
        if has_name:
            raise
        raise MissingNameError(exc.problems) from None


def _either(body: Fields, params: Fields, name: str, most: int) -> int:
    """Return a number that may stand in the body, in params, or the same in both."""
    outer = body.integer(name, 0, least=0, most=most)
    inner = params.integer(name, 0, least=0, most=most)
    if name not in body.value:
        return inner
    if params.value.get(name, body.value[name]) != body.value[name]:
        params.wrong(name, "is given beside params too, and differs")
    return outer


def _task(fields: Fields, params: Fields, reader: TaskReader) -> TaskSpec:
    """Read the task as one of a DAG is read, with pointers to where its parts stand here."""
    value: dict[str, JSON] = {"id": ANY_ID, "exec_type": SHELL}
    if fields.value.get("name") is not None:
        value["name"] = fields.value["name"]
    value.update((name, params.value[name]) for name in EXEC if name in params.value)
    places = {name: f"/params/{name}" for name in EXEC}
    if "cmd" in params.value:
        _check_cmd(params)
        value["exec_command"] = params.value["cmd"]
        places["exec_command"] = "/params/cmd"
    found = Findings()
    task = reader.read(Fields(value, "", found), ())
    may_be_blank = task.exec_type == SHELL and _is_blank(value.get("exec_command", ""))
    for problem in found.problems:
        _, _, path = problem.pointer.partition("/")
        name, slash, rest = path.partition("/")
        if name != "exec_command" or not may_be_blank:
            pointer = f"{places.get(name, f'/{name}' if name else '/params')}{slash}{rest}"
            fields.findings.field(pointer, problem.message)
    return task


def _check_cmd(params: Fields) -> None:
    kind = params.value.get("exec_type", SHELL)
    if isinstance(kind, str) and kind.lower() != SHELL.lower():
        message = f"is a command for Shell; {kind[:LONGEST_ECHO]!r} takes exec_command"
        params.wrong("cmd", message)
    if params.value.get("exec_command", params.value["cmd"]) != params.value["cmd"]:
        params.wrong("exec_command", "is given beside cmd, and differs")


def _is_blank(value: JSON) -> bool:
    return isinstance(value, str) and not value.strip()
