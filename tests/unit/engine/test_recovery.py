from __future__ import annotations

import asyncio

from taskhub.domain.run import RunStatus
from taskhub.domain.task import Status
from taskhub.plugin_api import Result
from tests.unit.engine.conftest import Engine, Script, task


async def restart(engine, epoch=2):
    """Kill the engine and start another on its store."""
    await engine.kill()
    after = Engine(engine.stores, engine.clock, Script(), limit=engine.limit)
    return await after.start(epoch)


async def test_a_run_goes_on_where_it_stood(engine, script):
    run_id = await engine.submit(task("a"), task("b", "a"), task("c", "b"))
    await engine.until_started("a#1")
    script.end("a#1")
    await engine.until_started("b#1")
    after = await restart(engine)
    view = await after.runs.wait(run_id)
    states = {t.row.spec.id: t.row.state for t in view.tasks}
    assert states["a"].status is Status.SUCCESS
    assert states["b"].message == "lost: the server stopped while the attempt was running"
    assert states["b"].metadata["outcome"] == "unknown"
    assert states["c"].status is Status.SKIPPED
    assert after.script.started == []
    await after.kill()


async def test_what_never_started_starts(engine, script):
    run_id = await engine.submit(task("a"), task("b"), max_parallel=1)
    await engine.until_started("a#1")
    after = await restart(engine)
    await after.until_started("b#1")
    after.script.end("b#1")
    view = await after.runs.wait(run_id)
    assert [t.row.state.status for t in view.tasks] == [Status.FAILED, Status.SUCCESS]
    await after.kill()


async def test_a_lost_idempotent_attempt_is_made_again(engine, clock):
    run_id = await engine.submit(task("a", idempotent=True))
    await engine.until_started("a#1")
    after = await restart(engine)
    await after.until(lambda: after.supervisor.running == 0)
    await clock.advance(2)
    await after.until_started("a#2")
    after.script.end("a#2")
    assert (await after.runs.wait(run_id)).row.state.status is RunStatus.SUCCESS
    await after.kill()


async def test_a_task_that_is_lost_three_times_is_given_up(engine, clock):
    run_id = await engine.submit(task("a", idempotent=True))
    for attempt in (1, 2, 3):
        await engine.until_started(f"a#{attempt}")
        engine = await restart(engine, attempt + 1)
        await engine.until(engine.is_idle)
        await clock.advance(10)
    view = await engine.runs.wait(run_id)
    assert view.row.state.status is RunStatus.FAILED
    assert "recovery limit" in view.tasks[0].row.state.message
    await engine.kill()


async def test_a_back_off_goes_on_after_a_restart(engine, script, clock):
    run_id = await engine.submit(task("a", retry_count=1, retry_delay_ms=10_000))
    await engine.until_started("a#1")
    script.end("a#1", Result.failed("no"))
    await engine.until(lambda: engine.supervisor.running == 0)
    await clock.advance(4)
    after = await restart(engine)
    await clock.advance(5)
    assert after.script.started == []
    await clock.advance(2)
    await after.until_started("a#2")
    after.script.end("a#2")
    assert (await after.runs.wait(run_id)).row.state.status is RunStatus.SUCCESS
    await after.kill()


async def test_log_lines_of_a_later_attempt_are_numbered_on(engine, script, clock):
    script.output = b"one\ntwo\n"
    await engine.submit(task("a", idempotent=True))
    await engine.until_started("a#1")
    after = Engine(engine.stores, clock, Script())
    (run_id,) = engine.supervisor.runs
    await engine.until(lambda: engine.stores.logs and not engine.writer._waiting)
    await clock.advance(1)
    await engine.kill()
    after.script.output = b"three\n"
    after.script.instant = Result()
    await after.start(2)
    await after.until(lambda: after.supervisor.running == 0)
    await clock.advance(2)
    await after.runs.wait(run_id)
    lines = await after.stores.logs.read("a", run_id, 1, 10)
    assert [(r.seq, r.message, r.segment.attempt) for r in lines] == [
        (1, "one", 1),
        (2, "two", 1),
        (3, "three", 2),
    ]
    await after.kill()


async def test_a_clock_that_was_ahead_does_not_make_a_pause_longer(engine, script, clock):
    await engine.submit(task("a", retry_count=1, retry_delay_ms=1000))
    await engine.until_started("a#1")
    script.end("a#1", Result.failed("no"))
    await engine.until(engine.is_idle)
    clock.set_wall(clock.now_ms() - 86_400_000)
    after = await restart(engine)
    await clock.advance(1.1)
    await after.until_started("a#2")
    await after.kill()


async def test_others_get_their_turn_while_much_is_recovered(engine, clock):
    tasks = [task(f"t{i}") for i in range(1200)]
    run_id = await engine.submit(*tasks, max_parallel=1)
    await engine.until_started("t0#1")
    await engine.kill()
    events = len(await engine.stores.runs.history(run_id))
    turns = 0

    async def take_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(take_turns(), name="turns")
    after = await Engine(engine.stores, clock, Script()).start(2)
    assert turns > events // 500 > 1
    turning.cancel()
    await after.kill()
