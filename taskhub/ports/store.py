"""Where runs and logs are kept.

Two ports, each with its contract suite in `taskhub.testing`. Every method may raise
`UnavailableError`: the store cannot be reached or cannot write. For a write that means *unknown*:
it happened whole or not at all, and the caller repeats the very same call until it succeeds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from taskhub.domain.audit import AuditEntry
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event, EventName
from taskhub.domain.log import LogChunk, LogRecord
from taskhub.domain.result import Output
from taskhub.domain.run import Run, RunHeader, RunStatus, TaskState
from taskhub.domain.task import JSON, Status, TaskSpec

T = TypeVar("T")


class RunUpdate(NamedTuple):
    """The changing half of a run's row.

    While a run is under way its counts may lag behind its tasks by a second; at its end they are
    exact.
    """

    run_id: str
    status: RunStatus
    start_ts_ms: int
    end_ts_ms: int
    success_count: int
    failed_count: int
    skipped_count: int
    message: str

    @classmethod
    def of(cls, run: Run) -> RunUpdate:
        """Return the row of a run as it is."""
        counts = run.counts
        return cls(
            run.id,
            run.status,
            run.start_ts_ms,
            run.end_ts_ms,
            counts[Status.SUCCESS],
            counts[Status.FAILED],
            counts[Status.SKIPPED],
            run.message,
        )


class TaskUpdate(NamedTuple):
    """The changing half of a task_run's row."""

    id: int
    run_id: str
    task_id: str
    status: Status
    attempt: int
    exit_code: int
    duration_ms: int
    message: str
    start_ts_ms: int
    end_ts_ms: int
    metadata: Mapping[str, JSON]

    @classmethod
    def of(cls, run: Run, task: TaskState) -> TaskUpdate:
        """Return the row of a task as it is."""
        return cls(
            run.header.first_task_id + task.index,
            run.id,
            task.spec.id,
            task.status,
            task.attempt,
            task.exit_code,
            task.duration_ms,
            task.message,
            task.start_ts_ms,
            task.end_ts_ms,
            task.metadata,
        )


class TaskOutput(NamedTuple):
    """The end of what the last attempt of a task printed; replaces that of the one before."""

    id: int
    run_id: str
    output: Output


