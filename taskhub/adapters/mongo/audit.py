"""Who did what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from taskhub.adapters.mongo.client import Database, DuplicateKeyError
from taskhub.adapters.mongo.rows import audit_document, audit_entry
from taskhub.domain.audit import AuditEntry
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import Page

HINTS = ("actor", "action", "target", "outcome")


async def append_entries(database: Database, entries: Sequence[AuditEntry]) -> None:
    """Store entries; one whose key is there stays, one whose id is taken gets the next."""
    documents = [audit_document(entry) for entry in entries]
    for index in await database["audit"].insert(documents, ("_id", "key")):
        await append_entry(database, entries[index])


async def append_entry(database: Database, entry: AuditEntry) -> None:
    """Store one entry, as `append_entries` does."""
    audit = database["audit"]
    document = audit_document(entry)
    while True:
        try:
            await audit.insert_one(document)
        except DuplicateKeyError:
            if await audit.find_one({"key": entry.key}, ("_id",)):
                return
            document["_id"] += 1
        else:
            return


class MongoAuditStore:
    """Implements `taskhub.ports.accounts.AuditStore`."""

    def __init__(self, database: Database, caught_up: Callable[[], Awaitable[None]]) -> None:
        """`caught_up` returns once the entries of this server's commits are in the collection."""
        self._database = database
        self._audit = database["audit"]
        self._caught_up = caught_up

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        await append_entries(self._database, entries)

    async def entries(
        self, query: AuditQuery, limit: int, before: int | None = None
    ) -> Page[AuditEntry]:
        await self._caught_up()
        wanted: dict[str, Any] = {
            name: value for name in HINTS if (value := getattr(query, name)) is not None
        }
        hint = next((name for name in HINTS if name in wanted), "_id_")
        if before is not None:
            wanted["_id"] = {"$lt": before}
        if query.start_ts_ms is not None:
            wanted["ts_ms"] = {"$gte": query.start_ts_ms}
        if query.end_ts_ms is not None:
            wanted["ts_ms"] = {**wanted.get("ts_ms", {}), "$lte": query.end_ts_ms}
        found = await self._audit.find(wanted, sort=[("_id", -1)], limit=limit + 1, hint=hint)
        items = [audit_entry(document) for document in found[:limit]]
        more = len(found) > limit > 0
        return Page(items=items, next_before=items[-1].id if more else None)

    async def expire(self, before_ms: int, limit: int = 1000) -> int:
        old = await self._audit.find(
            {"ts_ms": {"$lt": before_ms}}, sort=[("ts_ms", 1)], limit=limit, fields=("_id",)
        )
        return await self._audit.delete({"_id": {"$in": [each["_id"] for each in old]}})
