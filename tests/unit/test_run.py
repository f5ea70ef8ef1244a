"""The run as a fold, and the rules that feed it, against a slow and obvious oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskhub.domain import rules
from taskhub.domain.dag import DagSpec, FailPolicy
from taskhub.domain.event import Event, EventName
from taskhub.domain.result import Result
from taskhub.domain.run import Phase, Run, RunHeader, RunStatus, Source
from taskhub.domain.task import Status, TaskSpec
from taskhub.domain.waiting import waiting_on
from taskhub.errors import ConflictError

HEADER = RunHeader(run_id="r", ord=1, name="n", source=Source.MANUAL, created_ms=0, first_task_id=1)
FAILED = Result.failed("exit code 1")
SUCCESS = Result()


def task(name, deps="", **more):
    return TaskSpec(id=name, name=name, exec_type="Local", deps=tuple(deps.split()), **more)


def replay(spec, events):
    """Return the run as its events left it."""
    run = Run(HEADER, spec)
    for event in events:
        run.apply(event)
    return run


class Driver:
    """A run with a journal that only keeps the events."""

    def __init__(self, *tasks, policy=FailPolicy.SKIP_DOWNSTREAM, max_parallel=4):
        spec = DagSpec(name="d", tasks=tasks, fail_policy=policy, max_parallel=max_parallel)
        self.run = Run(HEADER, spec)
        self.events = []
        self.epoch = 1
        rules.start_run(self.run, self.record)
        self.settle()

    def record(self, run, name, task_id, extra):
        event = Event(len(self.events) + 1, run.id, run.seq + 1, 1000, name, task_id, extra)
        run.apply(event)
        self.events.append(event)

    def settle(self):
        rules.settle(self.run, self.record, 2)
        while self.run.agenda:
            rules.settle(self.run, self.record, 2)

    def start(self):
        """Start the best ready task; return its id, or None."""
        best = self.run.best_ready()
        if best is None or not self.run.has_room or self.run.is_stopping:
            return None
        key = f"k{best.attempt + 1}"
        rules.start_attempt(self.run, best, self.record, attempt_key=key, epoch=self.epoch)
        return best.spec.id

    def end(self, task_id, result=SUCCESS):
        state = self.run.tasks[task_id]
        rules.end_attempt(self.run, state, result, self.record, duration_ms=5, now_ms=1000)
        self.settle()

    def names(self, task_id):
        return [event.name for event in self.events if event.task_id == task_id]

    def status(self, task_id):
        return self.run.tasks[task_id].status


def test_a_diamond_runs_in_order():
    run = Driver(task("a"), task("b", "a"), task("c", "a"), task("d", "b c"))
    assert [run.start(), run.start()] == ["a", None]
    run.end("a")
    assert [run.start(), run.start(), run.start()] == ["b", "c", None]
    run.end("c")
    assert run.start() is None
    run.end("b")
    assert run.start() == "d"
    run.end("d")
    assert run.run.status is RunStatus.SUCCESS
    assert run.names("d") == [
        EventName.NODE_READY,
        EventName.NODE_START,
        EventName.TASK_START,
        EventName.ATTEMPT_START,
        EventName.ATTEMPT_END,
        EventName.TASK_END,
        EventName.NODE_END,
    ]


def test_a_failure_skips_what_depends_on_it_and_nothing_else():
    run = Driver(task("a"), task("b", "a"), task("c", "b"), task("x"))
    assert [run.start(), run.start()] == ["a", "x"]
    run.end("a", FAILED)
    assert run.status("b") is run.status("c") is Status.SKIPPED
    assert run.run.tasks["c"].message == "upstream task b skipped"
    run.end("x")
    assert run.status("x") is Status.SUCCESS
    assert run.run.status is RunStatus.FAILED
    assert run.events[-1].extra["message"] == "dag failed"


def test_fail_fast_skips_everything_that_has_not_started():
    run = Driver(task("a"), task("b"), task("c"), policy=FailPolicy.FAIL_FAST, max_parallel=2)
    assert [run.start(), run.start()] == ["a", "b"]
    run.end("a", FAILED)
    assert run.status("c") is Status.SKIPPED
    assert run.start() is None
    run.end("b", Result(status=Status.CANCELED, exit_code=143, message="canceled"))
    assert run.run.status is RunStatus.FAILED
    assert run.run.counts[Status.FAILED] == 2


def test_a_retry_waits_and_then_succeeds():
    run = Driver(task("a", retry_count=2, retry_delay_ms=100))
    run.start()
    run.end("a", FAILED)
    state = run.run.tasks["a"]
    assert (state.phase, state.retry_at_ms, state.status) == (Phase.BACKOFF, 1100, Status.PENDING)
    assert waiting_on(run.run, state).detail == {"until_ts_ms": 1100, "attempt": 2}
    rules.retry_now(run.run, state, run.record)
    assert run.start() == "a"
    run.end("a", FAILED)
    assert state.retry_at_ms == 1200
    rules.retry_now(run.run, state, run.record)
    run.start()
    run.end("a")
    assert (state.attempt, run.run.status) == (3, RunStatus.SUCCESS)


def test_a_timeout_is_retried_and_a_cancel_is_not():
    run = Driver(task("a", retry_count=1), task("b", retry_count=1))
    run.start(), run.start()
    run.end("a", Result(status=Status.TIMEOUT, exit_code=143))
    run.end("b", Result(status=Status.CANCELED, exit_code=143))
    assert run.run.tasks["a"].phase is Phase.BACKOFF
    assert run.status("b") is Status.CANCELED


def test_a_lost_attempt_is_repeated_only_if_the_task_is_idempotent():
    run = Driver(task("a", retry_count=5), task("b", idempotent=True))
    run.start(), run.start()
    run.end("a", Result.lost("power"))
    run.end("b", Result.lost("power"))
    assert run.status("a") is Status.FAILED
    assert run.run.tasks["a"].message == "lost: power"
    assert run.run.tasks["b"].phase is Phase.BACKOFF


def lose(run, *names):
    """Start tasks and lose them with their server; the next one begins."""
    for name in names:
        assert run.start() == name
    for name in names:
        run.end(name, Result.lost("crash"))
    for state in run.run.tasks.values():
        rules.retry_now(run.run, state, run.record)
    run.epoch += 1


def test_a_run_lost_three_times_without_progress_is_given_up():
    run = Driver(task("a", idempotent=True), task("b", idempotent=True))
    for _ in range(3):
        lose(run, "a", "b")
    assert (run.run.tasks["a"].attempt, run.run.status) == (3, RunStatus.FAILED)
    assert run.run.tasks["b"].message == "lost: crash; recovery limit reached"


def test_progress_makes_up_for_losses():
    run = Driver(task("a", idempotent=True), task("b", priority=-1), task("c", priority=-1))
    lose(run, "a")
    lose(run, "a")
    run.start(), run.start()
    run.end("b")
    run.end("a", Result.lost("crash"))
    assert run.run.tasks["a"].phase is Phase.BACKOFF


def test_cancel_ends_what_has_not_started_and_waits_for_what_has():
    run = Driver(task("a"), task("b", "a"), task("c"), max_parallel=1)
    run.start()
    rules.cancel_run(run.run, run.record, "admin")
    rules.cancel_run(run.run, run.record, "admin")
    run.settle()
    assert run.status("b") is run.status("c") is Status.CANCELED
    assert run.run.status is RunStatus.RUNNING
    run.end("a", Result(status=Status.CANCELED, exit_code=143))
    assert run.run.status is RunStatus.CANCELED
    assert [e.name for e in run.events].count(EventName.RUN_END) == 1


def test_cancelling_one_task_skips_its_dependents_only():
    run = Driver(task("a"), task("b", "a"), task("c"), max_parallel=1)
    rules.cancel_task(run.run, run.run.tasks["a"], run.record, "admin")
    run.settle()
    assert (run.status("a"), run.status("b")) == (Status.CANCELED, Status.SKIPPED)
    assert run.start() == "c"


def test_a_task_in_back_off_can_be_cancelled():
    run = Driver(task("a", retry_count=1))
    run.start()
    run.end("a", FAILED)
    rules.cancel_run(run.run, run.record, "admin")
    run.settle()
    assert run.run.status is RunStatus.CANCELED


def test_the_higher_priority_starts_first():
    run = Driver(task("low", priority=-1), task("mid"), task("high", priority=1), max_parallel=1)
    order = []
    while name := run.start():
        order.append(name)
        run.end(name)
    assert order == ["high", "mid", "low"]


def test_waiting_on_says_why():
    run = Driver(task("a"), task("b", "a c"), task("c"), max_parallel=1)
    run.start()
    reasons = {name: waiting_on(run.run, state) for name, state in run.run.tasks.items()}
    assert reasons["a"] is None
    assert (reasons["b"].reason, reasons["b"].detail) == ("upstream", {"tasks": ["a", "c"]})
    assert (reasons["c"].reason, reasons["c"].detail) == ("slot", {"max_parallel": 1})


def test_nothing_follows_the_end():
    run = Driver(task("a"))
    run.start()
    run.end("a")
    with pytest.raises(ConflictError):
        run.record(run.run, EventName.TASK_CANCELED, "", {})
    with pytest.raises(ConflictError):
        run.run.apply(run.events[-1])


def test_a_late_outcome_is_refused():
    run = Driver(task("a", retry_count=1), task("b"))
    run.start()
    run.end("a", FAILED)
    with pytest.raises(ConflictError):
        run.record(run.run, EventName.ATTEMPT_END, "a", run.events[-1].extra | {"attempt": 1})


@st.composite
def dags(draw):
    count = draw(st.integers(1, 8))
    return tuple(
        task(
            f"t{i}",
            " ".join(f"t{d}" for d in sorted(draw(st.sets(st.integers(0, i - 1))))) if i else "",
            retry_count=draw(st.integers(0, 2)),
            idempotent=draw(st.booleans()),
            priority=draw(st.integers(-1, 2)),
        )
        for i in range(count)
    )


def expected(tasks, outcomes):
    """Return each task's status under SkipDownstream, by recursion over what its deps did."""
    by_id = {t.id: t for t in tasks}
    known = {}

    def status(name):
        if name not in known:
            if any(status(dep) is not Status.SUCCESS for dep in by_id[name].deps):
                known[name] = Status.SKIPPED
            else:
                fails = outcomes[name]
                ok = fails <= by_id[name].retry_count
                known[name] = Status.SUCCESS if ok else Status.FAILED
        return known[name]

    return {t.id: status(t.id) for t in tasks}


