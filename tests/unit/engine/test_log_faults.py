"""The log store hangs or fails under a flood: tasks are held back, no line is lost or doubled."""

from __future__ import annotations

import asyncio

import pytest

from taskhub.adapters.memory import MemoryLogStore, MemoryStores
from taskhub.domain.run import RunStatus
from taskhub.engine.output import HIGH_WATER
from taskhub.errors import UnavailableError
from taskhub.plugin_api import Executor, Result, Stream
from tests.unit.engine.conftest import Engine, task

PART = b"x" * 1023 + b"\n"
PARTS = 4000


class Flood(Executor):
    """Writes PARTS lines of 1 KiB, and waits for room as an executor should."""

    def __init__(self):
        self.started = []
        self.written = 0

    async def execute(self, context):
        self.started.append(f"{context.task.id}#{context.attempt}")
        for _ in range(PARTS):
            context.write(Stream.STDOUT, PART)
            self.written += len(PART)
            await context.drain()
        return Result()


class Logs(MemoryLogStore):
    """A log store that hangs until it is opened, and before that fails as often as told."""

    def __init__(self):
        super().__init__()
        self.open = asyncio.Event()
        self.failures = 0
        self.appended = 0

    async def append(self, chunks):
        if self.failures:
            self.failures -= 1
            await super().append(chunks)  # written, but the caller sees an error
            raise UnavailableError("no answer")
        await self.open.wait()
        self.appended += 1
        await super().append(chunks)


@pytest.fixture
def logs():
    return Logs()


@pytest.fixture
def flood():
    return Flood()


@pytest.fixture
async def engine(clock, logs, flood):
    engine = await Engine(MemoryStores(logs=logs), clock, flood).start()
    yield engine
    await engine.kill()


async def test_a_flood_is_held_back_while_the_log_store_hangs(engine, logs, flood):
    run_id = await engine.submit(task("a"))
    await engine.until(lambda: flood.written > HIGH_WATER)
    for _ in range(200):
        await asyncio.sleep(0)
    assert flood.written <= HIGH_WATER + len(PART)
    logs.open.set()
    view = await engine.runs.wait(run_id)
    assert view.row.state.status is RunStatus.SUCCESS
    assert flood.written == PARTS * len(PART)
    lines = await logs.read("a", run_id, 1, 2 * PARTS)
    assert [line.seq for line in lines] == list(range(1, PARTS + 1))


async def test_lines_whose_storing_failed_are_stored_once(engine, logs, flood, clock):
    logs.failures = 3
    logs.open.set()
    run_id = await engine.submit(task("a"))
    await engine.until(lambda: engine.writer.is_failing)
    await clock.advance(10)
    assert not engine.writer.is_failing
    await engine.runs.wait(run_id)
    lines = await logs.read("a", run_id, 1, 2 * PARTS)
    assert [line.seq for line in lines] == list(range(1, PARTS + 1))


async def test_a_server_that_ends_does_not_wait_for_lines_nobody_stores(engine, flood):
    await engine.submit(task("a"))
    await engine.until(lambda: flood.written > HIGH_WATER)
    await engine.kill()
    assert [t for t in asyncio.all_tasks() if t.get_name().startswith("attempt")] == []
