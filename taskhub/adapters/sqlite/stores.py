"""A data directory, opened: the lock, the two files, the stores in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from taskhub.adapters.lease import SoleLease
from taskhub.adapters.lock import locked
from taskhub.adapters.sqlite.accounts import SqliteAccountStore
from taskhub.adapters.sqlite.audit import SqliteAuditStore
from taskhub.adapters.sqlite.database import open_database, stored_version
from taskhub.adapters.sqlite.logs import SqliteLogStore
from taskhub.adapters.sqlite.runs import SqliteRunStore
from taskhub.adapters.sqlite.schema import LOGS, STATE
from taskhub.ports.lease import Lease

FILE: Final = "taskhub.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteStores:
    """The stores of one server."""

    runs: SqliteRunStore
    logs: SqliteLogStore
    accounts: SqliteAccountStore
    audit: SqliteAuditStore
    lease: Lease = field(default_factory=SoleLease)

    async def signing_key(self, local: Callable[[], bytes]) -> bytes:
        """Return the data directory's own key, for no other server uses these stores."""
        return local()


@asynccontextmanager
async def open_sqlite(
    directory: Path, *, sync: str = "FULL", min_free_bytes: int = 0
) -> AsyncIterator[SqliteStores]:
    """Open `taskhub.db` and `logs.db` in a directory, making or upgrading what is needed.

    `sync` is SQLite's `synchronous` (OFF, NORMAL, FULL, EXTRA): below FULL a power failure can
    lose what was said to be stored. With less than `min_free_bytes` of free disk no new run is
    taken. Raises `ConfigError` where the directory cannot be used, or another server uses it.
    """
    with locked(directory):
        async with (
            open_database(directory / FILE, STATE, sync) as state,
            open_database(directory / "logs.db", LOGS, sync) as logs,
        ):
            yield SqliteStores(
                runs=SqliteRunStore(state, directory, min_free_bytes),
                logs=SqliteLogStore(logs),
                accounts=SqliteAccountStore(state),
                audit=SqliteAuditStore(state),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteAccounts:
    """What the command line changes beside a running server."""

    accounts: SqliteAccountStore
    audit: SqliteAuditStore


@asynccontextmanager
async def open_sqlite_accounts(directory: Path) -> AsyncIterator[SqliteAccounts]:
    """Open the accounts of a data directory, which a running server may use at the same time.

    Raises `ConfigError` where there is no `taskhub.db`, where it cannot be used, or where it would
    have to be upgraded under a server that is running.
    """
    path = directory / FILE
    async with AsyncExitStack() as stack:
        if await asyncio.to_thread(stored_version, path, STATE) != len(STATE.migrations):
            stack.enter_context(locked(directory))
        state = await stack.enter_async_context(open_database(path, STATE, "FULL"))
        yield SqliteAccounts(accounts=SqliteAccountStore(state), audit=SqliteAuditStore(state))