@given(dags(), st.data())
def test_any_dag_ends_as_the_oracle_says_and_replays_to_the_same_state(tasks, data):
    fails = {t.id: data.draw(st.integers(0, 3)) for t in tasks}
    driver = Driver(*tasks, max_parallel=data.draw(st.integers(1, 4)))
    live = []
    while driver.run.status is RunStatus.RUNNING:
        while name := driver.start():
            live.append(name)
        for state in driver.run.tasks.values():
            rules.retry_now(driver.run, state, driver.record)
        if live:
            name = live.pop(data.draw(st.integers(0, len(live) - 1)))
            again = driver.run.tasks[name].attempt <= fails[name]
            driver.end(name, FAILED if again else SUCCESS)
    assert {n: s.status for n, s in driver.run.tasks.items()} == expected(tasks, fails)
    again = replay(driver.run.spec, driver.events)
    assert again.status is driver.run.status
    assert [(s.status, s.attempt, s.exit_code, s.message) for s in again.tasks.values()] == [
        (s.status, s.attempt, s.exit_code, s.message) for s in driver.run.tasks.values()
    ]


BATCH_ENDS = {
    EventName.RUN_START,
    EventName.NODE_READY,
    EventName.ATTEMPT_START,
    EventName.NODE_END,
    EventName.RUN_END,
}
"""A commit never ends between attempt_end and dag_node_end, or dag_node_start and attempt_start."""


