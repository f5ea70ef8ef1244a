"""Lines of output, many to a row."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, Final

from taskhub.adapters.sqlite.database import Database
from taskhub.adapters.sqlite.rows import decode_json, encode_json, fetch, insert, select
from taskhub.domain.log import Level, LogChunk, LogRecord, LogSegment, Stream
from taskhub.ports.store import LogHead

COLUMNS: Final = "id, run_id, task_id, first_seq, count, size, ts_ms, meta, text"
INSERT_CHUNKS: Final = insert(
    "chunks", COLUMNS, "ON CONFLICT (run_id, task_id, first_seq) DO NOTHING"
)
ADVANCE_HEADS: Final = insert(
    "heads",
    "ord, run_id, task_id, lines, bytes, last_seq, last_ms",
    """ON CONFLICT (run_id, task_id) DO UPDATE SET
    lines = lines + excluded.lines, bytes = bytes + excluded.bytes,
    last_seq = excluded.last_seq, last_ms = max(last_ms, excluded.last_ms)
    WHERE excluded.last_seq > last_seq""",
)
LINES: Final = "chunks INDEXED BY chunks_lines WHERE run_id = :run_id AND task_id = :task_id"
FIRST_SEQ: Final = f"max(:from, coalesce((SELECT min(first_seq) FROM {LINES}), 1))"  # noqa: S608
READ: Final = select(
    COLUMNS,
    f"""FROM {LINES}
    AND first_seq >= coalesce((SELECT max(first_seq) FROM {LINES} AND first_seq <= :from), 0)
    AND first_seq < :limit + {FIRST_SEQ}""",  # noqa: S608  # constants
)
# `shift` turns the number of a line in its run into its position over all runs
READ_TASK: Final = f"""
    WITH placed AS (
        SELECT run_id, lines, last_seq - lines AS gone, coalesce(sum(lines) OVER (
            ORDER BY ord ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS start
        FROM heads WHERE task_id = :task_id),
    wanted AS (
        SELECT run_id, start - gone AS shift FROM placed
        WHERE start + lines >= :from AND start + 1 < :from + :limit)
    SELECT json_group_array(json_array({COLUMNS}, shift)) FROM (
        SELECT c.*, w.shift FROM wanted AS w CROSS JOIN chunks AS c INDEXED BY chunks_lines
        ON c.run_id = w.run_id AND c.task_id = :task_id
        AND c.first_seq < :from + :limit - w.shift
        AND c.first_seq >= coalesce((
            SELECT max(first_seq) FROM chunks INDEXED BY chunks_lines
            WHERE run_id = w.run_id AND task_id = :task_id AND first_seq <= :from - w.shift), 0))
    """  # noqa: S608  # constants
OF_RUN: Final = select(
    COLUMNS,
    """FROM chunks INDEXED BY chunks_run WHERE run_id = :run_id AND id > :after
    ORDER BY id LIMIT :limit""",
)
OF_TASK: Final = select(COLUMNS, f"FROM {LINES} AND id > :after ORDER BY first_seq LIMIT :limit")
HEADS: Final = select(
    "ord, task_id, run_id, lines, last_seq",
    "FROM heads INDEXED BY heads_ord WHERE ord > :after ORDER BY ord LIMIT :limit",
)

OLDEST: Final = select(
    "last_ms, bytes, run_id, task_id",
    """FROM heads INDEXED BY heads_age WHERE run_id NOT IN (SELECT value FROM json_each(?1))
    ORDER BY last_ms LIMIT ?2""",
)
SWEEP: Final = select(
    "id, size",
    """FROM (SELECT c.id, c.size FROM dying AS d CROSS JOIN chunks AS c INDEXED BY chunks_lines
    ON c.run_id = d.run_id AND c.task_id = d.task_id AND c.id <= d.last_id LIMIT 200)""",
)
SWEEP_BYTES: Final = 1 << 20


class SqliteLogStore:
    """Implements `taskhub.ports.store.LogStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            INSERT_CHUNKS.execute(connection, [_to_row(chunk) for chunk in chunks])
            ADVANCE_HEADS.execute(connection, [_to_head(chunk) for chunk in chunks])

        await self._database.write(write)

    async def last_seq(self, task_id: str, run_id: str) -> int:
        find = "SELECT last_seq FROM heads WHERE run_id = ? AND task_id = ?"
        row = await self._database.read(lambda c: c.execute(find, (run_id, task_id)).fetchone())
        return row[0] if row else 0

    async def last_id(self) -> int:
        find = "SELECT max(id) FROM chunks"
        row = await self._database.read(lambda connection: connection.execute(find).fetchone())
        return row[0] or 0

    async def read(
        self, task_id: str, run_id: str, from_seq: int, limit: int
    ) -> Sequence[LogRecord]:
        values = {"task_id": task_id, "run_id": run_id, "from": from_seq, "limit": limit}

        def read(connection: sqlite3.Connection) -> list[LogRecord]:
            rows = sorted(fetch(connection, READ, values), key=lambda row: row[3])
            lines = (line for row in rows for line in _from_row(row).records(from_seq))
            return list(islice(lines, limit))

        return await self._database.read(read)

    async def read_task(
        self, task_id: str, from_position: int, limit: int
    ) -> Sequence[tuple[int, LogRecord]]:
        values = {"task_id": task_id, "from": max(from_position, 1), "limit": limit}

        def read(connection: sqlite3.Connection) -> list[tuple[int, LogRecord]]:
            rows = sorted(fetch(connection, READ_TASK, values), key=lambda row: row[3] + row[9])
            lines = (
                (line.seq + row[9], line)
                for row in rows
                for line in _from_row(row).records(values["from"] - row[9])
            )
            return list(islice(lines, limit))

        return await self._database.read(read)

    async def chunks(
        self, run_id: str, after_id: int, limit: int, task_id: str | None = None
    ) -> Sequence[LogChunk]:
        query = OF_RUN if task_id is None else OF_TASK
        values = {"run_id": run_id, "task_id": task_id, "after": after_id, "limit": limit}
        return await self._database.read(
            lambda c: sorted(map(_from_row, fetch(c, query, values)), key=lambda chunk: chunk.id)
        )

    async def heads(self, after: int, limit: int) -> Sequence[LogHead]:
        values = {"after": after, "limit": limit}
        return await self._database.read(
            lambda c: sorted(LogHead(*row) for row in fetch(c, HEADS, values))
        )

    async def expire(
        self, before_ms: int, max_bytes: int, limit: int = 100, keep: Collection[str] = ()
    ) -> int:
        total = "SELECT coalesce(sum(bytes), 0) FROM heads INDEXED BY heads_age"
        (stored,) = await self._database.read(lambda c: c.execute(total).fetchone())
        kept = encode_json(list(keep)).decode()
        count = await self._database.write(
            lambda connection: _mark(connection, before_ms, stored - max_bytes, limit, kept)
        )
        while await self._database.write(_sweep):
            continue
        return count


def _mark(
    connection: sqlite3.Connection, before_ms: int, excess: int, limit: int, kept: str
) -> int:
    """Take (task, run) pairs out of the lists; their chunks are swept in steps afterwards."""
    count = 0
    (last_id,) = connection.execute("SELECT max(id) FROM chunks").fetchone()
    for last_ms, size, run_id, task_id in sorted(fetch(connection, OLDEST, (kept, limit))):
        if last_ms >= before_ms and excess <= 0:
            break
        connection.execute("INSERT INTO dying VALUES (?, ?, ?)", (run_id, task_id, last_id))
        delete = "DELETE FROM heads WHERE run_id = ? AND task_id = ?"
        connection.execute(delete, (run_id, task_id))
        excess -= size
        count += 1
    return count


def _sweep(connection: sqlite3.Connection) -> bool:
    """Delete about `SWEEP_BYTES` of dying chunks; say whether there may be more."""
    ids: list[int] = []
    room = SWEEP_BYTES
    for chunk_id, size in fetch(connection, SWEEP, ()):
        if ids and room < size:
            break
        ids.append(chunk_id)
        room -= size
    if not ids:
        connection.execute("DELETE FROM dying")
        return False
    delete = "DELETE FROM chunks WHERE id IN (SELECT value FROM json_each(?))"
    connection.execute(delete, (encode_json(ids).decode(),))
    return True


def _to_row(chunk: LogChunk) -> tuple[Any, ...]:
    text = "\n".join(line for segment in chunk.segments for line in segment.lines)
    meta = [
        (s.attempt, s.stream, s.level, s.ts_ms, s.duration_ms, len(s.lines), s.continued, s.fields)
        for s in chunk.segments
    ]
    if text.count("\n") != max(chunk.count, 1) - 1:
        raise ValueError(f"chunk {chunk.id} does not hold {chunk.count} lines")
    return (
        chunk.id,
        chunk.run_id,
        chunk.task_id,
        chunk.first_seq,
        chunk.count,
        chunk.size,
        chunk.ts_ms,
        encode_json(meta).decode(),
        text,
    )


def _to_head(chunk: LogChunk) -> tuple[Any, ...]:
    who = (chunk.id, chunk.run_id, chunk.task_id)
    return (*who, chunk.count, chunk.size, chunk.last_seq, chunk.ts_ms)


def _from_row(row: Sequence[Any]) -> LogChunk:
    lines = row[8].split("\n")
    segments = []
    start = 0
    for attempt, stream, level, ts_ms, duration_ms, count, continued, fields in decode_json(row[7]):
        segments.append(
            LogSegment(
                attempt=attempt,
                stream=Stream(stream),
                level=Level(level),
                ts_ms=ts_ms,
                duration_ms=duration_ms,
                lines=lines[start : start + count],
                continued=continued,
                fields=fields,
            )
        )
        start += count
    return LogChunk(
        id=row[0],
        run_id=row[1],
        task_id=row[2],
        first_seq=row[3],
        count=row[4],
        size=row[5],
        ts_ms=row[6],
        segments=tuple(segments),
    )
