from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from taskhub.domain.dag import FailPolicy
from taskhub.domain.event import EventName
from taskhub.domain.run import RunStatus
from taskhub.domain.task import Status
from taskhub.engine.bus import Topic
from taskhub.errors import ConflictError, NotFoundError, TooManyError, UnavailableError
from taskhub.plugin_api import Result
from taskhub.testing.faults import FaultyRunStore
from tests.unit.engine.conftest import Engine, task

WHOLE = [
    EventName.RUN_START,
    EventName.NODE_READY,
    EventName.NODE_START,
    EventName.TASK_START,
    EventName.ATTEMPT_START,
    EventName.ATTEMPT_END,
    EventName.TASK_END,
    EventName.NODE_END,
    EventName.RUN_END,
]


def statuses(view):
    return {task.row.spec.id: task.row.state.status for task in view.tasks}


async def test_a_run_is_stored_whole(engine, script):
    script.instant = Result()
    run_id = await engine.submit(task("a"))
    view = await engine.runs.wait(run_id)
    assert await engine.names(run_id) == WHOLE
    assert (view.row.state.status, view.row.state.success_count) == (RunStatus.SUCCESS, 1)
    assert statuses(view) == {"a": Status.SUCCESS}
    assert engine.supervisor.runs == {}


async def test_nothing_starts_before_its_intent_is_stored(engine, stores, script):
    started_with = []
    inner = script.execute

    async def execute(context):
        started_with.append(await engine.names(context.run_id))
        return await inner(context)

    script.execute = execute
    script.instant = Result()
    await engine.runs.wait(await engine.submit(task("a")))
    assert started_with == [WHOLE[:5]]


async def test_nobody_hears_of_what_is_not_stored(engine, script):
    script.instant = Result()
    heard = []
    publish = engine.bus.events.publish

    def receive(event):
        stored = engine.stores.runs._events.get(event.run_id, {})
        heard.append((event.seq, event.seq in stored))
        publish(event)

    engine.bus.events.publish = receive
    engine.bus.events.add(Topic("a", ""), lambda _event: None)
    await engine.runs.wait(await engine.submit(task("a")))
    assert heard == [(seq, True) for seq in range(1, len(WHOLE) + 1)]


async def test_max_parallel_holds(engine, script):
    run_id = await engine.submit(*(task(f"t{i}") for i in range(5)), max_parallel=2)
    await engine.until_started("t0#1", "t1#1")
    view = await engine.runs.get(run_id)
    assert [t.waiting_on and t.waiting_on.reason for t in view.tasks] == [None, None] + ["slot"] * 3
    script.end("t0#1")
    await engine.until_started("t2#1")
    assert len(script.started) == 3


async def test_the_server_limit_holds_and_priority_decides(stores, clock, script):
    engine = await Engine(stores, clock, script, limit=1).start()
    await engine.submit(task("first"))
    await engine.until_started("first#1")
    low = await engine.submit(task("low", priority=-1))
    await engine.submit(task("high", priority=2))
    blocked = (await engine.runs.get(low)).tasks[0].waiting_on
    assert (blocked.reason, blocked.detail) == ("queue", {"queue": "default"})
    script.end("first#1")
    await engine.until_started("high#1")
    script.end("high#1")
    await engine.until_started("low#1")
    await engine.kill()


async def test_runs_of_one_priority_take_turns(stores, clock, script):
    engine = await Engine(stores, clock, script, limit=1).start()
    await engine.submit(*(task(f"big{i}") for i in range(3)))
    await engine.until_started("big0#1")
    await engine.submit(task("small"))
    script.end("big0#1")
    await engine.until(lambda: len(script.started) == 2)
    script.end(script.started[-1])
    await engine.until(lambda: len(script.started) == 3)
    assert "small#1" in script.started
    await engine.kill()


async def test_a_retry_waits_for_its_time(engine, script, clock):
    run_id = await engine.submit(task("a", retry_count=1, retry_delay_ms=5000))
    await engine.until_started("a#1")
    script.end("a#1", Result.failed("exit code 75", 75))
    await engine.until(lambda: engine.supervisor.running == 0)
    await clock.advance(4.9)
    assert script.started == ["a#1"]
    (blocked,) = [t.waiting_on for t in (await engine.runs.get(run_id)).tasks]
    assert blocked.reason == "backoff"
    await clock.advance(0.2)
    await engine.until_started("a#2")
    script.end("a#2")
    view = await engine.runs.wait(run_id)
    assert (view.tasks[0].row.state.attempt, view.row.state.status) == (2, RunStatus.SUCCESS)


