"""The lists of runs, task_runs and events: what is asked, and by which index."""

from __future__ import annotations

import asyncio
import re
from bisect import insort
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from taskhub.adapters.mongo.client import Collection_, Sort
from taskhub.adapters.mongo.rows import events_of
from taskhub.domain.event import Event
from taskhub.ports.store import EventQuery, NumberedQuery, Page, RunQuery, TaskQuery

T = TypeVar("T")
Document = dict[str, Any]
IdRange = Mapping[str, int] | None

NEWEST: Final[Sort] = (("_id", -1),)
LITERAL: Final = re.compile(r"[^0-9A-Za-z\u0080-\U0010ffff]")
SPAN: Final = 1 << 22
"""Ids that one document of events spans at most: those of one second."""
INT64_MAX: Final = 2**63 - 1
DECODE_IN_THREAD: Final = 8
"""Documents of events from which on decoding them is work for a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A query, the order of its answer, and the index that gives both."""

    query: Document
    hint: str
    sort: Sort | None = NEWEST


def runs_search(query: RunQuery, ids: IdRange, before: int | None) -> Search:
    """Return how to find runs; `ids` is the range of ids that the times lie in."""
    wanted: Document = {}
    hint: str = "_id_"
    sort: Sort | None = NEWEST
    if query.name is not None:
        wanted["folded"] = substring(query.name)
        hint = "name"
    if query.run_id is not None:
        wanted["run_id"] = query.run_id
        hint, sort = "run_id", None
    _between(wanted, "start_ms", query.start_ts_ms, query.end_ts_ms)
    _limit_ids(wanted, ids, before)
    return Search(query=wanted, hint=hint, sort=sort)


def tasks_search(query: TaskQuery, first: int, last: int, before: int | None) -> Search:
    """Return how to find task_runs; those of a run have the ids from `first` to `last`."""
    wanted: Document = {}
    hint = "_id_"
    if query.name is not None:
        wanted["name"] = query.name
        hint = "name" if query.run_id is None else "_id_"
    ids = {"$gte": first, "$lte": last} if query.run_id is not None else None
    _limit_ids(wanted, ids, before)
    return Search(query=wanted, hint=hint)


def numbered_search(query: NumberedQuery, before: int | None) -> Search:
    """Return how to find simple tasks."""
    numbers: Document = {"$gt": 0}
    if before is not None:
        numbers["$lt"] = before
    if query.number is not None:
        numbers["$eq"] = query.number
    wanted: Document = {"number": numbers}
    if query.name is not None:
        wanted["folded"] = substring(query.name)
    hint = "number"
    if query.status is not None:
        wanted["status"] = query.status.value
        hint = "status"
    return Search(query=wanted, hint=hint, sort=(("number", -1),))


def events_search(query: EventQuery, ids: IdRange, before: int | None) -> Search:
    """Return how to find documents that hold such events, among others; by descending last id."""
    wanted: Document = {}
    hint: str = "last_id"
    sort: Sort = (("last_id", -1),)
    if query.event is not None:
        wanted["names"] = query.event.value
        hint = "event"
    if query.task_id is not None:
        wanted["tasks"] = query.task_id
        hint = "task"
    if query.run_id is not None:
        wanted["run_id"] = query.run_id
        hint, sort = "run", (("seq", -1),)
    _limit_last_ids(wanted, ids, before)
    return Search(query=wanted, hint=hint, sort=sort)


def _limit_last_ids(wanted: Document, ids: IdRange, before: int | None) -> None:
    """Bound the documents that may hold ids in a range: none spans `SPAN` ids or more."""
    ends = [end for end in (before, (ids or {}).get("$lt")) if end is not None]
    last: Document = {}
    if ends:
        wanted["_id"] = {"$lt": min(ends)}
        last["$lt"] = min(min(ends) + SPAN, INT64_MAX)
    if ids and "$gte" in ids:
        last["$gte"] = ids["$gte"]
    if last:
        wanted["last_id"] = last


async def find_events(
    collection: Collection_,
    query: EventQuery,
    ids: IdRange,
    limit: int,
    before: int | None,
) -> Page[Event]:
    """Return a page of events.

    Documents come by descending last id and may overlap, so what was found is the page once all
    of it lies above the last id of the next document.
    """
    found: list[Event] = []  # by descending id
    async for document, events in _decoded(collection, events_search(query, ids, before)):
        last_id = document["last_id"]
        if len(found) > limit and found[limit].id > last_id:
            break
        for event in events:
            if _matches(query, event) and (before is None or event.id < before):
                insort(found, event, key=lambda each: -each.id)
        del found[limit + 1 :]
    more = len(found) > limit > 0
    return Page(items=found[:limit], next_before=found[limit - 1].id if more else None)


async def _decoded(
    collection: Collection_, search: Search
) -> AsyncIterator[tuple[Document, list[Event]]]:
    sort = search.sort or NEWEST
    async for part in collection.walk(search.query, sort=sort, size=4, hint=search.hint):
        if len(part) < DECODE_IN_THREAD:
            decoded = _decode(part)
        else:
            decoded = await asyncio.to_thread(_decode, part)
        for pair in zip(part, decoded, strict=True):
            yield pair


def _decode(documents: list[Document]) -> list[list[Event]]:
    return [events_of(document) for document in documents]


def _matches(query: EventQuery, event: Event) -> bool:
    return (
        query.task_id in {None, event.task_id}
        and query.event in {None, event.name}
        and (query.start_ts_ms is None or query.start_ts_ms <= event.ts_ms)
        and (query.end_ts_ms is None or event.ts_ms <= query.end_ts_ms)
    )


def substring(text: str) -> Document:
    """Match what contains a text: a pattern in which every character stands for itself."""
    return {"$regex": LITERAL.sub(lambda found: f"\\x{{{ord(found[0]):x}}}", text.casefold())}


def page(
    documents: list[Document], limit: int, convert: Callable[[Document], T], key: str = "_id"
) -> Page[T]:
    """Return what is wanted of up to `limit` + 1 documents."""
    more = len(documents) > limit > 0
    documents = documents[:limit]
    items = [convert(document) for document in documents]
    return Page(items=items, next_before=documents[-1][key] if more else None)


def _between(wanted: Document, name: str, start: int | None, end: int | None) -> None:
    if start is not None:
        wanted[name] = {"$gte": start}
    if end is not None:
        wanted[name] = {**wanted.get(name, {}), "$lte": end}


def _limit_ids(wanted: Document, ids: IdRange, before: int | None) -> None:
    conditions: Document = dict(ids or {})
    if before is not None:
        conditions["$lt"] = min(before, conditions.get("$lt", before))
    if conditions:
        wanted["_id"] = conditions
