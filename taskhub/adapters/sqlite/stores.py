"""A data directory, opened: the lock, the two files, the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from taskhub.adapters.lease import SoleLease
from taskhub.adapters.lock import locked
from taskhub.adapters.sqlite.accounts import SqliteAccountStore
from taskhub.adapters.sqlite.audit import SqliteAuditStore
from taskhub.adapters.sqlite.database import open_database
from taskhub.adapters.sqlite.logs import SqliteLogStore
from taskhub.adapters.sqlite.runs import SqliteRunStore
from taskhub.adapters.sqlite.schema import LOGS, STATE, is_current
from taskhub.errors import ConfigError
from taskhub.ports.lease import Lease


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
            open_database(directory / "taskhub.db", STATE, sync) as state,
            open_database(directory / "logs.db", LOGS, sync) as logs,
        ):
            yield SqliteStores(
                runs=SqliteRunStore(state, directory, min_free_bytes),
                logs=SqliteLogStore(logs),
                accounts=SqliteAccountStore(state),
                audit=SqliteAuditStore(state),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlitePeople:
    """What the command line needs beside a running server."""

    accounts: SqliteAccountStore
    audit: SqliteAuditStore


@asynccontextmanager
async def open_sqlite_accounts(directory: Path) -> AsyncIterator[SqlitePeople]:
    """Open the accounts of a data directory, whether a server uses it or not.

    Raises `ConfigError` where a running server has the file in another version than this one.
    """
    with _free_or_current(directory):
        async with open_database(directory / "taskhub.db", STATE, "FULL") as state:
            yield SqlitePeople(accounts=SqliteAccountStore(state), audit=SqliteAuditStore(state))


@contextmanager
def _free_or_current(directory: Path) -> Iterator[None]:
    """Hold the lock if nobody does: only then may the file be made or upgraded."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory))
        except ConfigError:
            if not is_current(directory / "taskhub.db", STATE):
                message = f"{directory} is in use by a server of another version; use its own"
                raise ConfigError(f"{message} taskhub-server") from None
        yield