async def test_a_timeout_stops_the_attempt_and_is_called_one(engine, script, clock):
    run_id = await engine.submit(task("a", timeout_ms=1000))
    await engine.until_started("a#1")
    await clock.advance(1.1)
    view = await engine.runs.wait(run_id)
    state = view.tasks[0].row.state
    assert script.stopped == ["a#1"]
    assert (state.status, state.message) == (Status.TIMEOUT, "timed out after 1000 ms")


async def test_cancel_stops_what_runs_and_what_waits(engine, script):
    run_id = await engine.submit(task("a"), task("b", "a"))
    await engine.until_started("a#1")
    await engine.runs.cancel(run_id, by="admin")
    view = await engine.runs.wait(run_id)
    assert script.stopped == ["a#1"]
    assert statuses(view) == {"a": Status.CANCELED, "b": Status.CANCELED}
    assert view.row.state.status is RunStatus.CANCELED
    with pytest.raises(ConflictError):
        await engine.runs.cancel(run_id, by="admin")
    with pytest.raises(NotFoundError):
        await engine.runs.cancel("1_abcdef", by="admin")


async def test_one_task_can_be_cancelled(engine, script):
    run_id = await engine.submit(task("a"), task("b"), task("c", "a"))
    await engine.until_started("a#1", "b#1")
    await engine.runs.cancel(run_id, by="admin", task_id="a")
    await engine.until(lambda: script.stopped == ["a#1"])
    script.end("b#1")
    view = await engine.runs.wait(run_id)
    assert statuses(view) == {"a": Status.CANCELED, "b": Status.SUCCESS, "c": Status.SKIPPED}


async def test_fail_fast_stops_the_others(engine, script):
    run_id = await engine.submit(task("a"), task("b"), task("c", "b"), policy=FailPolicy.FAIL_FAST)
    await engine.until_started("a#1", "b#1")
    script.end("a#1", Result.failed("no"))
    view = await engine.runs.wait(run_id)
    assert script.stopped == ["b#1"]
    assert statuses(view) == {"a": Status.FAILED, "b": Status.CANCELED, "c": Status.SKIPPED}
    assert view.row.state.status is RunStatus.FAILED


async def test_an_executor_that_raises_harms_its_own_attempt_only(engine, script):
    run_id = await engine.submit(task("a"), task("b"))
    await engine.until_started("a#1", "b#1")
    script.end("a#1", ValueError("what"))
    script.end("b#1")
    view = await engine.runs.wait(run_id)
    assert statuses(view) == {"a": Status.FAILED, "b": Status.SUCCESS}
    assert view.tasks[0].row.state.message == "ValueError: what"


async def test_an_executor_that_does_not_stop_is_abandoned(engine, script, clock):
    script.ignores_cancel = True
    run_id = await engine.submit(task("a", timeout_ms=1000))
    await engine.until_started("a#1")
    await clock.advance(1.1)
    assert (await engine.runs.get(run_id)).row.state.status is RunStatus.RUNNING
    await clock.advance(31)
    view = await engine.runs.wait(run_id)
    assert view.tasks[0].row.state.status is Status.TIMEOUT
    assert "did not stop" in view.tasks[0].row.state.message
    script.end("a#1")
    await asyncio.sleep(0)


async def test_an_executor_may_not_return_nonsense(engine, script):
    script.instant = {"status": "ok"}
    view = await engine.runs.wait(await engine.submit(task("a")))
    assert view.tasks[0].row.state.message == "TypeError: the executor returned dict, not a Result"


async def test_an_uninstalled_executor_fails_its_task(engine):
    view = await engine.runs.wait(await engine.submit(task("a", exec_type="Gone")))
    assert "Gone is not installed" in view.tasks[0].row.state.message


async def test_metadata_that_is_not_json_is_replaced(engine, script):
    script.instant = Result(metadata={"x": object()}, message="\ud800")
    view = await engine.runs.wait(await engine.submit(task("a")))
    state = view.tasks[0].row.state
    assert "not JSON" in state.metadata["error"]
    assert state.message == "?"


