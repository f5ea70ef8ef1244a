"""A run is a fold over its events; nothing else may change its state."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from taskhub.domain.dag import DagSpec, FailPolicy
from taskhub.domain.event import Event, EventName
from taskhub.domain.result import NO_EXIT_CODE
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.errors import ConflictError

CANCEL_REQUESTED: Final = "cancel_requested"
"""In the metadata of a simple task that has ended: somebody asked to stop it before."""


class RunStatus(IntEnum):
    """The state of a run, as `/api/dag/runs` carries it."""

    RUNNING = 0
    SUCCESS = 1
    FAILED = 2
    CANCELED = 3

    @property
    def word(self) -> str:
        """The `status_name` beside the number."""
        return self.name.lower()


class Source(StrEnum):
    """What asked for a run."""

    MANUAL = "manual"
    TEMPLATE = "template"
    CRON = "cron"
    TASK = "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What is known of a run before it starts, and never changes.

    `ord` orders runs by age; task i of the spec has the task_run id `first_task_id + i`.
    `unique_key` is empty or belongs to one run only (an idempotency key, a cron slot). `number` is
    the integer id of a simple task, 0 for every other run.
    """

    run_id: str
    ord: int
    name: str
    source: Source
    created_ms: int
    first_task_id: int
    owner: str = ""
    parent_run_id: str = ""
    unique_key: str = ""
    number: int = 0


class Phase(IntEnum):
    """Where a task is on its way; finer than its status."""

    WAITING = 0
    READY = 1
    RUNNING = 2
    BACKOFF = 3
    DONE = 4


class TaskState:
    """One task of a run in motion. Mutable, and changed by `Run.apply` only."""

    __slots__ = (
        "attempt",
        "attempt_key",
        "cancel_requested",
        "dependents",
        "deps_left",
        "duration_ms",
        "end_ts_ms",
        "epoch",
        "exit_code",
        "index",
        "message",
        "metadata",
        "outcome",
        "phase",
        "printed",
        "retry_at_ms",
        "spec",
        "start_ts_ms",
        "status",
    )

    def __init__(self, spec: TaskSpec, index: int) -> None:
        self.spec = spec
        self.index = index
        self.dependents: list[TaskState] = []
        self.deps_left = len(spec.deps)
        self.phase = Phase.WAITING
        self.status = Status.PENDING
        self.attempt = 0
        self.attempt_key = ""
        self.retry_at_ms = 0
        self.cancel_requested = False
        self.epoch = 0
        self.start_ts_ms = 0
        self.end_ts_ms = 0
        self.exit_code = NO_EXIT_CODE
        self.duration_ms = 0
        self.message = ""
        self.metadata: Mapping[str, JSON] = {}
        self.outcome = Status.PENDING
        self.printed = True  # a hint: False once it is known that nothing is stored to be read


class Run:
    """The state of one run after `seq` events.

    `agenda` holds what follows from the events so far and is not yet an event itself: tasks to
    announce as ready and tasks to skip. It is a hint (an entry may be outdated), and the fold
    rebuilds it, so a crash between two slices of a long consequence loses nothing.
    """

    def __init__(self, header: RunHeader, spec: DagSpec) -> None:
        self.header = header
        self.spec = spec
        self.id = header.run_id
        self.tasks = {task.id: TaskState(task, i) for i, task in enumerate(spec.tasks)}
        for task in self.tasks.values():
            for dep in task.spec.deps:
                self.tasks[dep].dependents.append(task)
        self.seq = 0
        self.status = RunStatus.RUNNING
        self.start_ts_ms = 0
        self.end_ts_ms = 0
        self.updated_ms = header.created_ms
        self.message = ""
        self.cancel_requested = False
        self.canceled_by = ""
        self.fail_fast = False
        self.running = 0
        self.left = len(self.tasks)
        self.counts = {Status.SUCCESS: 0, Status.FAILED: 0, Status.SKIPPED: 0}
        self.losses = 0
        self.loss_epoch = 0
        self.ready: list[tuple[int, int, TaskState]] = []
        self.agenda: deque[TaskState] = deque()

    @property
    def is_stopping(self) -> bool:
        """Whether no further attempt may start."""
        return self.fail_fast or self.cancel_requested

    @property
    def has_room(self) -> bool:
        """Whether one more attempt fits under `max_parallel`."""
        return self.running < self.spec.max_parallel

    def losses_with(self, task: TaskState) -> int:
        """Count the servers in a row that died with this run and without progress in between.

        The loss of the task's running attempt is included; other attempts lost with the same
        server count as one.
        """
        return self.losses + (task.epoch != self.loss_epoch)

    def best_ready(self) -> TaskState | None:
        """Return the ready task that should start next: highest priority, then input order."""
        while self.ready:
            task = self.ready[0][2]
            if task.phase is Phase.READY and not task.cancel_requested:
                return task
            heapq.heappop(self.ready)
        return None

    def apply(self, event: Event) -> None:
        """Move on by one event; raise `ConflictError` where it cannot follow what was."""
        if event.seq != self.seq + 1:
            message = f"run {self.id}: event {event.seq} does not follow event {self.seq}"
            raise ConflictError(message)
        if self.status is not RunStatus.RUNNING:
            raise ConflictError(f"run {self.id} has ended: {self.status.word}")
        if event.task_id:
            task = self.tasks[event.task_id]
            if task.phase is Phase.DONE and event.name not in AFTER_DONE:
                raise ConflictError(f"run {self.id}: task {event.task_id} has ended")
            FOLD_TASK[event.name](self, task, event)
        else:
            FOLD_RUN[event.name](self, event)
        self.updated_ms = event.ts_ms
        self.seq = event.seq

    def stop(self) -> None:
        """Put every task that has not started on the agenda, to be closed."""
        self.agenda.extend(t for t in self.tasks.values() if t.phase in OPEN_PHASES)