@given(dags(), st.data())
def test_a_replay_cut_anywhere_goes_on_to_the_same_end(tasks, data):
    driver = Driver(*tasks)
    while name := driver.start():
        driver.end(name)
    whole = [i for i, e in enumerate(driver.events, 1) if e.name in BATCH_ENDS]
    cut = data.draw(st.sampled_from(whole))
    again = Driver.__new__(Driver)
    again.events = driver.events[:cut]
    again.epoch = 2
    again.run = replay(driver.run.spec, again.events)
    again.settle()
    for state in again.run.tasks.values():
        if state.phase is Phase.RUNNING:
            again.end(state.spec.id)
    while name := again.start():
        again.end(name)
    assert again.run.status is RunStatus.SUCCESS


def test_fail_fast_ends_a_task_in_back_off_with_what_it_had():
    run = Driver(task("r", retry_count=3), task("f"), policy=FailPolicy.FAIL_FAST)
    run.start(), run.start()
    run.end("r", Result.failed("exit code 7", 7))
    run.end("f", FAILED)
    state = run.run.tasks["r"]
    assert (state.status, state.exit_code) == (Status.FAILED, 7)
    assert state.message == "exit code 7; no retry, for another task failed"
    assert run.names("r")[-2:] == [EventName.TASK_END, EventName.NODE_END]
    assert run.run.counts[Status.FAILED] == 2


def test_cancel_says_by_whom_on_every_task():
    run = Driver(task("a"), task("b", "a"))
    rules.cancel_run(run.run, run.record, "admin")
    run.settle()
    canceled = [e for e in run.events if e.name is EventName.TASK_CANCELED]
    assert [(e.task_id, e.extra["by"]) for e in canceled] == [
        ("", "admin"),
        ("a", "admin"),
        ("b", "admin"),
    ]