async def test_what_an_executor_says_is_stored_without_secrets(engine, stores, script):
    script.instant = Result.failed("hunter2 was refused at redis://me:hunter2@example")
    script.instant = replace(script.instant, metadata={"token": "x", "echo": "hunter2", "n": 1})
    given = {"exec_params": {"env.API_KEY": "hunter2"}, "metadata": {"password": "hunter3"}}
    run_id = await engine.submit(task("a", **given))
    state = (await engine.runs.wait(run_id)).tasks[0].row.state
    assert state.message == "*** was refused at redis://me:***@example"
    assert state.metadata == {"token": "***", "echo": "***", "n": 1}
    assert "hunter2" not in repr(await stores.runs.history(run_id))
    assert (await engine.runs.get(run_id)).spec.tasks[0].exec_params == given["exec_params"]


async def test_what_an_executor_logs_and_raises_is_stored_without_secrets(
    engine, stores, script, caplog
):
    async def execute(context):
        context.log("with hunter2", fields={"a": [{"cookie": 1}], "url": "x?hunter2"})
        raise ValueError("hunter2")

    caplog.set_level("DEBUG")
    script.execute = execute
    run_id = await engine.submit(task("a", exec_params={"password": "hunter2"}))
    assert (await engine.runs.wait(run_id)).tasks[0].row.state.message == "ValueError: ***"
    (line,) = await stores.logs.read("a", run_id, 1, 10)
    assert line.message == "with ***"
    assert line.fields == {"a": [{"cookie": "***"}], "url": "x?***"}
    assert any(getattr(record, "error", "") == "ValueError: ***" for record in caplog.records)


async def test_the_same_key_gives_the_same_run(engine, script):
    script.instant = Result()
    one, two = await asyncio.gather(
        engine.submit(task("a"), key="k", owner="u"), engine.submit(task("a"), key="k", owner="u")
    )
    await engine.runs.wait(one)
    later = await engine.submit(task("a"), key="k", owner="u")
    other = await engine.submit(task("a"), key="k", owner="v")
    assert one == two == later != other
    await engine.runs.wait(other)


async def test_a_rerun_takes_what_did_not_succeed(engine, script):
    run_id = await engine.submit(task("a"), task("b", "a"), task("c", "b"))
    await engine.until_started("a#1")
    with pytest.raises(ConflictError):
        await engine.runs.rerun(run_id, from_failed=True)
    script.end("a#1")
    await engine.until_started("b#1")
    script.end("b#1", Result.failed("no"))
    await engine.runs.wait(run_id)
    again = await engine.runs.rerun(run_id, from_failed=True)
    view = await engine.runs.get(again)
    assert [(t.row.spec.id, t.row.spec.deps) for t in view.tasks] == [("b", ()), ("c", ("b",))]
    assert view.row.header.parent_run_id == run_id
    whole = await engine.runs.rerun(run_id, from_failed=False)
    assert len((await engine.runs.get(whole)).tasks) == 3


async def test_stopping_takes_no_new_runs_and_records_what_it_cut_short(engine, script):
    run_id = await engine.submit(task("a", idempotent=True), task("b"))
    await engine.until_started("a#1", "b#1")
    await engine.supervisor.stop(0)
    with pytest.raises(UnavailableError):
        await engine.submit(task("c"))
    states = {t.row.spec.id: t.row.state for t in (await engine.runs.get(run_id)).tasks}
    assert states["b"].message.startswith("lost: the server was stopped")
    assert states["b"].metadata["outcome"] == "unknown"
    assert states["a"].status is Status.PENDING


async def test_10000_tasks_side_by_side_end(engine, script):
    script.instant = Result()
    run_id = await engine.submit(*(task(f"t{i}") for i in range(10_000)), max_parallel=100)
    view = await engine.runs.wait(run_id)
    assert view.row.state.success_count == 10_000
    seqs = [e.seq for e in await engine.stores.runs.history(run_id, 0, 100_000)]
    assert seqs == list(range(1, 70_003))


@pytest.mark.parametrize(
    "nonsense",
    [
        Result.failed(ValueError("not a text")),
        Result(status="ok"),
        Result(exit_code="one"),
        Result(metadata=7),
    ],
)
async def test_a_result_with_wrong_types_ends_the_attempt_all_the_same(engine, script, nonsense):
    script.instant = nonsense
    run_id = await engine.submit(task("a"))
    view = await engine.runs.wait(run_id)
    assert view.tasks[0].row.state.status.is_final


