"""The store contracts on a real MongoDB, standalone and replica set."""

from __future__ import annotations

import datetime as dt
from contextlib import AsyncExitStack

import pytest

from taskhub.adapters.mongo import open_mongo
from taskhub.adapters.mongo.lease import LeaseTimes
from taskhub.testing.lease_contract import LeaseContract, Rival
from taskhub.testing.store_contracts import (
    AccountStoreContract,
    AuditStoreContract,
    LogStoreContract,
    RunStoreContract,
)


class TestMongoRuns(RunStoreContract):
    pass


class TestMongoLogs(LogStoreContract):
    pass


class TestMongoAccounts(AccountStoreContract):
    pass


class TestMongoAudit(AuditStoreContract):
    pass


class MongoRivals:
    """Servers on one database."""

    def __init__(self, url, mongod, stack):
        self._url = url
        self._mongod = mongod
        self._stack = stack
        self._nodes = 0

    async def join(self):
        self._nodes += 1
        times = LeaseTimes(renew_s=0.02, confirm_s=0)
        stores = await self._stack.enter_async_context(
            open_mongo(self._url, node=f"n{self._nodes}", times=times)
        )
        return Rival(lease=stores.lease, runs=stores.runs, logs=stores.logs)

    async def lapse(self):
        name = self._url.rpartition("/")[2].partition("?")[0]
        with self._mongod.client() as client:
            past = dt.datetime.fromtimestamp(1, dt.UTC)
            client[name]["meta"].update_one({"_id": "lease"}, {"$set": {"until": past}})


class TestMongoLease(LeaseContract):
    @pytest.fixture
    async def rivals(self, url, mongod):
        async with AsyncExitStack() as stack:
            yield MongoRivals(url, mongod, stack)
