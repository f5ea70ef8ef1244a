"""A data directory, opened: the lock, the two files, the three stores."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from taskhub.adapters.sqlite.accounts import SqliteAccountStore
from taskhub.adapters.sqlite.database import open_database
from taskhub.adapters.sqlite.logs import SqliteLogStore
from taskhub.adapters.sqlite.runs import SqliteRunStore
from taskhub.adapters.sqlite.schema import LOGS, STATE
from taskhub.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteStores:
    """The three stores of one server."""

    runs: SqliteRunStore
    logs: SqliteLogStore
    accounts: SqliteAccountStore


@asynccontextmanager
async def open_sqlite(
    directory: Path, *, sync: str = "FULL", min_free_bytes: int = 0
) -> AsyncIterator[SqliteStores]:
    """Open `taskhub.db` and `logs.db` in a directory, making or upgrading what is needed.

    `sync` is SQLite's `synchronous` (OFF, NORMAL, FULL, EXTRA): below FULL a power failure can
    lose what was said to be stored. With less than `min_free_bytes` of free disk no new run is
    taken. Raises `ConfigError` where the directory cannot be used, or another server uses it.
    """
    with _locked(directory):
        async with (
            open_database(directory / "taskhub.db", STATE, sync) as state,
            open_database(directory / "logs.db", LOGS, sync) as logs,
        ):
            yield SqliteStores(
                runs=SqliteRunStore(state, directory, min_free_bytes),
                logs=SqliteLogStore(logs),
                accounts=SqliteAccountStore(state),
            )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = _open_lock(directory)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).decode().strip() or "unknown"
            message = f"{directory} is in use by another TaskHub server (pid {pid})"
            raise ConfigError(f"{message}; stop it first") from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)


def _open_lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(directory / "taskhub.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from None
