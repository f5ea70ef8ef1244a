"""The accounts alone, for a command beside a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskhub.adapters.lock import SQLITE, store_in_use
from taskhub.adapters.sqlite import open_sqlite_accounts
from taskhub.adapters.systemclock import SystemClock
from taskhub.config import Config
from taskhub.errors import ConfigError
from taskhub.ports.stores import AccountStores
from taskhub.services.accounts import Accounts
from taskhub.services.audit_log import AuditLog
from taskhub.services.passwords import Passwords


@asynccontextmanager
async def open_account_service(config: Config) -> AsyncIterator[Accounts]:
    """Open what manages users and API tokens; a server may run meanwhile, and notices.

    Raises `ConfigError` where there are no accounts.
    """
    clock, passwords = SystemClock(), Passwords()
    try:
        async with open_account_stores(config) as stores:
            audit = AuditLog(stores.audit, clock)
            yield Accounts(stores.accounts, clock, passwords, audit)
    finally:
        passwords.close()


@asynccontextmanager
async def open_account_stores(config: Config) -> AsyncIterator[AccountStores]:
    """Open the accounts that the configuration names."""
    if config.store.url == "memory:":
        raise ConfigError('with "memory:" accounts are in the server only: use its API')
    if config.store.url.startswith("mongodb"):
        from taskhub.adapters.mongo import open_mongo  # noqa: PLC0415  # see bootstrap/stores.py

        async with open_mongo(config.store.url, node="", must_exist=True) as stores:
            yield stores
        return
    if (used := store_in_use(config.server.data_dir)) not in {"", SQLITE}:
        message = f"the server that uses {config.server.data_dir} keeps its accounts in {used}"
        raise ConfigError(f"{message}; say so with --store or --config")
    async with open_sqlite_accounts(config.server.data_dir) as people:
        yield people
