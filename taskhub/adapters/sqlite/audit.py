"""Who did what, in the file of the runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from taskhub.adapters.sqlite.database import Database
from taskhub.adapters.sqlite.lists import newest, page
from taskhub.adapters.sqlite.rows import fetch, from_text, insert, to_text
from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import Page

COLUMNS: Final = "id, key, ts_ms, actor, action, target, address, outcome, detail"
INSERT: Final = insert("audit", COLUMNS, "ON CONFLICT DO NOTHING")
IS_STORED: Final = "SELECT 1 FROM audit WHERE key = ?"
EXPIRE: Final = """DELETE FROM audit WHERE id IN (
    SELECT id FROM audit INDEXED BY audit_time WHERE ts_ms < ? ORDER BY ts_ms LIMIT ?)"""
REFUSED: Final = "AND outcome <> 'ok'"
"""What a query has to say, too, for SQLite to see that the index of what was refused will do."""
INDEXES: Final = ("target", "actor", "action")
"""What to look in first: what names the fewest entries."""


def add_entries(connection: sqlite3.Connection, entries: Sequence[AuditEntry]) -> None:
    """Store entries within the caller's transaction, as `AuditStore.append` says."""
    before = connection.total_changes
    INSERT.execute(connection, [_row(entry) for entry in entries])
    if connection.total_changes - before < len(entries):
        for entry in entries:
            add_entry(connection, entry)


def add_entry(connection: sqlite3.Connection, entry: AuditEntry) -> bool:
    """Store an entry within the caller's transaction; return False if it is there."""
    before = connection.total_changes
    row = _row(entry)
    while True:
        INSERT.execute(connection, [row])
        if connection.total_changes > before:
            return True
        if connection.execute(IS_STORED, (entry.key,)).fetchone():
            return False
        row = (row[0] + 1, *row[1:])


class SqliteAuditStore:
    """Implements `taskhub.ports.accounts.AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        await self._database.write(lambda connection: add_entries(connection, entries))

    async def entries(
        self, query: AuditQuery, limit: int, before: int | None = None
    ) -> Page[AuditEntry]:
        text, values = entries_query(query, limit, before)
        rows = await self._database.read(lambda connection: fetch(connection, text, values))
        return page(rows, limit, _entry)

    async def expire(self, before_ms: int, limit: int = 1000) -> int:
        values = (before_ms, limit)
        return await self._database.write(lambda c: c.execute(EXPIRE, values).rowcount)


def entries_query(query: AuditQuery, limit: int, before: int | None) -> tuple[str, dict[str, Any]]:
    """Return the query and its values; the walk is newest first unless only times are given."""
    outcome = query.outcome and query.outcome.value
    is_rare = outcome not in {None, Outcome.OK.value}
    conditions = {
        "actor": (query.actor, "actor = :actor"),
        "action": (query.action, "action = :action"),
        "target": (query.target, "target = :target"),
        "outcome": (outcome, f"outcome = :outcome {REFUSED if is_rare else ''}"),
        "start": (query.start_ts_ms, "ts_ms >= :start"),
        "end": (query.end_ts_ms, "ts_ms <= :end"),
        "before": (before, "id < :before"),
    }
    index = next((name for name in INDEXES if conditions[name][0] is not None), "")
    if not index and is_rare:
        index = "refused"
    elif not index and (query.start_ts_ms is not None or query.end_ts_ms is not None):
        index = "time"
    source = f"audit INDEXED BY audit_{index}" if index else "audit NOT INDEXED"
    return newest(COLUMNS, "id", source, conditions, limit)


def _row(entry: AuditEntry) -> tuple[Any, ...]:
    return (*entry[:7], entry.outcome.value, to_text(entry.detail))


def _entry(row: Sequence[Any]) -> AuditEntry:
    return AuditEntry._make((*row[:7], Outcome(row[7]), from_text(row[8])))