async def test_a_stop_while_the_output_is_being_stored_changes_nothing(engine, script, stores):
    gate = asyncio.Event()
    append = stores.logs.append

    async def held(chunks):
        await gate.wait()
        await append(chunks)

    stores.logs.append = held
    script.output = b"hello\n"
    script.instant = Result()
    run_id = await engine.submit(task("a"), task("b", "a"))
    await engine.until_started("a#1")
    await engine.runs.cancel(run_id, by="admin")
    gate.set()
    view = await engine.runs.wait(run_id)
    assert statuses(view) == {"a": Status.SUCCESS, "b": Status.CANCELED}
    assert view.tasks[0].output.stdout == "hello\n"


async def test_cancelling_a_large_fail_fast_run_takes_each_task_once(engine, script):
    tasks = (task(f"t{i}") for i in range(2000))
    run_id = await engine.submit(*tasks, policy=FailPolicy.FAIL_FAST)
    run = engine.supervisor.runs[run_id]
    await engine.until_started("t0#1")
    await engine.runs.cancel(run_id, by="admin")
    assert len(run.agenda) <= 4000
    view = await engine.runs.wait(run_id)
    assert view.row.state.failed_count == 2000


async def test_a_canceled_task_does_not_start_while_others_are_settled(engine, script):
    blocker = await engine.submit(task("a"), task("b"), max_parallel=1)
    await engine.until_started("a#1")
    await engine.runs.cancel(blocker, by="admin", task_id="b")
    run = engine.supervisor.runs[blocker]
    assert run.best_ready() is None
    script.end("a#1")
    view = await engine.runs.wait(blocker)
    assert statuses(view)["b"] is Status.CANCELED


async def test_runs_that_end_leave_nothing_behind(engine, script, clock):
    script.instant = Result.failed("no")
    for _ in range(300):
        run_id = await engine.submit(task("a", retry_count=1, timeout_ms=60_000))
        await engine.runs.cancel(run_id, by="admin")
        await engine.runs.wait(run_id)
    supervisor = engine.supervisor
    assert supervisor.runs == supervisor._progress._retries == supervisor._waiters == {}
    assert len(supervisor._scheduler._heap) <= 256
    assert len(engine.timers._heap) <= 512
    assert engine.launcher._live == engine.launcher._by_run == {}


async def test_a_caller_that_goes_away_is_not_remembered(engine, script):
    run_id = await engine.submit(task("a"))
    waiting = asyncio.create_task(engine.runs.wait(run_id), name="wait")
    await engine.until(lambda: engine.supervisor._waiters.get(run_id))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert engine.supervisor._waiters[run_id] == set()


async def test_a_stop_waits_for_what_is_just_being_stored(stores, clock, script):
    store = FaultyRunStore(stores.runs)
    engine = await Engine(stores, clock, script, runs=store).start()
    run_id = await engine.submit(task("a"), task("b", "a"))
    await engine.until_started("a#1")
    store.pause()
    commits = len(store.calls)
    script.end("a#1")
    await engine.until(lambda: len(store.calls) > commits)
    stopping = asyncio.create_task(engine.supervisor.stop(0), name="stop")
    await asyncio.sleep(0)
    store.resume()
    await stopping
    states = {t.row.spec.id: t.row.state for t in (await engine.runs.get(run_id)).tasks}
    assert states["a"].status is Status.SUCCESS
    assert states["b"].message.startswith("lost: the server was stopped")
    await engine.kill()


async def test_the_queue_counts_what_is_being_stored(stores, clock, script):
    store = FaultyRunStore(stores.runs)
    engine = await Engine(stores, clock, script, runs=store, queued=2).start()
    store.pause()
    calls = [asyncio.create_task(engine.submit(task("a")), name="submit") for _ in range(5)]
    await engine.until(lambda: sum(call.done() for call in calls) == 3)
    store.resume()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, TooManyError) for end in ended) == 3
    await engine.kill()


async def test_cancel_says_by_whom_of_what_was_running_too(engine, script):
    run_id = await engine.submit(task("a"), task("b", "a"))
    await engine.until_started("a#1")
    await engine.runs.cancel(run_id, by="ann")
    await engine.runs.wait(run_id)
    history = await engine.stores.runs.history(run_id)
    canceled = {e.task_id: e.extra["by"] for e in history if e.name == "task_canceled"}
    assert canceled == {"": "ann", "a": "ann", "b": "ann"}
