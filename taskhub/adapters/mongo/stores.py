"""A database, opened: its indexes, its stores, the lease on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from taskhub.adapters.mongo.accounts import MongoAccountStore
from taskhub.adapters.mongo.audit import MongoAuditStore
from taskhub.adapters.mongo.client import Binary, Database, RefusedError, address, connect
from taskhub.adapters.mongo.lease import DEFAULT_TIMES, LeaseTimes, MongoLease
from taskhub.adapters.mongo.logs import MongoLogStore
from taskhub.adapters.mongo.runs import MongoRunStore
from taskhub.adapters.mongo.schema import prepare
from taskhub.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class MongoStores:
    """The stores of one server; runs and lines can be written while `lease` is held."""

    runs: MongoRunStore
    logs: MongoLogStore
    accounts: MongoAccountStore
    audit: MongoAuditStore
    lease: MongoLease
    database: Database

    async def signing_key(self, local: Callable[[], bytes]) -> bytes:
        """Return the key of the database, for all its servers; the first one gives its own."""
        meta = self.database["meta"]
        if (found := await meta.find_one({"_id": "key"})) is None:
            await meta.insert([{"_id": "key", "value": Binary(local())}])
            found = await meta.find_one({"_id": "key"})
        return bytes(found["value"]) if found else local()


@asynccontextmanager
async def open_mongo(
    url: str, *, node: str, times: LeaseTimes = DEFAULT_TIMES, must_exist: bool = False
) -> AsyncIterator[MongoStores]:
    """Connect, make indexes, and yield the stores; `node` names this server's data directory.

    The URL is a MongoDB connection string; its path names the database, `taskhub` by default,
    which is made if it need not exist.
    Raises `UnavailableError` while MongoDB does not answer, `ConfigError` where it never will.
    """
    async with connect(url) as database:
        try:
            await database.check()
            is_there = await database["meta"].find_one({"_id": "schema"}) is not None
            if must_exist and not is_there:
                raise ConfigError(f"there is no store at {address(url)}")
            await prepare(database)
        except RefusedError as error:
            raise ConfigError(str(error)) from error
        runs, logs = MongoRunStore(database), MongoLogStore(database)
        lease = MongoLease(database, runs, logs, node, times)
        try:
            yield MongoStores(
                runs=runs,
                logs=logs,
                accounts=MongoAccountStore(database),
                audit=MongoAuditStore(database, runs.caught_up),
                lease=lease,
                database=database,
            )
        finally:
            await lease.release()
