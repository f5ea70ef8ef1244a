"""Deleting old runs in steps so small that nobody waits for them."""

from __future__ import annotations

import sqlite3
from typing import Final

from taskhub.adapters.sqlite.database import Database

MARK: Final = """INSERT INTO dying (ord, run_id, first_task_id, total)
    SELECT ord, run_id, first_task_id, total FROM runs INDEXED BY runs_ended
    WHERE status <> 0 AND end_ts_ms < ? ORDER BY end_ts_ms LIMIT ?"""
UNLIST: Final = "DELETE FROM runs WHERE ord IN (SELECT ord FROM dying)"
SWEEPS: Final = (
    """DELETE FROM outputs WHERE id IN (SELECT o.id FROM dying AS d CROSS JOIN outputs AS o
        ON o.id >= d.first_task_id AND o.id < d.first_task_id + d.total LIMIT 16)""",
    """DELETE FROM task_runs WHERE id IN (SELECT t.id FROM dying AS d CROSS JOIN task_runs AS t
        ON t.id >= d.first_task_id AND t.id < d.first_task_id + d.total LIMIT 300)""",
    """DELETE FROM events WHERE id IN (SELECT e.id FROM dying AS d CROSS JOIN events AS e
        ON e.run_id = d.run_id LIMIT 500)""",
)


async def expire(database: Database, before_ms: int, limit: int) -> int:
    """Delete runs as `RunStore.expire` says; goes on with what an earlier call left undone."""

    def mark(connection: sqlite3.Connection) -> int:
        count = connection.execute(MARK, (before_ms, limit)).rowcount
        connection.execute(UNLIST)
        return count

    count = await database.write(mark)
    for sweep in SWEEPS:
        while await database.write(lambda c, text=sweep: c.execute(text).rowcount):  # type: ignore[misc]
            continue
    await database.write(lambda connection: connection.execute("DELETE FROM dying"))
    return count
