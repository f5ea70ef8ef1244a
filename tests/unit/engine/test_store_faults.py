"""The store fails in every way it can: runs wait, nothing is lost, doubled or told too early."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from taskhub.domain.dag import DagSpec
from taskhub.domain.run import RunStatus
from taskhub.domain.task import Status
from taskhub.engine.recovery import recover
from taskhub.engine.scheduler import Scheduler
from taskhub.engine.supervisor import Supervisor
from taskhub.errors import UnavailableError
from taskhub.plugin_api import Result
from taskhub.ports.store import RunQuery
from taskhub.services.runs import RunService
from taskhub.testing.faults import Fault, FaultyRunStore
from tests.unit.engine.conftest import Engine, Script, task


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


def impatient(engine):
    """Return a service that waits a moment for the store instead of seconds."""
    return RunService(
        store=engine.run_store,
        supervisor=engine.supervisor,
        clock=engine.clock,
        ids=engine.ids,
        random=Random(5),
        answer_s=0.01,
    )


async def test_a_submit_to_a_store_that_hangs_is_answered_and_stored_once(faulty, script):
    script.instant = Result()
    runs = impatient(faulty)
    spec = DagSpec(name="d", tasks=(task("a"),))
    faulty.run_store.pause()
    with pytest.raises(UnavailableError, match="not known yet"):
        await runs.submit(spec, owner="me", key="k")
    assert script.started == []
    faulty.run_store.resume()
    await runs.close()
    run_id = await faulty.runs.submit(spec, owner="me", key="k")
    assert (await faulty.runs.wait(run_id)).row.state.status is RunStatus.SUCCESS
    assert len((await faulty.runs.list_runs(RunQuery(), 10, None)).items) == 1


async def test_a_cancel_while_the_store_hangs_is_answered_and_done_later(faulty, script):
    run_id = await faulty.submit(task("a"))
    await faulty.until_started("a#1")
    faulty.run_store.pause()
    with pytest.raises(UnavailableError, match="repeat the request"):
        await impatient(faulty).cancel(run_id, by="me")
    assert script.stopped == []
    faulty.run_store.resume()
    view = await faulty.runs.wait(run_id)
    assert view.row.state.status is RunStatus.CANCELED


async def test_a_rerun_of_a_run_that_cannot_be_read_is_answered(faulty, script):
    script.instant = Result.failed("no")
    run_id = await faulty.submit(task("a"))
    await faulty.runs.wait(run_id)
    faulty.run_store.pause()
    with pytest.raises(UnavailableError):
        await impatient(faulty).rerun(run_id, from_failed=True)


async def test_what_runs_goes_on_while_the_store_hangs_and_nothing_of_it_is_lost(faulty, script):
    script.output = b"line\n"
    run_id = await faulty.submit(task("a"), task("b"), task("c", "a b"))
    await faulty.until_started("a#1", "b#1")
    faulty.run_store.pause()
    script.end("a#1")
    script.end("b#1", Result.failed("no", 7))
    for _ in range(20):
        await asyncio.sleep(0)
    assert script.started == ["a#1", "b#1"]
    faulty.run_store.resume()
    view = await faulty.runs.wait(run_id)
    rows = {each.row.spec.id: each for each in view.tasks}
    assert rows["a"].row.state.status is Status.SUCCESS
    assert (rows["b"].row.state.status, rows["b"].row.state.exit_code) == (Status.FAILED, 7)
    assert [rows[name].output.stdout for name in "ab"] == ["line\n", "line\n"]
    assert rows["c"].row.state.status is Status.SKIPPED


async def test_a_recovery_that_the_store_interrupts_takes_up_nothing_and_can_be_repeated(
    faulty, clock
):
    await faulty.submit(task("a", idempotent=True))
    await faulty.submit(task("b", idempotent=True))
    await faulty.kill()
    after = Engine(faulty.stores, clock, Script())
    after.ids.skip_to(await faulty.stores.runs.last_id())
    await after.start(2)
    fresh = Supervisor(
        journal=after.journal,
        launcher=after.launcher,
        timers=after.timers,
        scheduler=Scheduler(8),
    )
    faulty.run_store.fail("load", None, Fault.REFUSED)
    with pytest.raises(UnavailableError):
        await recover(faulty.run_store, fresh)
    assert fresh.runs == {}
    assert await recover(faulty.run_store, fresh) == 2
    assert len(fresh.runs) == 2
    await after.kill()
