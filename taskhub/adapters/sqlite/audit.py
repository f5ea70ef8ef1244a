"""Who did what, in the file of the runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from taskhub.adapters.sqlite.database import Database
from taskhub.adapters.sqlite.lists import page
from taskhub.adapters.sqlite.rows import fetch, from_text, select, to_text
from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import Page

COLUMNS: Final = ", ".join(AuditEntry._fields)
HAS: Final = "SELECT 1 FROM audit WHERE key = ?"
FREE: Final = """SELECT CASE WHEN EXISTS (SELECT 1 FROM audit WHERE id = :id)
    THEN (SELECT min(a.id) + 1 FROM audit AS a WHERE a.id >= :id
        AND NOT EXISTS (SELECT 1 FROM audit AS b WHERE b.id = a.id + 1))
    ELSE :id END"""
INSERT: Final = f"INSERT INTO audit ({COLUMNS}) VALUES ({', '.join('?' * len(AuditEntry._fields))})"  # noqa: S608  # constants
EXPIRE: Final = """DELETE FROM audit WHERE id IN (
    SELECT id FROM audit INDEXED BY audit_time WHERE ts_ms < ? ORDER BY ts_ms LIMIT ?)"""
BY: Final = ("actor", "action", "target")


def has_entry(connection: sqlite3.Connection, key: str) -> bool:
    """Whether an entry of that key is stored."""
    return connection.execute(HAS, (key,)).fetchone() is not None


def append_entries(connection: sqlite3.Connection, entries: Sequence[AuditEntry]) -> None:
    """Store entries within the caller's transaction, each once, each with an id of its own."""
    for entry in entries:
        if not has_entry(connection, entry.key):
            (free,) = connection.execute(FREE, {"id": entry.id}).fetchone()
            row = (free, *entry[1:7], entry.outcome.value, to_text(entry.detail))
            connection.execute(INSERT, row)


def entries_query(query: AuditQuery, limit: int, before: int | None) -> tuple[str, dict[str, Any]]:
    """Return the query and its values; newest first, by the index of one condition."""
    conditions = {
        "actor": (query.actor, "actor = :actor"),
        "action": (query.action, "action = :action"),
        "target": (query.target, "target = :target"),
        "outcome": (query.outcome and query.outcome.value, "outcome = :outcome"),
        "start": (query.start_ts_ms, "ts_ms >= :start"),
        "end": (query.end_ts_ms, "ts_ms <= :end"),
        "before": (before, "id < :before"),
    }
    values = {name: value for name, (value, _) in conditions.items() if value is not None}
    by = next((name for name in BY if name in values), "")
    source = f"audit INDEXED BY audit_{by}" if by else "audit NOT INDEXED"
    where = " AND ".join(conditions[name][1] for name in values) or "true"
    text = select(COLUMNS, f"FROM {source} WHERE {where} ORDER BY id DESC LIMIT :limit")
    return text, {**values, "limit": limit + 1}


class SqliteAuditStore:
    """Implements `taskhub.ports.accounts.AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        await self._database.write(lambda connection: append_entries(connection, entries))

    async def entries(
        self, query: AuditQuery, limit: int, before: int | None = None
    ) -> Page[AuditEntry]:
        text, values = entries_query(query, limit, before)
        return await self._database.read(lambda c: page(fetch(c, text, values), limit, _to_entry))

    async def expire(self, before_ms: int, limit: int = 1000) -> int:
        def delete(connection: sqlite3.Connection) -> int:
            return connection.execute(EXPIRE, (before_ms, limit)).rowcount

        return await self._database.write(delete)


def _to_entry(row: Sequence[Any]) -> AuditEntry:
    return AuditEntry._make((*row[:7], Outcome(row[7]), from_text(row[8])))
