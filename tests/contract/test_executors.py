from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from taskhub.domain.log import Stream
from taskhub.domain.task import TaskSpec
from taskhub.executors.local import LocalExecutor
from taskhub.executors.shell import ShellExecutor
from taskhub.testing.executor_contract import ExecutorContract, RecordingContext, task_of


class TestShell(ExecutorContract):
    @pytest.fixture
    async def executor(self) -> AsyncIterator[ShellExecutor]:
        executor = ShellExecutor()
        await executor.start({"kill_grace_ms": 1000})
        yield executor
        await executor.close()

    @pytest.fixture
    def succeeding(self) -> TaskSpec:
        return task_of("Shell", 'test "$WHO" = me && echo done', exec_params={"env.WHO": "me"})

    @pytest.fixture
    def failing(self) -> TaskSpec:
        return task_of("Shell", "exit 3")

    @pytest.fixture
    def long_running(self) -> TaskSpec:
        return task_of("Shell", "echo begun; sleep 3600 & sleep 3600")

    @pytest.fixture
    def flooding(self) -> TaskSpec | None:
        return task_of("Shell", "head -c 10000000 /dev/zero")

    def traces(self, context: RecordingContext) -> Iterable[str]:
        key = f"TASKHUB_ATTEMPT_KEY={context.attempt_key}\0".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if key in (process / "environ").read_bytes():
                    yield process.name
            except OSError:
                continue


class Point:
    """An entry point that needs no distribution."""

    def __init__(self, name: str, function: object) -> None:
        self.name = self.value = name
        self.function = function

    def load(self) -> object:
        return self.function


def greet(name: str) -> str:
    return f"hello {name}"


def divide(by: int) -> float:
    return 1 / by


class TestLocalSync(ExecutorContract):
    """Functions in threads: a cancelled one is left behind, and ends at its next word."""

    @pytest.fixture
    def executor(self) -> Iterable[LocalExecutor]:
        release = threading.Event()

        def hang(context) -> None:
            context.log("begun")
            release.wait(3600)

        def flood(context) -> None:
            for _ in range(200):
                context.write(Stream.STDOUT, bytes(50_000))

        functions = (greet, divide, hang, flood)
        yield LocalExecutor([Point(function.__name__, function) for function in functions])
        release.set()

    @pytest.fixture
    def succeeding(self) -> TaskSpec:
        return task_of("Local", "greet", exec_params={"name": "you"})

    @pytest.fixture
    def failing(self) -> TaskSpec:
        return task_of("Local", "divide", exec_params={"by": 0})

    @pytest.fixture
    def long_running(self) -> TaskSpec:
        return task_of("Local", "hang")

    @pytest.fixture
    def flooding(self) -> TaskSpec | None:
        return task_of("Local", "flood")


class TestLocalAsync(ExecutorContract):
    @pytest.fixture
    def executor(self) -> LocalExecutor:
        async def wait(context) -> None:
            context.log("begun")
            await asyncio.Event().wait()

        async def flood(context) -> None:
            for _ in range(200):
                context.write(Stream.STDOUT, bytes(50_000))
                await context.drain()

        async def divide(by: int) -> float:
            return 1 / by

        return LocalExecutor([Point(f.__name__, f) for f in (wait, flood, divide)])

    @pytest.fixture
    def succeeding(self) -> TaskSpec:
        return task_of("Local", "divide", exec_params={"by": 2})

    @pytest.fixture
    def failing(self) -> TaskSpec:
        return task_of("Local", "divide", exec_params={"by": 0})

    @pytest.fixture
    def long_running(self) -> TaskSpec:
        return task_of("Local", "wait")

    @pytest.fixture
    def flooding(self) -> TaskSpec | None:
        return task_of("Local", "flood")
