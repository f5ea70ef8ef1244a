from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskhub.domain.result import Result
from taskhub.executors.shell import ShellExecutor
from taskhub.testing.executor_contract import RecordingContext, task_of

GRACE_MS = 300


class Marker:
    """A number of seconds nobody else sleeps for, to recognise our processes by."""

    def __init__(self) -> None:
        self.seconds = f"{random.randrange(10**8, 10**9)}.25"

    def __str__(self) -> str:
        return self.seconds

    def pids(self) -> list[int]:
        """Return the living processes that have it in their arguments."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.seconds.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def sleepers(self) -> list[int]:
        """Return those of them that are the sleep itself, not the shell around it."""
        return [pid for pid in self.pids() if read(f"/proc/{pid}/comm") == "sleep\n"]


def read(path: str) -> str:
    """Return the text of a file in /proc, "" if its process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


@pytest.fixture
def marker() -> Iterator[Marker]:
    marker = Marker()
    yield marker
    for pid in marker.pids():
        os.kill(pid, 9)


@pytest.fixture
async def shell() -> AsyncIterator[ShellExecutor]:
    executor = ShellExecutor()
    await executor.start({"kill_grace_ms": GRACE_MS})
    yield executor
    await executor.close()


@pytest.fixture
def context_of() -> Callable[..., RecordingContext]:
    def make(command: str, room: int | None = None, **fields: Any) -> RecordingContext:
        return RecordingContext(task_of("Shell", command, **fields), room=room)

    return make


@pytest.fixture
def run(shell: ShellExecutor) -> Callable[..., Awaitable[tuple[Result, RecordingContext]]]:
    """Return a function that runs a command to its end."""

    async def run(command: str, **fields: Any) -> tuple[Result, RecordingContext]:
        context = RecordingContext(task_of("Shell", command, **fields))
        return await asyncio.wait_for(shell.execute(context), 30), context

    return run
