"""Runs, events and lines to fill a store with; the same numbers make the same values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import NOTHING, Event, EventName
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.domain.result import Output
from taskhub.domain.run import RunHeader, RunStatus, Source
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.ports.store import (
    Batch,
    EventQuery,
    Page,
    RunQuery,
    RunStore,
    RunUpdate,
    TaskOutput,
    TaskQuery,
    TaskUpdate,
)

T = TypeVar("T")

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
NASTY: Final = "Ä ß İ 漢字 🦊 \u2028 \x00 \x7f \\ \" ' % _ $set {{x}} \r\t"
EMPTY: Final[tuple[object, ...]] = ([], [], [], [], {})
"""The `snapshot` of a run that is not there."""
STRIDE: Final = 100_000
T0: Final = 1_800_000_000_000


def run_id(number: int) -> str:
    """Return the id of run `number`."""
    return f"{T0 + number}_abcDEF"


def dag(count: int = 2, name: str = "dag") -> DagSpec:
    """Return a chain of tasks t0, t1 ..., named name0, name1 ..."""
    deps = [(), *((f"t{i}",) for i in range(count - 1))]
    tasks = (
        TaskSpec(id=f"t{i}", name=f"name{i}", exec_type="Local", exec_params={"i": i}, deps=deps[i])
        for i in range(count)
    )
    return DagSpec(name=name, tasks=tuple(tasks))


def header(number: int, name: str = "", unique_key: str = "") -> RunHeader:
    """Return the header of run `number`; later numbers are newer."""
    return RunHeader(
        run_id=run_id(number),
        ord=number * STRIDE,
        name=name,
        source=Source.MANUAL,
        created_ms=T0 + number,
        first_task_id=task_run_id(number, 0),
        owner="somebody",
        parent_run_id=run_id(0),
        unique_key=unique_key,
    )


def task_run_id(number: int, index: int) -> int:
    """Return the id of task `index` of run `number`."""
    return number * STRIDE + 1 + index


def run_update(
    number: int, status: RunStatus = RunStatus.RUNNING, start_ms: int = T0, end_ms: int = 0
) -> RunUpdate:
    """Return the state of run `number`."""
    return RunUpdate(run_id(number), status, start_ms, end_ms, 1, 2, 3, "message")


def task_update(number: int, index: int, status: Status = Status.SUCCESS) -> TaskUpdate:
    """Return the state of task `index` of run `number`."""
    i = task_run_id(number, index)
    run, task = run_id(number), f"t{index}"
    return TaskUpdate(i, run, task, status, 1, 7, 12, "done", T0 + 1, T0 + 13, {"a": [1]})


def event(  # an event has as many parts
    number: int,
    seq: int,
    name: EventName = EventName.NODE_READY,
    task_id: str = "",
    ts_ms: int = T0,
    extra: Mapping[str, JSON] = NOTHING,
) -> Event:
    """Return event `seq` of run `number`."""
    return Event(number * STRIDE + 20_000 + seq, run_id(number), seq, ts_ms, name, task_id, extra)


def new_run(number: int, count: int = 2, *, name: str = "", unique_key: str = "") -> Batch:
    """Return the batch that makes run `number`."""
    return Batch(
        new_runs=[(header(number, name, unique_key), dag(count))],
        runs=[run_update(number)],
        events=[event(number, 1, EventName.RUN_START)],
    )


def ended_run(number: int, end_ms: int, start_ms: int = T0, name: str = "") -> Batch:
    """Return the batch that makes run `number`, already over."""
    batch = new_run(number, name=name)
    batch.runs = [run_update(number, RunStatus.SUCCESS, start_ms, end_ms)]
    return batch


def full_batch(number: int, unique_key: str = "") -> Batch:
    """Return a batch with something of every kind."""
    batch = new_run(number, unique_key=unique_key)
    batch.runs = [RunUpdate(run_id(number), RunStatus.RUNNING, T0, 0, 1, 0, 0, "on its way")]
    batch.tasks = [task_update(number, 0)]
    batch.outputs = [TaskOutput(task_run_id(number, 0), run_id(number), Output(stdout="out"))]
    batch.events.append(event(number, 2, EventName.TASK_END, "t0", T0 + 1, {"status": 2}))
    return batch


def ended_batch(number: int, end_ms: int) -> Batch:
    """Return `full_batch`, its run over."""
    batch = full_batch(number)
    batch.runs = [run_update(number, RunStatus.SUCCESS, T0, end_ms)]
    return batch


async def snapshot(store: RunStore, number: int) -> tuple[object, ...]:
    """Return all that a store says of run `number`."""
    run = run_id(number)
    return (
        list((await store.runs(RunQuery(run_id=run), 100)).items),
        list((await store.task_runs(TaskQuery(run_id=run), 5000)).items),
        list((await store.events(EventQuery(run_id=run), 5000)).items),
        list(await store.history(run)),
        dict(await store.outputs([task_run_id(number, i) for i in range(3)])),
    )


def audit_entry(number: int) -> AuditEntry:
    """Return entry `number` of the audit."""
    detail: Mapping[str, JSON] = {"number": number} if number % 2 else {}
    return AuditEntry(
        number, f"key {number}", T0 + number, "ann", "user.add", "bob", "::1", Outcome.OK, detail
    )


def segment(lines: Sequence[str], ts_ms: int = T0, continued: Sequence[int] = ()) -> LogSegment:
    """Return lines of standard output."""
    return LogSegment(
        attempt=1,
        stream=Stream.STDOUT,
        level=Level.INFO,
        ts_ms=ts_ms,
        duration_ms=3,
        lines=list(lines),
        continued=list(continued),
    )


def chunk(  # a chunk has as many parts
    number: int,
    first_seq: int,
    lines: Sequence[str],
    *,
    run: str = "r",
    task: str = "t",
    ts_ms: int = T0,
) -> LogChunk:
    """Return chunk `number` of a store, with one segment."""
    return LogChunk(
        id=number,
        run_id=run,
        task_id=task,
        first_seq=first_seq,
        count=len(lines),
        size=sum(len(line.encode()) for line in lines),
        ts_ms=ts_ms,
        segments=(segment(lines, ts_ms),),
    )


async def walk(list_page: Callable[[int | None], Awaitable[Page[T]]]) -> AsyncIterator[Sequence[T]]:
    """Yield the items of a list, page by page, given how to get the page below a cursor."""
    before = None
    while True:
        page = await list_page(before)
        yield page.items
        before = page.next_before
        if before is None:
            return


async def collect(list_page: Callable[[int | None], Awaitable[Page[T]]]) -> list[T]:
    """Return a whole list, got in pages."""
    return [item async for items in walk(list_page) for item in items]
