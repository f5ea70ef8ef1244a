"""The store fails in every way it can: runs wait, nothing is lost, doubled or told too early."""

from __future__ import annotations

import asyncio

import pytest

from taskhub.domain.run import RunStatus
from taskhub.errors import UnavailableError
from taskhub.plugin_api import Result
from taskhub.testing.faults import Fault, FaultyRunStore
from tests.unit.engine.conftest import Engine, task


@pytest.fixture
async def faulty(stores, clock, script):
    engine = await Engine(stores, clock, script, runs=FaultyRunStore(stores.runs)).start()
    yield engine
    await engine.kill()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_failed_commit_is_repeated_until_it_is_stored_once(faulty, script, clock, fault):
    run_id = await faulty.submit(task("a"), task("b", "a"))
    await faulty.until_started("a#1")
    faulty.run_store.fail("commit", fault, fault, fault)
    script.end("a#1")
    await faulty.until(lambda: faulty.journal.is_failing)
    assert "b#1" not in script.started
    with pytest.raises(UnavailableError):
        await faulty.submit(task("c"))
    await clock.advance(10)
    await faulty.until_started("b#1")
    assert not faulty.journal.is_failing
    script.end("b#1")
    view = await faulty.runs.wait(run_id)
    assert view.row.state.status is RunStatus.SUCCESS
    seqs = [event.seq for event in await faulty.stores.runs.history(run_id)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert script.started == ["a#1", "b#1"]


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_submit_whose_commit_fails_is_answered_once_it_is_stored(
    faulty, script, clock, fault
):
    script.instant = Result()
    faulty.run_store.fail("commit", fault)
    submitting = asyncio.create_task(faulty.submit(task("a"), key="k"), name="submit")
    await faulty.until(lambda: faulty.journal.is_failing)
    assert script.started == []
    assert not submitting.done()
    await clock.advance(10)
    run_id = await submitting
    view = await faulty.runs.wait(run_id)
    assert view.row.state.status is RunStatus.SUCCESS
    assert await faulty.submit(task("a"), key="k") == run_id


async def test_a_store_without_room_refuses_new_runs_and_lets_the_others_go_on(faulty, script):
    run_id = await faulty.submit(task("a"))
    await faulty.until_started("a#1")
    faulty.run_store.fail("check_room", Fault.REFUSED)
    with pytest.raises(UnavailableError):
        await faulty.submit(task("b"))
    script.end("a#1")
    view = await faulty.runs.wait(run_id)
    assert view.row.state.status is RunStatus.SUCCESS
