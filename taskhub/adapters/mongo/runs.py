"""Runs, their tasks and their events, as the port wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from taskhub.adapters.mongo import lists, rows
from taskhub.adapters.mongo.applying import LARGE, Applier, batch_size
from taskhub.adapters.mongo.client import Database
from taskhub.adapters.mongo.expiry import expire
from taskhub.adapters.mongo.ledger import LINGER_S, Ledger, to_its_end
from taskhub.adapters.mongo.skew import Skew
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.result import Output
from taskhub.domain.run import RunHeader
from taskhub.domain.task import TaskSpec
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.store import (
    Batch,
    EventQuery,
    NumberedQuery,
    NumberedTask,
    Page,
    RunQuery,
    RunRow,
    TaskQuery,
    TaskRow,
)

NOTHING_FOUND: Final[Page[Any]] = Page(items=())
ROWS_IN_THREAD: Final = 200
DOCUMENTS: Final = 16


class MongoRunStore:
    """Implements `taskhub.ports.store.RunStore`; `open` before anything is written."""

    def __init__(self, database: Database, linger_s: float = LINGER_S) -> None:
        self._database = database
        self._runs = database["runs"]
        self._tasks = database["tasks"]
        self._events = database["events"]
        self._skew = Skew(database)
        apply = Applier(database, self._skew)
        self._ledger: Ledger[Batch] = Ledger(database, "state", apply, rows.decode_batch, linger_s)
        self._turn = asyncio.Lock()
        self._last_ord = 0
        self._last_event = 0

    async def open(self, epoch: int) -> None:
        """Become the one that writes; what earlier servers committed can be read afterwards."""
        await self._ledger.open(epoch)
        self._last_ord, _, self._last_event = await self._last_ids()

    async def close(self, *, at_once: bool = False) -> None:
        """Write no more; see `Ledger.close`."""
        await self._ledger.close(at_once=at_once)

    @property
    def is_idle(self) -> bool:
        """Whether the collections hold all that was committed."""
        return self._ledger.is_idle

    async def caught_up(self) -> None:
        """Return once every commit made here is in the collections."""
        await self._ledger.caught_up()

    async def commit(self, batch: Batch) -> None:
        await to_its_end(self._commit(batch), "commit")

    async def _commit(self, batch: Batch) -> None:
        async with self._turn:
            fresh = await self._without_known(batch)
            if batch_size(fresh) > LARGE:
                payload = await asyncio.to_thread(rows.encode_batch, fresh)
            else:
                payload = rows.encode_batch(fresh)
            await self._ledger.commit(fresh, payload, batch)
            ords = (header.ord for header, _ in fresh.new_runs)
            self._last_ord = max(self._last_ord, *ords, 0)
            self._last_event = max(self._last_event, *(e.id for e in fresh.events), 0)

    async def _without_known(self, batch: Batch) -> Batch:
        """Return the batch without runs and events that are stored; raise `ConflictError`.

        Ids only grow, so what has a higher one than all before is new, and nobody is asked.
        """
        headers = [header for header, _ in batch.new_runs]
        if any(header.ord <= self._last_ord or header.unique_key for header in headers):
            batch = await self._without_known_runs(batch, headers)
        if any(event.id <= self._last_event for event in batch.events):
            batch = await self._without_known_events(batch)
        return batch

    async def _without_known_runs(self, batch: Batch, headers: Sequence[RunHeader]) -> Batch:
        await self._ledger.caught_up()
        ids = [header.run_id for header in headers]
        keys = [header.unique_key for header in headers if header.unique_key]
        query = {"$or": [{"run_id": {"$in": ids}}, {"key": {"$in": keys}}]}
        found = await self._runs.find(query, fields=("run_id", "key"))
        known = {document["run_id"] for document in found}
        owners = {d["key"]: d["run_id"] for d in found if "key" in d}
        for header in headers:
            key = header.unique_key
            if key and owners.setdefault(key, header.run_id) != header.run_id:
                raise ConflictError(f"the key {key!r} belongs to run {owners[key]}")
        new = [(header, dag) for header, dag in batch.new_runs if header.run_id not in known]
        return replace(batch, new_runs=new)

    async def _without_known_events(self, batch: Batch) -> Batch:
        await self._ledger.caught_up()
        last: dict[str, int] = {}
        for run_id in {event.run_id for event in batch.events if event.id <= self._last_event}:
            newest = [("seq", -1)]
            found = await self._events.find_one({"run_id": run_id}, ("last_seq",), newest)
            last[run_id] = found["last_seq"] if found else 0
        events = [event for event in batch.events if event.seq > last.get(event.run_id, 0)]
        return replace(batch, events=events)

    async def check_room(self) -> None:
        return  # the deployment watches its own disks, and refuses writes by itself

    async def last_id(self) -> int:
        await self._ledger.caught_up()
        return max(await self._last_ids())

    async def _last_ids(self) -> tuple[int, int, int]:
        newest = [("_id", -1)]
        run = await self._runs.find_one({}, ("_id",), newest)
        task = await self._tasks.find_one({}, ("_id",), newest)
        event = await self._events.find_one({}, ("last_id",), [("last_id", -1)])
        ids = (run["_id"] if run else 0, task["_id"] if task else 0)
        return *ids, event["last_id"] if event else 0

    async def last_number(self) -> int:
        await self._ledger.caught_up()
        found = await self._database["meta"].find_one({"_id": "number"})
        return found["value"] if found else 0

    async def open_epoch(self, boot_id: str, now_ms: int) -> int:
        epochs = self._database["epochs"]
        while (found := await epochs.find_one({"_id": boot_id})) is None:
            newest = await epochs.find_one({}, ("epoch",), [("epoch", -1)])
            epoch = newest["epoch"] + 1 if newest else 1
            row = {"_id": boot_id, "epoch": epoch, "started_ms": now_ms}
            await epochs.insert([row], ("_id", "epoch"))
        return int(found["epoch"])

    async def active(self) -> Sequence[str]:
        await self._ledger.caught_up()
        found = await self._runs.find(
            {"status": 0}, sort=[("_id", 1)], fields=("run_id",), hint="active"
        )
        return [document["run_id"] for document in found]

    async def load(self, run_id: str) -> tuple[RunHeader, DagSpec]:
        document = await self._find_run(run_id)
        header = rows.run_header(document)
        ids = {"$gte": header.first_task_id, "$lt": header.first_task_id + document["total"]}
        found = await self._tasks.find({"_id": ids}, sort=[("_id", 1)], fields=("spec",))
        specs = await _convert(found, _spec_of)
        return header, rows.dag_spec(document["dag"], specs)

    async def _find_run(self, run_id: str) -> dict[str, Any]:
        await self._ledger.caught_up()
        document = await self._runs.find_one({"run_id": run_id})
        if document is None:
            raise NotFoundError("run", run_id)
        return document

    async def history(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[Event]:
        await self._ledger.caught_up()
        start = 0
        if after:  # a document may begin before and hold what comes after
            query = {"run_id": run_id, "seq": {"$lte": after + 1}}
            first = await self._events.find_one(query, ("seq",), [("seq", -1)])
            start = first["seq"] if first else 0
        found: list[Event] = []
        count = DOCUMENTS
        while len(found) < limit:
            query = {"run_id": run_id, "seq": {"$gte": start}}
            part = await self._events.find(query, sort=[("seq", 1)], limit=count, hint="run")
            for events in await _convert(part, rows.events_of, 8):
                found += [event for event in events if event.seq > after]
            if len(part) < count:
                break
            start, count = part[-1]["last_seq"] + 1, min(256, 4 * count)
        return found[:limit]

    async def run_by_key(self, unique_key: str) -> str | None:
        if not unique_key:
            return None
        await self._ledger.caught_up()
        found = await self._runs.find_one({"key": unique_key}, ("run_id",))
        return found["run_id"] if found else None

    async def run(self, run_id: str) -> RunRow:
        return rows.run_row(await self._find_run(run_id))

    async def runs(self, query: RunQuery, limit: int, before: int | None = None) -> Page[RunRow]:
        await self._ledger.caught_up()
        ids = await self._skew.id_range("runs", query.start_ts_ms, query.end_ts_ms)
        search = lists.runs_search(query, ids, before)
        return lists.page(await self._search("runs", search, limit), limit, rows.run_row)

    async def task_runs(
        self, query: TaskQuery, limit: int, before: int | None = None
    ) -> Page[TaskRow]:
        await self._ledger.caught_up()
        first, last = 0, -1
        if query.run_id is not None:
            run = await self._runs.find_one({"run_id": query.run_id}, ("first_task_id", "total"))
            if run is None:
                return NOTHING_FOUND
            first, last = run["first_task_id"], run["first_task_id"] + run["total"] - 1
        found = await self._search("tasks", lists.tasks_search(query, first, last, before), limit)
        if len(found) < ROWS_IN_THREAD:
            return lists.page(found, limit, rows.task_row)
        return await asyncio.to_thread(lists.page, found, limit, rows.task_row)

    async def numbered(
        self, query: NumberedQuery, limit: int, before: int | None = None
    ) -> Page[NumberedTask]:
        await self._ledger.caught_up()
        found = await self._search("tasks", lists.numbered_search(query, before), limit)
        ids = [document["run_id"] for document in found]
        headers = {
            document["run_id"]: rows.run_header(document)
            for document in await self._runs.find({"run_id": {"$in": ids}})
        }
        page = lists.page(found, limit, lambda document: document, "number")
        items = [
            NumberedTask(header=headers[d["run_id"]], task=rows.task_row(d))
            for d in page.items
            if d["run_id"] in headers  # else its run is on its way, in or out
        ]
        return Page(items=items, next_before=page.next_before)

    async def _search(self, name: str, search: lists.Search, limit: int) -> list[dict[str, Any]]:
        return await self._database[name].find(
            search.query, sort=search.sort, limit=limit + 1, hint=search.hint
        )

    async def events(self, query: EventQuery, limit: int, before: int | None = None) -> Page[Event]:
        await self._ledger.caught_up()
        ids = await self._skew.id_range("events", query.start_ts_ms, query.end_ts_ms)
        return await lists.find_events(self._events, query, ids, limit, before)

    async def outputs(self, task_run_ids: Sequence[int]) -> Mapping[int, Output]:
        await self._ledger.caught_up()
        found = await self._database["outputs"].find({"_id": {"$in": list(task_run_ids)}})
        return {d["_id"]: Output(stdout=d["stdout"], stderr=d["stderr"]) for d in found}

    async def expire(self, before_ms: int, limit: int = 100) -> int:
        await self._ledger.caught_up()
        await self._ledger.trim()
        return await expire(self._database, before_ms, limit)


def _spec_of(document: dict[str, Any]) -> TaskSpec:
    return rows.task_spec(document["spec"])


async def _convert(documents: list[Any], convert: Any, many: int = ROWS_IN_THREAD) -> list[Any]:  # noqa: ANN401
    """Convert documents, in a thread if there are many."""
    if len(documents) < many:
        return [convert(document) for document in documents]
    return await asyncio.to_thread(lambda: [convert(document) for document in documents])
