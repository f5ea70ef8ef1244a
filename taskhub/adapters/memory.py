"""Stores that live as long as the process: the reference for the others, and for unit tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from taskhub.adapters.lease import SoleLease
from taskhub.adapters.memory_accounts import MemoryAccountStore, MemoryAuditStore, is_within, newest
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.log import LogChunk, LogRecord
from taskhub.domain.result import NO_EXIT_CODE, Output
from taskhub.domain.run import RunHeader, RunStatus
from taskhub.domain.task import Status
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.lease import Lease
from taskhub.ports.store import (
    Batch,
    EventQuery,
    LogHead,
    NumberedQuery,
    NumberedTask,
    Page,
    RunQuery,
    RunRow,
    RunUpdate,
    TaskQuery,
    TaskRow,
    TaskUpdate,
)


class MemoryRunStore:
    """Implements `taskhub.ports.store.RunStore`."""

    def __init__(self, audit: MemoryAuditStore | None = None) -> None:
        self._audit = audit or MemoryAuditStore()
        self._runs: dict[str, RunRow] = {}
        self._dags: dict[str, DagSpec] = {}
        self._tasks: dict[int, TaskRow] = {}
        self._events: dict[str, dict[int, Event]] = {}
        self._outputs: dict[int, Output] = {}
        self._epochs: dict[str, int] = {}
        self._last_number = 0

    async def commit(self, batch: Batch) -> None:
        new = [(header, dag) for header, dag in batch.new_runs if header.run_id not in self._runs]
        self._check_keys(header for header, _ in new)
        for header, dag in new:
            self._add(header, dag)
        numbers = (header.number for header, _ in batch.new_runs)
        self._last_number = max(self._last_number, batch.last_number, *numbers)
        for run in batch.runs:
            if row := self._runs.get(run.run_id):
                self._runs[run.run_id] = replace(row, state=run)
        for task in batch.tasks:
            if known := self._tasks.get(task.id):
                self._tasks[task.id] = replace(known, state=task)
        for output in batch.outputs:
            self._outputs[output.id] = output.output
        for event in batch.events:
            self._events.setdefault(event.run_id, {}).setdefault(event.seq, event)
        await self._audit.append(batch.audit)

    def _check_keys(self, headers: Iterable[RunHeader]) -> None:
        owners = {row.header.unique_key: run_id for run_id, row in self._runs.items()}
        for header in headers:
            key = header.unique_key
            if key and owners.setdefault(key, header.run_id) != header.run_id:
                raise ConflictError(f"the key {key!r} belongs to run {owners[key]}")

    def _add(self, header: RunHeader, dag: DagSpec) -> None:
        start = RunUpdate(header.run_id, RunStatus.RUNNING, 0, 0, 0, 0, 0, "")
        self._runs[header.run_id] = RunRow(header=header, total=len(dag.tasks), state=start)
        self._dags[header.run_id] = dag
        for i, spec in enumerate(dag.tasks, header.first_task_id):
            state = TaskUpdate(
                i, header.run_id, spec.id, Status.PENDING, 0, NO_EXIT_CODE, 0, "", 0, 0, {}
            )
            self._tasks[i] = TaskRow(spec=spec, state=state)

    async def check_room(self) -> None:
        return

    async def last_id(self) -> int:
        ords = (row.header.ord for row in self._runs.values())
        events = (event.id for events in self._events.values() for event in events.values())
        return max((*ords, *self._tasks, *events), default=0)

    async def last_number(self) -> int:
        return self._last_number

    async def open_epoch(self, boot_id: str, now_ms: int) -> int:  # noqa: ARG002  # kept by others
        return self._epochs.setdefault(boot_id, len(self._epochs) + 1)

    async def active(self) -> Sequence[str]:
        rows = sorted(self._runs.values(), key=lambda row: row.header.ord)
        return [row.header.run_id for row in rows if row.state.status is RunStatus.RUNNING]

    async def load(self, run_id: str) -> tuple[RunHeader, DagSpec]:
        return (await self.run(run_id)).header, self._dags[run_id]

    async def history(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[Event]:
        events = self._events.get(run_id, {})
        return [events[seq] for seq in sorted(events) if seq > after][:limit]

    async def run_by_key(self, unique_key: str) -> str | None:
        owners = {row.header.unique_key: run_id for run_id, row in self._runs.items()}
        return owners.get(unique_key) if unique_key else None

    async def run(self, run_id: str) -> RunRow:
        if run_id not in self._runs:
            raise NotFoundError("run", run_id)
        return self._runs[run_id]

    async def runs(self, query: RunQuery, limit: int, before: int | None = None) -> Page[RunRow]:
        rows = [row for row in self._runs.values() if _run_matches(query, row)]
        return newest(rows, lambda row: row.header.ord, limit, before)

    async def task_runs(
        self, query: TaskQuery, limit: int, before: int | None = None
    ) -> Page[TaskRow]:
        rows = [
            row
            for row in self._tasks.values()
            if query.run_id in {None, row.state.run_id} and query.name in {None, row.spec.name}
        ]
        return newest(rows, lambda row: row.state.id, limit, before)

    async def numbered(
        self, query: NumberedQuery, limit: int, before: int | None = None
    ) -> Page[NumberedTask]:
        headers = (row.header for row in self._runs.values() if row.header.number)
        tasks = (NumberedTask(header=h, task=self._tasks[h.first_task_id]) for h in headers)
        rows = [task for task in tasks if _task_matches(query, task)]
        return newest(rows, lambda task: task.header.number, limit, before)

    async def events(self, query: EventQuery, limit: int, before: int | None = None) -> Page[Event]:
        stored = (event for events in self._events.values() for event in events.values())
        rows = [event for event in stored if _event_matches(query, event)]
        return newest(rows, lambda event: event.id, limit, before)

    async def outputs(self, task_run_ids: Sequence[int]) -> Mapping[int, Output]:
        return {i: self._outputs[i] for i in task_run_ids if i in self._outputs}

    async def expire(self, before_ms: int, limit: int = 100) -> int:
        ended = [
            row
            for row in self._runs.values()
            if row.state.status is not RunStatus.RUNNING and row.state.end_ts_ms < before_ms
        ]
        ended = sorted(ended, key=lambda row: row.state.end_ts_ms)[:limit]
        for row in ended:
            self._delete(row)
        return len(ended)

    def _delete(self, row: RunRow) -> None:
        header = row.header
        for i in range(header.first_task_id, header.first_task_id + row.total):
            self._tasks.pop(i, None)
            self._outputs.pop(i, None)
        del self._runs[header.run_id], self._dags[header.run_id]
        self._events.pop(header.run_id, None)


def _run_matches(query: RunQuery, row: RunRow) -> bool:
    return (
        query.run_id in {None, row.header.run_id}
        and (query.name is None or query.name.casefold() in row.header.name.casefold())
        and is_within(row.state.start_ts_ms, query.start_ts_ms, query.end_ts_ms)
    )


def _task_matches(query: NumberedQuery, task: NumberedTask) -> bool:
    return (
        query.number in {None, task.header.number}
        and query.status in {None, task.task.state.status}
        and (query.name is None or query.name.casefold() in task.header.name.casefold())
    )


def _event_matches(query: EventQuery, event: Event) -> bool:
    return (
        query.run_id in {None, event.run_id}
        and query.task_id in {None, event.task_id}
        and query.event in {None, event.name}
        and is_within(event.ts_ms, query.start_ts_ms, query.end_ts_ms)
    )


class MemoryLogStore:
    """Implements `taskhub.ports.store.LogStore`."""

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, str], dict[int, LogChunk]] = {}

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        for chunk in chunks:
            stored = self._chunks.setdefault((chunk.task_id, chunk.run_id), {})
            stored.setdefault(chunk.first_seq, chunk)

    async def last_seq(self, task_id: str, run_id: str) -> int:
        chunks = self._chunks.get((task_id, run_id), {})
        return max((chunk.last_seq for chunk in chunks.values()), default=0)

    async def last_id(self) -> int:
        return max((chunk.id for chunk in self._all()), default=0)

    async def read(
        self, task_id: str, run_id: str, from_seq: int, limit: int
    ) -> Sequence[LogRecord]:
        return list(islice(self._lines((task_id, run_id), from_seq), limit))

    async def read_task(
        self, task_id: str, from_position: int, limit: int
    ) -> Sequence[tuple[int, LogRecord]]:
        pairs = [pair for pair in self._chunks if pair[0] == task_id]
        pairs.sort(key=lambda pair: min(chunk.id for chunk in self._chunks[pair].values()))
        records = (record for pair in pairs for record in self._lines(pair))
        found = (pair for pair in enumerate(records, 1) if pair[0] >= from_position)
        return list(islice(found, limit))

    async def chunks(
        self, run_id: str, after_id: int, limit: int, task_id: str | None = None
    ) -> Sequence[LogChunk]:
        found = [
            chunk
            for chunk in self._all()
            if chunk.run_id == run_id and chunk.id > after_id and task_id in {None, chunk.task_id}
        ]
        return sorted(found, key=lambda chunk: chunk.id)[:limit]

    async def heads(self, after: int, limit: int) -> Sequence[LogHead]:
        heads = sorted(_head(list(chunks.values())) for chunks in self._chunks.values())
        return [head for head in heads if head.ord > after][:limit]

    async def expire(
        self, before_ms: int, max_bytes: int, limit: int = 100, keep: Collection[str] = ()
    ) -> int:
        excess = sum(chunk.size for chunk in self._all()) - max_bytes
        ages = {
            pair: max(chunk.ts_ms for chunk in chunks.values())
            for pair, chunks in self._chunks.items()
            if not any(chunk.run_id in keep for chunk in chunks.values())
        }
        deleted = 0
        for pair in sorted(ages, key=lambda pair: ages[pair])[:limit]:
            if ages[pair] >= before_ms and excess <= 0:
                break
            excess -= sum(chunk.size for chunk in self._chunks.pop(pair).values())
            deleted += 1
        return deleted

    def _all(self) -> Iterable[LogChunk]:
        return (chunk for chunks in self._chunks.values() for chunk in chunks.values())

    def _lines(self, pair: tuple[str, str], from_seq: int = 1) -> Iterable[LogRecord]:
        chunks = self._chunks.get(pair, {})
        return (line for seq in sorted(chunks) for line in chunks[seq].records(from_seq))


def _head(chunks: Sequence[LogChunk]) -> LogHead:
    return LogHead(
        ord=min(chunk.id for chunk in chunks),
        task_id=chunks[0].task_id,
        run_id=chunks[0].run_id,
        lines=sum(chunk.count for chunk in chunks),
        last_seq=max(chunk.last_seq for chunk in chunks),
    )


class MemoryStores:
    """The stores of one server; any of them may be another one, for tests."""

    def __init__(
        self,
        *,
        runs: MemoryRunStore | None = None,
        logs: MemoryLogStore | None = None,
        accounts: MemoryAccountStore | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.audit = MemoryAuditStore() if accounts is None else accounts.audit
        self.runs = runs or MemoryRunStore(self.audit)
        self.logs = logs or MemoryLogStore()
        self.accounts = accounts or MemoryAccountStore(self.audit)
        self.lease: Lease = lease or SoleLease()

    async def signing_key(self, local: Callable[[], bytes]) -> bytes:
        """Return the data directory's own key, for no other server uses these stores."""
        return local()