OPEN_PHASES: Final = frozenset({Phase.WAITING, Phase.READY, Phase.BACKOFF})
AFTER_DONE: Final = frozenset({EventName.NODE_END})


def _run_start(run: Run, event: Event) -> None:
    run.start_ts_ms = event.ts_ms
    run.agenda.extend(task for task in run.tasks.values() if not task.deps_left)


def _run_cancel(run: Run, event: Event) -> None:
    run.cancel_requested = True
    run.canceled_by = str(event.extra["by"])
    run.stop()


def _run_end(run: Run, event: Event) -> None:
    run.status = RunStatus(_int(event.extra["status"]))
    run.message = str(event.extra["message"])
    run.end_ts_ms = event.ts_ms


def _ready(run: Run, task: TaskState, _event: Event) -> None:
    if task.phase not in {Phase.WAITING, Phase.BACKOFF}:
        raise ConflictError(f"run {run.id}: task {task.spec.id} is ready already")
    task.phase = Phase.READY
    heapq.heappush(run.ready, (-task.spec.priority, task.index, task))


def _nothing(_run: Run, _task: TaskState, _event: Event) -> None:
    return None


def _task_start(_run: Run, task: TaskState, event: Event) -> None:
    task.start_ts_ms = event.ts_ms


def _attempt_start(run: Run, task: TaskState, event: Event) -> None:
    if run.best_ready() is not task:
        raise ConflictError(f"run {run.id}: task {task.spec.id} is not the next to start")
    heapq.heappop(run.ready)
    task.phase = Phase.RUNNING
    task.status = Status.RUNNING
    task.attempt = _int(event.extra["attempt"])
    task.attempt_key = str(event.extra["attempt_key"])
    task.epoch = _int(event.extra["epoch"])
    run.running += 1


def _attempt_end(run: Run, task: TaskState, event: Event) -> None:
    extra = event.extra
    if task.phase is not Phase.RUNNING or extra["attempt"] != task.attempt:
        raise ConflictError(f"run {run.id}: task {task.spec.id} has no attempt {extra['attempt']}")
    run.running -= 1
    task.exit_code = _int(extra["exit_code"])
    task.duration_ms = _int(extra["duration_ms"])
    task.message = str(extra["message"])
    task.outcome = Status(_int(extra["status"]))
    metadata = extra.get("metadata", {})
    task.metadata = metadata if isinstance(metadata, dict) else {}
    is_lost = task.metadata.get("outcome") == "unknown"
    run.losses = run.losses_with(task) if is_lost else 0
    run.loss_epoch = task.epoch if is_lost else 0
    task.retry_at_ms = _int(extra.get("retry_at_ms", 0))
    if task.retry_at_ms:
        task.phase = Phase.BACKOFF
        task.status = Status.PENDING
        if run.is_stopping:
            run.agenda.append(task)


def _task_end(run: Run, task: TaskState, event: Event) -> None:
    task.status = Status(_int(event.extra["status"]))
    task.end_ts_ms = event.ts_ms
    task.exit_code = _int(event.extra["exit_code"])
    task.message = str(event.extra["message"])
    if run.header.number and (task.cancel_requested or run.cancel_requested):
        task.metadata = {**task.metadata, CANCEL_REQUESTED: True}
    if not task.attempt:
        task.start_ts_ms = event.ts_ms
    _close(run, task)
    fails_fast = run.spec.fail_policy is FailPolicy.FAIL_FAST
    if task.status.is_failure and fails_fast and not run.is_stopping:
        run.fail_fast = True
        run.stop()


def _node_end(run: Run, task: TaskState, _event: Event) -> None:
    for dependent in task.dependents:
        dependent.deps_left -= 1
        if task.status is not Status.SUCCESS or not dependent.deps_left:
            run.agenda.append(dependent)


def _skipped(run: Run, task: TaskState, event: Event) -> None:
    task.status = Status.SKIPPED
    task.message = str(event.extra["reason"])
    task.start_ts_ms = task.end_ts_ms = event.ts_ms
    _close(run, task)
    run.agenda.extend(task.dependents)


def _canceled(run: Run, task: TaskState, _event: Event) -> None:
    task.cancel_requested = True
    run.agenda.append(task)


def _close(run: Run, task: TaskState) -> None:
    task.phase = Phase.DONE
    counted = Status.FAILED if task.status.is_failure else task.status
    run.counts[counted] += 1
    run.left -= 1


def _int(value: JSON) -> int:
    assert isinstance(value, int)  # noqa: S101  # our own event, not input
    return value


FOLD_RUN: Final[Mapping[EventName, Callable[[Run, Event], None]]] = {
    EventName.RUN_START: _run_start,
    EventName.RUN_END: _run_end,
    EventName.TASK_CANCELED: _run_cancel,
}
FOLD_TASK: Final[Mapping[EventName, Callable[[Run, TaskState, Event], None]]] = {
    EventName.NODE_READY: _ready,
    EventName.NODE_START: _nothing,
    EventName.TASK_START: _task_start,
    EventName.ATTEMPT_START: _attempt_start,
    EventName.ATTEMPT_END: _attempt_end,
    EventName.TASK_END: _task_end,
    EventName.NODE_END: _node_end,
    EventName.NODE_SKIPPED: _skipped,
    EventName.TASK_CANCELED: _canceled,
    EventName.REMOTE_DISPATCH: _nothing,
    EventName.REMOTE_FAILED: _nothing,
}
