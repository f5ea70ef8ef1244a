from __future__ import annotations

import asyncio
import logging

import pytest

from taskhub.adapters.memory import MemoryStores
from taskhub.background.retention import DAY_MS, Retention
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import RunQuery
from taskhub.testing.clock import FakeClock
from taskhub.testing.faults import Fault, FaultyRunStore
from taskhub.testing.store_samples import T0, audit_entry, chunk, ended_run, new_run

LOGGER = "taskhub.background.retention"


class Setup:
    """Retention at work over memory stores, on a clock that starts at T0."""

    def __init__(self):
        self.stores = MemoryStores()
        self.runs = FaultyRunStore(self.stores.runs)
        self.clock = FakeClock(T0)
        retention = Retention(
            self.runs,
            self.stores.logs,
            self.clock,
            self.stores.audit,
            run_days=2,
            log_days=1,
            log_bytes=1000,
            audit_days=3,
            interval_s=3600,
        )
        self.task = asyncio.create_task(retention.run(), name="retention")

    async def names(self):
        page = await self.stores.runs.runs(RunQuery(), 1000)
        return [row.header.ord // 100_000 for row in page.items]

    async def lines(self):
        records = await self.stores.logs.read_task("t", 1, 1000)
        return [record.run_id for _, record in records]


@pytest.fixture
async def at_work():
    setup = Setup()
    await setup.clock.advance(0)
    yield setup
    setup.task.cancel()
    await asyncio.wait([setup.task])


async def test_runs_are_kept_for_their_days_and_then_deleted(at_work):
    for number, end_ms in ((1, T0 - DAY_MS), (2, T0)):
        await at_work.stores.runs.commit(ended_run(number, end_ms))
    await at_work.stores.runs.commit(new_run(3))
    await at_work.clock.advance(23 * 3600)
    assert await at_work.names() == [3, 2, 1]
    await at_work.clock.advance(2 * 3600)
    assert await at_work.names() == [3, 2]
    await at_work.clock.advance(24 * 3600)
    assert await at_work.names() == [3]


async def test_the_audit_is_kept_for_its_days(at_work):
    entries = [audit_entry(n)._replace(ts_ms=T0 + ms) for n, ms in ((1, 0), (2, 2 * DAY_MS))]
    await at_work.stores.audit.append(entries)
    for days, left in ((2.9, [2, 1]), (0.2, [2]), (2, [])):
        await at_work.clock.advance(days * 24 * 3600)
        found = (await at_work.stores.audit.entries(AuditQuery(), 9)).items
        assert [entry.id for entry in found] == left


async def test_lines_are_deleted_by_age(at_work):
    await at_work.stores.logs.append([chunk(1, 1, ["a"], run="old"), chunk(2, 1, ["b"], run="new")])
    await at_work.stores.logs.append([chunk(3, 2, ["c"], run="new", ts_ms=T0 + 3600_000)])
    await at_work.clock.advance(24.5 * 3600)
    assert await at_work.lines() == ["old", "new", "new"]
    await at_work.clock.advance(3600)
    assert await at_work.lines() == ["new", "new"]


async def test_the_oldest_lines_are_deleted_when_there_are_too_many(at_work):
    for i in (1, 2, 3):
        await at_work.stores.logs.append([chunk(i, 1, ["x" * 400], run=f"r{i}", ts_ms=T0 + i)])
    await at_work.clock.advance(3600)
    assert await at_work.lines() == ["r2", "r3"]


async def test_everything_old_goes_at_once_however_much_it_is(at_work):
    for number in range(1, 251):
        await at_work.stores.runs.commit(ended_run(number, T0 - 3 * DAY_MS))
    await at_work.clock.advance(3600)
    assert await at_work.names() == []


async def test_a_store_that_is_away_is_asked_again_later(at_work, caplog):
    await at_work.stores.runs.commit(ended_run(1, T0 - 3 * DAY_MS))
    await at_work.stores.logs.append([chunk(1, 1, ["x"], ts_ms=T0 - 3 * DAY_MS)])
    at_work.runs.fail("expire", Fault.REFUSED)
    with caplog.at_level(logging.INFO, LOGGER):
        await at_work.clock.advance(3600)
        assert await at_work.names() == [1]
        assert await at_work.lines() == [], "the other store is not held back"
        await at_work.clock.advance(3600)
    assert await at_work.names() == []
    messages = [(record.message, record.what) for record in caplog.records]
    assert messages == [
        ("old history was not deleted", "runs"),
        ("old history deleted", "logs"),
        ("old history deleted", "runs"),
    ]


async def test_a_mistake_in_a_store_ends_the_loop(at_work):
    async def broken(before_ms, limit=100):
        raise KeyError("a bug")

    at_work.runs.inner.expire = broken
    await at_work.clock.advance(3600)
    assert isinstance(at_work.task.exception(), KeyError)
