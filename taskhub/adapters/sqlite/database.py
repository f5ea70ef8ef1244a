"""One SQLite file: a thread that writes, a few that read, and futures on the loop's side.

Python gives up the GIL at every statement and every row, and a busy loop makes a thread wait up
to a switch interval (5 ms) to get it back. So the stores use few statements of many rows.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Self, TypeVar

from taskhub.adapters.sqlite.schema import Schema, migrate, version_of
from taskhub.errors import ConfigError, UnavailableError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

READERS: Final = 2
OURS: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE})
"""Codes that mean a mistake of this package; any other operational error is the machine's."""


class Threads:
    """Threads with a connection each, which run functions in the order they were handed over."""

    def __init__(self, name: str, count: int, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._jobs: SimpleQueue[tuple[Work[Any] | None, asyncio.Future[Any]]] = SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{i}") for i in range(count)
        ]

    async def __aenter__(self) -> Self:
        ready = [self._hand_over(_nothing) for _ in self._threads]
        for thread in self._threads:
            thread.start()
        try:
            for future in ready:
                await future
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        over = [self._hand_over(None) for _ in self._threads]
        try:
            await asyncio.wait(over)
        finally:
            for thread in self._threads:
                thread.join()

    async def run(self, work: Work[T]) -> T:
        """Run a function in a thread; it runs to its end even if the caller is cancelled."""
        if self._closed:
            raise UnavailableError("the store is closed")
        result: T = await self._hand_over(work)
        return result

    def _hand_over(self, work: Work[Any] | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, future))
        return future

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            work, future = self._jobs.get()
            if work is None:
                break
            try:
                connection = connection or self._connect()
                outcome, error = work(connection), None
            except BaseException as exc:  # noqa: BLE001  # the caller's, on the other side
                outcome, error = None, _translate(exc)
            _deliver(future, outcome, error)
            del work, future, outcome, error  # what a job holds is freed now, not with the next job
        if connection is not None:
            connection.close()
        _deliver(future, None, None)


def _nothing(_connection: sqlite3.Connection) -> None:
    return None


def _deliver(future: asyncio.Future[Any], outcome: object, error: BaseException | None) -> None:
    try:
        future.get_loop().call_soon_threadsafe(_settle, future, outcome, error)
    except RuntimeError:  # the loop is closed: nobody is left to tell
        return


def _settle(future: asyncio.Future[Any], outcome: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)


def _translate(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.DatabaseError):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        is_machine = isinstance(error, sqlite3.OperationalError) and code not in OURS
        if is_machine or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            unavailable = UnavailableError(f"SQLite: {error}")
            unavailable.__cause__ = error
            return unavailable
    return error


class Database:
    """One file, open: `write` runs a function in a transaction, `read` one that only looks."""

    def __init__(self, writer: Threads, readers: Threads) -> None:
        self._writer = writer
        self.read = readers.run

    async def write(self, work: Work[T]) -> T:
        """Run a function on the writer's connection; commit what it did, or undo all of it."""
        return await self._writer.run(lambda connection: _transact(connection, work))


def _transact(connection: sqlite3.Connection, work: Work[T]) -> T:
    with connection:
        return work(connection)


@asynccontextmanager
async def open_database(path: Path, schema: Schema, sync: str) -> AsyncIterator[Database]:
    """Open a file, or make it; close it when all that was handed over is done."""
    path = path.resolve()  # noqa: ASYNC240  # once, at the start
    if sync.upper() not in {"OFF", "NORMAL", "FULL", "EXTRA"}:
        raise ConfigError(f"synchronous is {sync!r}, not one of OFF, NORMAL, FULL, EXTRA")

    def connect_writer() -> sqlite3.Connection:
        return _connect_writer(path, schema, sync)

    def connect_reader() -> sqlite3.Connection:
        return _connect(path, "ro", "query_only = ON")

    async with (
        Threads(f"{path.stem}-writer", 1, connect_writer) as writer,
        Threads(f"{path.stem}-reader", READERS, connect_reader) as readers,
    ):
        yield Database(writer, readers)


def stored_version(path: Path, schema: Schema) -> int:
    """Return how many migrations a file has seen; raise `ConfigError` if it is none of ours."""
    if not path.is_file():
        raise ConfigError(f"there is no {path}: a server that was never started has no accounts")
    try:
        with closing(_connect(path.resolve(), "ro")) as connection:
            return version_of(connection, schema, path)
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{path} cannot be used: {error}") from error


def _connect_writer(path: Path, schema: Schema, sync: str) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite alone would use the umask
        connection = _connect(path, "rw", "cache_size = -16000", "journal_size_limit = 67108864")
        migrate(connection, schema, path)
        for pragma in ("journal_mode = WAL", f"synchronous = {sync}", "secure_delete = OFF"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, OSError):
            raise ConfigError(f"cannot write to {path}: {error.strerror}") from None
        if isinstance(error, sqlite3.DatabaseError):
            raise ConfigError(f"{path} cannot be used: {error}") from error
        raise
    return connection


def _connect(path: Path, mode: str, *pragmas: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=5.0,
        isolation_level="IMMEDIATE",
        cached_statements=400,
    )
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection
