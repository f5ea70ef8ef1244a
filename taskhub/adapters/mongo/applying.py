"""A batch on its way into the collections: which documents it makes, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from taskhub.adapters.mongo import rows
from taskhub.adapters.mongo.audit import append_entries
from taskhub.adapters.mongo.client import Database, UpdateOne
from taskhub.adapters.mongo.ledger import Entry
from taskhub.adapters.mongo.lists import SPAN
from taskhub.adapters.mongo.skew import Skew
from taskhub.domain.audit import AuditEntry
from taskhub.domain.event import Event
from taskhub.ports.store import Batch, RunUpdate, TaskOutput, TaskUpdate

BUCKET: Final = 256
BUCKET_BYTES: Final = 1 << 20
EVENT_BYTES: Final = 200
LARGE: Final = 300
"""Rows from which on making documents is work for a thread."""

Document = dict[str, Any]


@dataclass(slots=True)
class Plan:
    """What several commits together do to the collections."""

    new_runs: list[Document] = field(default_factory=list)
    new_tasks: list[Document] = field(default_factory=list)
    events: list[Document] = field(default_factory=list)
    outputs: list[UpdateOne] = field(default_factory=list)
    runs: list[UpdateOne] = field(default_factory=list)
    tasks: list[UpdateOne] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)
    number: int = 0


class Applier:
    """Puts commits of the state ledger into the collections."""

    def __init__(self, database: Database, skew: Skew) -> None:
        self._database = database
        self._skew = skew

    async def __call__(self, entries: Sequence[Entry[Batch]], replays: bool) -> None:  # noqa: FBT001
        """Apply entries; those that `replays` may be there in part, with other states."""
        size = sum(batch_size(entry.item) for entry in entries)
        if size > LARGE:
            plan = await asyncio.to_thread(make_plan, entries, replays)
        else:
            plan = make_plan(entries, replays)
        for entry in entries:
            await self._skew.widen(entry.item)
        runs, tasks = self._database["runs"], self._database["tasks"]
        if replays:
            await self._write_parts(plan)
            await tasks.write(plan.tasks)
        else:
            await together(self._write_parts(plan), tasks.write(plan.tasks))
        await runs.insert(plan.new_runs)  # last: a run is there when all that is its is
        await runs.write(plan.runs)

    async def _write_parts(self, plan: Plan) -> None:
        database = self._database
        await together(
            database["tasks"].insert(plan.new_tasks),
            database["outputs"].write(plan.outputs),
            database["events"].insert(plan.events),
            append_entries(database, plan.audit),
            self._raise_number(plan.number),
        )

    async def _raise_number(self, number: int) -> None:
        if number:
            change = {"$max": {"value": number}}
            await self._database["meta"].write([UpdateOne({"_id": "number"}, change, upsert=True)])


async def together(*works: Awaitable[object]) -> None:
    """Wait for all; raise the first error only then, so that nothing goes on behind it."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def batch_size(batch: Batch) -> int:
    """Return about how many rows a batch has."""
    return len(batch.events) + len(batch.tasks) + sum(len(dag.tasks) for _, dag in batch.new_runs)


def make_plan(entries: Sequence[Entry[Batch]], replays: bool) -> Plan:  # noqa: FBT001
    """Return what to write. A row is written once, as it is after the last of the entries.

    What is replayed may meet rows in the state of any commit: there new rows are also updated.
    """
    plan = Plan()
    runs: dict[str, tuple[int, RunUpdate]] = {}
    tasks: dict[int, tuple[int, TaskUpdate]] = {}
    outputs: dict[int, tuple[int, TaskOutput]] = {}
    for entry in entries:
        batch, number = entry.item, entry.number
        runs |= {run.run_id: (number, run) for run in batch.runs}
        tasks |= {task.id: (number, task) for task in batch.tasks}
        outputs |= {output.id: (number, output) for output in batch.outputs}
        plan.events += _buckets(batch.events)
        plan.audit += batch.audit
        plan.number = max(plan.number, batch.last_number)
    for entry in entries:
        _add_new(plan, entry, dict(runs) if replays else runs, dict(tasks) if replays else tasks)
    plan.runs = [
        UpdateOne(_older({"run_id": key}, n), {"$set": {**rows.run_state(run), "commit": n}})
        for key, (n, run) in runs.items()
    ]
    plan.tasks = [
        UpdateOne(_older({"_id": key}, n), {"$set": {**rows.task_state(task), "commit": n}})
        for key, (n, task) in tasks.items()
    ]
    plan.outputs = [
        UpdateOne(_older({"_id": key}, n), {"$set": _output(output, n)}, upsert=True)
        for key, (n, output) in outputs.items()
    ]
    return plan


def _older(query: Document, number: int) -> Document:
    """Match what an earlier commit wrote: a late write of an old commit changes nothing."""
    return {**query, "commit": {"$lt": number}}


def _output(output: TaskOutput, number: int) -> Document:
    text = output.output
    return {"stdout": text.stdout, "stderr": text.stderr, "commit": number}


def _add_new(
    plan: Plan,
    entry: Entry[Batch],
    runs: dict[str, tuple[int, RunUpdate]],
    tasks: dict[int, tuple[int, TaskUpdate]],
) -> None:
    for header, dag in entry.item.new_runs:
        n, run = runs.pop(header.run_id, (entry.number, None))
        state = {"status": 0, **dict.fromkeys(rows.RUN_STATE, 0), "message": ""}
        if run is not None:
            state = rows.run_state(run)
        plan.new_runs.append({**rows.run_document(header, dag), **state, "commit": n})
        plan.number = max(plan.number, header.number)
        for index, spec in enumerate(dag.tasks):
            m, task = tasks.pop(header.first_task_id + index, (entry.number, None))
            task_state = rows.PENDING if task is None else rows.task_state(task)
            document = rows.task_document(header, index, spec)
            plan.new_tasks.append({**document, **task_state, "commit": m})


def _buckets(events: Sequence[Event]) -> Iterator[Document]:
    """Divide events by run and into documents; the same commit always gives the same ones."""
    by_run = sorted(events, key=lambda event: event.run_id)
    for _, group in groupby(by_run, key=lambda event: event.run_id):
        part: list[Event] = []
        size = 0
        for event in group:
            weight = _weight(event)
            is_full = len(part) == BUCKET or size + weight > BUCKET_BYTES
            if part and (is_full or event.id - part[0].id >= SPAN):
                yield rows.events_document(part)
                part, size = [], 0
            part.append(event)
            size += weight
        yield rows.events_document(part)


def _weight(event: Event) -> int:
    """Return about how many bytes an event takes; only metadata can make it large."""
    extra = event.extra
    return EVENT_BYTES + (len(rows.pack(extra)) if "metadata" in extra or "message" in extra else 0)
