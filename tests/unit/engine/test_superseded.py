"""Another server has taken over: nothing is repeated, nothing is stored, whoever waits is told."""

from __future__ import annotations

import asyncio

import pytest

from taskhub.adapters.memory import MemoryStores
from taskhub.engine.bus import Topic
from taskhub.errors import SupersededError, UnavailableError
from tests.leases import FakeLease
from tests.unit.engine.conftest import Engine, task


@pytest.fixture
async def lease():
    lease = FakeLease()
    lease.seize()
    return lease


@pytest.fixture
async def engine(lease, clock, script):
    engine = await Engine(lease.leases.stores_of(lease), clock, script).start()
    yield engine
    await engine.kill()


def loop(engine, name):
    return next(task for task in engine.tasks if task.get_name() == name)


async def test_a_refused_commit_ends_the_loop_and_is_not_repeated(engine, lease, script, clock):
    run_id = await engine.submit(task("a"))
    await engine.until_started("a#1")
    before = await engine.names(run_id)
    FakeLease(lease.leases).seize()
    script.end("a#1")
    await engine.until(lambda: loop(engine, "supervisor").done())
    await clock.advance(10)
    assert isinstance(loop(engine, "supervisor").exception(), SupersededError)
    assert engine.stores.runs.refused == 1
    assert await engine.names(run_id) == before


async def test_refused_lines_end_the_loop_and_nobody_sees_them(lease, script, clock):
    script.output = b"line\n"
    lost = FakeLease(lease.leases)
    stores = MemoryStores(logs=lost.leases.stores_of(lost).logs)
    engine = await Engine(stores, clock, script).start()
    lines = []
    engine.bus.logs.add(Topic("a", ""), lines.append)
    run_id = await engine.submit(task("a"))
    await engine.until(lambda: loop(engine, "writer").done())
    await clock.advance(10)
    assert isinstance(loop(engine, "writer").exception(), SupersededError)
    assert stores.logs.refused == 1
    assert lines == []
    assert await stores.logs.read("a", run_id, 1, 10) == []
    await engine.kill()


async def test_whoever_waits_is_told_and_nothing_new_is_taken(engine, script):
    run_id = await engine.submit(task("a"))
    await engine.until_started("a#1")
    for each in engine.tasks:
        each.cancel()
    waiting = [
        asyncio.create_task(engine.runs.wait(run_id), name="wait"),
        asyncio.create_task(engine.runs.cancel(run_id, by="me"), name="cancel"),
        asyncio.create_task(engine.submit(task("b")), name="submit"),
    ]
    for _ in range(10):
        await asyncio.sleep(0)
    engine.supervisor.abandon("gone")
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [(type(e), str(e)) for e in answers] == [(UnavailableError, "gone")] * 3
    for call in (engine.submit(task("c")), engine.runs.cancel(run_id, by="me")):
        with pytest.raises(UnavailableError, match="gone"):
            await call


async def test_what_runs_is_ended_without_storing_it(engine, script):
    run_id = await engine.submit(task("a"))
    await engine.until_started("a#1")
    before = await engine.names(run_id)
    await engine.kill()
    assert script.stopped == ["a#1"]
    assert await engine.names(run_id) == before
