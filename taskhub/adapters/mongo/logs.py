"""Lines of output, many to a document."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, Final

from taskhub.adapters.mongo import rows
from taskhub.adapters.mongo.applying import together
from taskhub.adapters.mongo.client import Database, UpdateOne
from taskhub.adapters.mongo.ledger import LINGER_S, Entry, Ledger, to_its_end
from taskhub.domain.log import LogChunk, LogRecord
from taskhub.ports.store import LogHead

Document = dict[str, Any]

LARGE_BYTES: Final = 64 << 10
"""Text from which on packing it is work for a thread."""
SWEEP: Final = 500
MOST_CHUNKS: Final = 64
MOST: Final = 2**62
"""Above any position; sums with it still fit 64 bits."""


class MongoLogStore:
    """Implements `taskhub.ports.store.LogStore`; `open` before anything is written."""

    def __init__(self, database: Database, linger_s: float = LINGER_S) -> None:
        self._database = database
        self._chunks = database["chunks"]
        self._heads = database["heads"]
        self._ledger: Ledger[list[Document]] = Ledger(
            database, "logs", self._apply, rows.decode_chunks, linger_s
        )
        self._turn = asyncio.Lock()
        self._last_chunk = 0

    async def open(self, epoch: int) -> None:
        """Become the one that writes; what earlier servers committed can be read afterwards."""
        await self._ledger.open(epoch)
        self._last_chunk = await self._newest()

    async def close(self, *, at_once: bool = False) -> None:
        """Write no more; see `Ledger.close`."""
        await self._ledger.close(at_once=at_once)

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        if chunks:
            await to_its_end(self._append(chunks), "append lines")

    async def _append(self, chunks: Sequence[LogChunk]) -> None:
        async with self._turn:
            fresh = chunks
            if any(chunk.id <= self._last_chunk for chunk in chunks):
                fresh = await self._without_known(chunks)
            if sum(chunk.size for chunk in fresh) > LARGE_BYTES:
                documents, payload = await asyncio.to_thread(_encode, fresh)
            else:
                documents, payload = _encode(fresh)
            await self._ledger.commit(documents, payload, chunks)
            self._last_chunk = max(self._last_chunk, *(chunk.id for chunk in chunks))

    async def _without_known(self, chunks: Sequence[LogChunk]) -> Sequence[LogChunk]:
        await self._ledger.caught_up()
        last = {
            pair: await self._last_seq(*pair)
            for pair in {(chunk.task_id, chunk.run_id) for chunk in chunks}
        }
        return [c for c in chunks if c.first_seq > last[c.task_id, c.run_id]]

    async def _apply(self, entries: Sequence[Entry[list[Document]]], replays: bool) -> None:  # noqa: ARG002, FBT001
        documents = [document for entry in entries for document in entry.item]
        await together(self._chunks.insert(documents), self._advance_heads(documents))

    async def _advance_heads(self, documents: Sequence[Document]) -> None:
        """Count lines in their heads; a chunk that is counted already finds a higher number."""
        parts: dict[tuple[str, str], list[Document]] = {}
        for document in documents:
            parts.setdefault((document["run_id"], document["task_id"]), []).append(document)
        for turn in range(max(map(len, parts.values()), default=0)):
            changes = [_head_change(part[turn]) for part in parts.values() if turn < len(part)]
            await self._heads.write(changes, ("_id", "run_id"))

    async def last_seq(self, task_id: str, run_id: str) -> int:
        await self._ledger.caught_up()
        return await self._last_seq(task_id, run_id)

    async def _last_seq(self, task_id: str, run_id: str) -> int:
        query = {"run_id": run_id, "task_id": task_id}
        found = await self._heads.find_one(query, ("last_seq",))
        return found["last_seq"] if found else 0

    async def last_id(self) -> int:
        await self._ledger.caught_up()
        return await self._newest()

    async def _newest(self) -> int:
        found = await self._chunks.find_one({}, ("_id",), [("_id", -1)])
        return found["_id"] if found else 0

    async def read(
        self, task_id: str, run_id: str, from_seq: int, limit: int
    ) -> Sequence[LogRecord]:
        await self._ledger.caught_up()
        return await self._read(task_id, run_id, from_seq, limit)

    async def _read(self, task_id: str, run_id: str, from_seq: int, limit: int) -> list[LogRecord]:
        """Read chunks from the one that holds the first line on; most pages lie in a single one."""
        records: list[LogRecord] = []
        after, count = from_seq - 1, 1
        while len(records) < limit:
            query = {"run_id": run_id, "task_id": task_id, "last_seq": {"$gt": after}}
            order = [("last_seq", 1)]
            found = await self._chunks.find(query, sort=order, limit=count, hint="lines")
            for document in found:
                lines = rows.chunk_of(document).records(from_seq)
                records += islice(lines, limit - len(records))
            if len(found) < count:
                break
            after, count = found[-1]["last_seq"], min(MOST_CHUNKS, 4 * count)
        return records

    async def read_task(
        self, task_id: str, from_position: int, limit: int
    ) -> Sequence[tuple[int, LogRecord]]:
        await self._ledger.caught_up()
        first = min(max(from_position, 1), MOST)
        heads = await self._placed(task_id, first, limit)
        whole = await self._whole(task_id, heads[1:-1])
        found: list[tuple[int, LogRecord]] = []
        for head in heads:
            run_id, shift = head["run_id"], head["start"] - (head["last_seq"] - head["lines"])
            records = whole.get(run_id)
            if records is None:
                records = await self._read(task_id, run_id, first - shift, limit)
            found += [(record.seq + shift, record) for record in records]
        return found[:limit]

    async def _whole(self, task_id: str, heads: Sequence[Document]) -> dict[str, list[LogRecord]]:
        """Return all lines of runs that lie within a page, in one query however many they are."""
        if not heads:
            return {}
        query = {"run_id": {"$in": [head["run_id"] for head in heads]}, "task_id": task_id}
        records: dict[str, list[LogRecord]] = {head["run_id"]: [] for head in heads}
        for document in await self._chunks.find(query, hint="lines"):
            records[document["run_id"]] += rows.chunk_of(document).records()
        for lines in records.values():
            lines.sort(key=lambda record: record.seq)
        return records

    async def _placed(self, task_id: str, first: int, limit: int) -> list[Document]:
        """Return the heads that hold such positions; `start` is how many lines come before."""
        before = {"$sum": "$lines", "window": {"documents": ["unbounded", -1]}}
        window = {"sortBy": {"_id": 1}, "output": {"start": before}}
        start = {"$ifNull": ["$start", 0]}
        found = await self._heads.aggregate(
            [
                {"$match": {"task_id": task_id}},
                {"$setWindowFields": window},
                {"$set": {"start": start, "end": {"$add": [start, "$lines"]}}},
                {"$match": {"end": {"$gte": first}, "start": {"$lt": first + limit - 1}}},
                {"$project": {"run_id": 1, "lines": 1, "last_seq": 1, "start": 1}},
            ]
        )
        return sorted(found, key=lambda head: head["_id"])

    async def chunks(
        self, run_id: str, after_id: int, limit: int, task_id: str | None = None
    ) -> Sequence[LogChunk]:
        await self._ledger.caught_up()
        query: Document = {"run_id": run_id, "_id": {"$gt": after_id}}
        if task_id is not None:
            query["task_id"] = task_id
        hint = "run" if task_id is None else "task"
        found = await self._chunks.find(query, sort=[("_id", 1)], limit=limit, hint=hint)
        if sum(document["size"] for document in found) > LARGE_BYTES:
            return await asyncio.to_thread(lambda: [rows.chunk_of(d) for d in found])
        return [rows.chunk_of(document) for document in found]

    async def heads(self, after: int, limit: int) -> Sequence[LogHead]:
        await self._ledger.caught_up()
        found = await self._heads.find(
            {"_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit, hint="_id_"
        )
        return [
            LogHead(d["_id"], d["task_id"], d["run_id"], d["lines"], d["last_seq"]) for d in found
        ]

    async def expire(
        self, before_ms: int, max_bytes: int, limit: int = 100, keep: Collection[str] = ()
    ) -> int:
        await self._ledger.caught_up()
        await self._ledger.trim()
        oldest = await self._heads.find(
            {"run_id": {"$nin": list(keep)}}, sort=[("last_ms", 1)], limit=limit, hint="age"
        )
        are_all_old = len(oldest) == limit and oldest[-1]["last_ms"] < before_ms
        excess = 0 if are_all_old else await self._stored_bytes() - max_bytes
        dying = []
        for head in oldest:
            if head["last_ms"] >= before_ms and excess <= 0:
                break
            dying.append(head)
            excess -= head["bytes"]
        await self._bury(dying)
        return len(dying)

    async def _stored_bytes(self) -> int:
        total = [{"$group": {"_id": None, "bytes": {"$sum": "$bytes"}}}]
        by_age: list[Document] = [{"$sort": {"last_ms": 1}}, {"$project": {"_id": 0, "bytes": 1}}]
        found = await self._heads.aggregate([*by_age, *total])
        return found[0]["bytes"] if found else 0

    async def _bury(self, heads: Sequence[Document]) -> None:
        """Take pairs out of the lists, then sweep their chunks; goes on with what was left."""
        graves = self._database["dying_lines"]
        newest = await self._newest()
        await graves.insert([{**head, "last_id": newest} for head in heads])
        await self._heads.delete({"_id": {"$in": [head["_id"] for head in heads]}})
        for grave in await graves.find({}):
            of_pair = {"run_id": grave["run_id"], "task_id": grave["task_id"]}
            await self._chunks.delete({**of_pair, "_id": {"$lte": grave["last_id"]}})
            await graves.delete({"_id": grave["_id"]})


def _encode(chunks: Sequence[LogChunk]) -> tuple[list[Document], bytes]:
    documents = [rows.chunk_document(chunk) for chunk in chunks]
    return documents, rows.encode_chunks(documents)


def _head_change(document: Document) -> UpdateOne:
    pair = {"run_id": document["run_id"], "task_id": document["task_id"]}
    return UpdateOne(
        {**pair, "last_seq": {"$lt": document["last_seq"]}},
        {
            "$setOnInsert": {"_id": document["_id"]},
            "$inc": {"lines": document["count"], "bytes": document["size"]},
            "$set": {"last_seq": document["last_seq"]},
            "$max": {"last_ms": document["ts_ms"]},
        },
        upsert=True,
    )