@dataclass(slots=True, kw_only=True)
class Batch:
    """What one tick of the engine decided. Stored whole or not at all.

    Every run in `new_runs` has its `RunUpdate` in `runs`. A task of a new run that has no
    `TaskUpdate` is pending. `runs` and `tasks` hold at most one entry per row, the latest.
    `audit` says who asked for any of it. `last_number` raises what `RunStore.last_number` returns,
    as the `number` of every new run does.
    """

    new_runs: list[tuple[RunHeader, DagSpec]] = field(default_factory=list)
    runs: list[RunUpdate] = field(default_factory=list)
    tasks: list[TaskUpdate] = field(default_factory=list)
    outputs: list[TaskOutput] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)
    last_number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as lists show it."""

    header: RunHeader
    total: int
    state: RunUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A task_run as lists show it, without output."""

    spec: TaskSpec
    state: TaskUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs: all conditions hold, None means any. `name` is a substring, case-insensitive."""

    run_id: str | None = None
    name: str | None = None
    start_ts_ms: int | None = None
    end_ts_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """Which task_runs. `name` is exact."""

    run_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events; `start_ts_ms` and `end_ts_ms` are inclusive."""

    run_id: str | None = None
    task_id: str | None = None
    event: EventName | None = None
    start_ts_ms: int | None = None
    end_ts_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedQuery:
    """Which simple tasks. `name` is a substring of the run's name, case-insensitive."""

    status: Status | None = None
    name: str | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedTask:
    """A run that has a `number`, with its one task."""

    header: RunHeader
    task: TaskRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Part of a list, newest first; `next_before` is the `before` of the next part, if any."""

    items: Sequence[T]
    next_before: int | None = None


class RunStore(Protocol):
    """History of runs: events are the truth, run and task_run rows are snapshots of it."""

    async def commit(self, batch: Batch) -> None:
        """Store the batch, flushed to disk, atomically and in one commit.

        Idempotent: rows are found by their keys (`run_id`, task_run `id`, `(run_id, seq)`), and
        what is already there stays or is overwritten with the same. Raises `ConflictError` if a
        new run's non-empty `unique_key` belongs to another run; then nothing was written. Called
        by the journal only, one call at a time.
        """
        ...

    async def check_room(self) -> None:
        """Raise `UnavailableError` if no new run should be given to the store at present.

        What runs already may still be stored: the room that is left is kept for that.
        """
        ...

    async def last_id(self) -> int:
        """Return the highest `ord`, task_run id, event id stored, or 0."""
        ...

    async def last_number(self) -> int:
        """Return the highest `number` a run ever had, expired ones included, or 0."""
        ...

    async def open_epoch(self, boot_id: str, now_ms: int) -> int:
        """Record that a server starts; return its number, 1 for the first, ever growing."""
        ...

    async def active(self) -> Sequence[str]:
        """Return the ids of all runs that have not ended, oldest first."""
        ...

    async def load(self, run_id: str) -> tuple[RunHeader, DagSpec]:
        """Return what a run was made from; raise `NotFoundError`."""
        ...

    async def history(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[Event]:
        """Return up to `limit` events of a run with `seq` above `after`, in order."""
        ...

    async def run_by_key(self, unique_key: str) -> str | None:
        """Return the id of the run that has this `unique_key`."""
        ...

    async def run(self, run_id: str) -> RunRow:
        """Return one run; raise `NotFoundError`."""
        ...

    async def runs(self, query: RunQuery, limit: int, before: int | None = None) -> Page[RunRow]:
        """Return runs by descending `ord`, those below `before`; times are of `start_ts_ms`."""
        ...

    async def task_runs(
        self, query: TaskQuery, limit: int, before: int | None = None
    ) -> Page[TaskRow]:
        """Return task_runs by descending id, those below `before`."""
        ...

    async def numbered(
        self, query: NumberedQuery, limit: int, before: int | None = None
    ) -> Page[NumberedTask]:
        """Return runs that have a number, by descending number, those below `before`.

        Each has exactly one task.
        """
        ...

    async def events(self, query: EventQuery, limit: int, before: int | None = None) -> Page[Event]:
        """Return events by descending id, those below `before`."""
        ...

    async def outputs(self, task_run_ids: Sequence[int]) -> Mapping[int, Output]:
        """Return what is stored of the output of these task_runs, by id."""
        ...

    async def expire(self, before_ms: int, limit: int = 100) -> int:
        """Delete up to `limit` runs that ended before, with all that is theirs; return how many.

        Several transactions are fine: a run is gone from lists first, its events last.
        """
        ...


class LogHead(NamedTuple):
    """What is stored of one task of one run; `ord` is the id of its first chunk."""

    ord: int
    task_id: str
    run_id: str
    lines: int
    last_seq: int


class LogStore(Protocol):
    """Lines of task output, by (task_id, run_id) and number."""

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        """Store chunks, flushed, all or none. Idempotent by (run_id, task_id, first_seq).

        The chunks of one (task_id, run_id) come in order and without gaps, in this call and over
        all calls. Called by the log writer only, one call at a time.
        """
        ...

    async def last_seq(self, task_id: str, run_id: str) -> int:
        """Return the number of the last line stored, or 0."""
        ...

    async def last_id(self) -> int:
        """Return the highest chunk id stored, or 0."""
        ...

    async def read(
        self, task_id: str, run_id: str, from_seq: int, limit: int
    ) -> Sequence[LogRecord]:
        """Return up to `limit` lines of one task of one run, `seq` >= `from_seq`, in order."""
        ...

    async def read_task(
        self, task_id: str, from_position: int, limit: int
    ) -> Sequence[tuple[int, LogRecord]]:
        """Return lines over all runs of a task id, oldest run first, each with its position.

        Positions count from 1 over the lines that are stored now.
        """
        ...

    async def chunks(
        self, run_id: str, after_id: int, limit: int, task_id: str | None = None
    ) -> Sequence[LogChunk]:
        """Return up to `limit` chunks of a run (of one task) with `id` above `after_id`, by id."""
        ...

    async def heads(self, after: int, limit: int) -> Sequence[LogHead]:
        """Return up to `limit` (task, run) pairs with `ord` above `after`, by `ord`."""
        ...

    async def expire(
        self, before_ms: int, max_bytes: int, limit: int = 100, keep: Collection[str] = ()
    ) -> int:
        """Delete the lines of up to `limit` (task, run) pairs, oldest first; return how many.

        Deleted is what was last written before `before_ms`, and whatever is oldest while more
        than `max_bytes` of text is stored. Lines of the runs in `keep` stay: numbers go on there.
        """
        ...
