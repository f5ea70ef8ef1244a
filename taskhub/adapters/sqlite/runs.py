"""Runs, their tasks and their events, as the port wants them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from taskhub.adapters.sqlite import lists, numbered
from taskhub.adapters.sqlite.commit import write_batch
from taskhub.adapters.sqlite.database import Database
from taskhub.adapters.sqlite.expiry import expire
from taskhub.adapters.sqlite.rows import decode_json, encode_json, fetch, select
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.result import Output
from taskhub.domain.run import RunHeader
from taskhub.errors import NotFoundError, UnavailableError
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

OUTPUTS: Final = select(
    "id, stdout, stderr", "FROM outputs WHERE id IN (SELECT value FROM json_each(?))"
)
LAST_ID: Final = """SELECT max(
    coalesce((SELECT max(ord) FROM runs), 0), coalesce((SELECT max(id) FROM task_runs), 0),
    coalesce((SELECT max(id) FROM events), 0))"""

LAST_NUMBER: Final = """SELECT coalesce(
    (SELECT value FROM sequences WHERE name = 'number'), 0)"""


class SqliteRunStore:
    """Implements `taskhub.ports.store.RunStore`."""

    def __init__(self, database: Database, directory: Path, min_free_bytes: int) -> None:
        self._database = database
        self._directory = directory
        self._min_free_bytes = min_free_bytes

    async def commit(self, batch: Batch) -> None:
        await self._database.write(lambda connection: write_batch(connection, batch))

    async def check_room(self) -> None:
        if self._min_free_bytes:
            await self._database.read(lambda _: self._check_space())

    def _check_space(self) -> None:
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        if free < self._min_free_bytes:
            limit = self._min_free_bytes
            raise UnavailableError(f"{free} bytes of disk are free, new runs need {limit}")

    async def last_id(self) -> int:
        return await self._database.read(lambda c: int(c.execute(LAST_ID).fetchone()[0]))

    async def last_number(self) -> int:
        return await self._database.read(lambda c: int(c.execute(LAST_NUMBER).fetchone()[0]))

    async def open_epoch(self, boot_id: str, now_ms: int) -> int:
        def write(connection: sqlite3.Connection) -> int:
            connection.execute(
                "INSERT INTO epochs (boot_id, started_ms) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (boot_id, now_ms),
            )
            find = "SELECT epoch FROM epochs WHERE boot_id = ?"
            return int(connection.execute(find, (boot_id,)).fetchone()[0])

        return await self._database.write(write)

    async def active(self) -> Sequence[str]:
        query = select("ord, run_id", "FROM runs INDEXED BY runs_active WHERE status = 0")
        rows = await self._database.read(lambda connection: fetch(connection, query, ()))
        return [run_id for _, run_id in sorted(rows)]

    async def load(self, run_id: str) -> tuple[RunHeader, DagSpec]:
        def read(connection: sqlite3.Connection) -> tuple[RunHeader, DagSpec]:
            found = connection.execute(lists.LOAD, {"run_id": run_id}).fetchone()
            if found is None:
                raise NotFoundError("run", run_id)
            specs = [decode_json(spec) for _, spec in sorted(decode_json(found[2]))]
            dag = DagSpec.from_json({**decode_json(found[1]), "tasks": specs})
            return lists.to_run(decode_json(found[0])).header, dag

        return await self._database.read(read)

    async def history(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[Event]:
        values = {"run_id": run_id, "after": after, "limit": limit}
        return await self._database.read(
            lambda c: sorted(
                map(lists.to_event, fetch(c, lists.HISTORY, values)), key=lambda event: event.seq
            )
        )

    async def run_by_key(self, unique_key: str) -> str | None:
        find = "SELECT run_id FROM runs WHERE unique_key = ? AND unique_key <> ''"
        row = await self._database.read(lambda c: c.execute(find, (unique_key,)).fetchone())
        return row[0] if row else None

    async def run(self, run_id: str) -> RunRow:
        page = await self.runs(RunQuery(run_id=run_id), limit=1)
        if not page.items:
            raise NotFoundError("run", run_id)
        return page.items[0]

    async def runs(self, query: RunQuery, limit: int, before: int | None = None) -> Page[RunRow]:
        text, values = lists.runs_query(query, limit, before)
        return await self._database.read(
            lambda c: lists.page(fetch(c, text, values), limit, lists.to_run)
        )

    async def task_runs(
        self, query: TaskQuery, limit: int, before: int | None = None
    ) -> Page[TaskRow]:
        text, values = lists.tasks_query(query, limit, before)
        return await self._database.read(
            lambda c: lists.page(fetch(c, text, values), limit, lists.to_task)
        )

    async def numbered(
        self, query: NumberedQuery, limit: int, before: int | None = None
    ) -> Page[NumberedTask]:
        text, values = numbered.query(query, limit, before)
        return await self._database.read(
            lambda c: lists.page(fetch(c, text, values), limit, numbered.to_numbered)
        )

    async def events(self, query: EventQuery, limit: int, before: int | None = None) -> Page[Event]:
        text, values = lists.events_query(query, limit, before)
        return await self._database.read(
            lambda c: lists.page(fetch(c, text, values), limit, lists.to_event)
        )

    async def outputs(self, task_run_ids: Sequence[int]) -> Mapping[int, Output]:
        ids = encode_json(list(task_run_ids)).decode()
        rows = await self._database.read(lambda connection: fetch(connection, OUTPUTS, (ids,)))
        return {i: Output(stdout=stdout, stderr=stderr) for i, stdout, stderr in rows}

    async def expire(self, before_ms: int, limit: int = 100) -> int:
        return await expire(self._database, before_ms, limit)
