"""The store contracts on memory and on SQLite."""

from __future__ import annotations

import pytest

from taskhub.adapters.memory import MemoryStores
from taskhub.adapters.sqlite import open_sqlite
from taskhub.testing.store_contracts import (
    AccountStoreContract,
    AuditStoreContract,
    LogStoreContract,
    RunStoreContract,
)


class OnMemory:
    @pytest.fixture
    def stores(self):
        return MemoryStores()


class OnSqlite:
    @pytest.fixture
    async def stores(self, tmp_path):
        async with open_sqlite(tmp_path, sync="OFF") as stores:
            yield stores


class TestMemoryRuns(OnMemory, RunStoreContract):
    pass


class TestMemoryLogs(OnMemory, LogStoreContract):
    pass


class TestMemoryAccounts(OnMemory, AccountStoreContract):
    pass


class TestMemoryAudit(OnMemory, AuditStoreContract):
    pass


class TestSqliteRuns(OnSqlite, RunStoreContract):
    pass


class TestSqliteLogs(OnSqlite, LogStoreContract):
    pass


class TestSqliteAccounts(OnSqlite, AccountStoreContract):
    pass


class TestSqliteAudit(OnSqlite, AuditStoreContract):
    pass
