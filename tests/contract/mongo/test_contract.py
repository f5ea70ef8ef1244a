"""The store contracts on a real MongoDB, standalone and replica set."""

from __future__ import annotations

from taskhub.testing.store_contracts import LogStoreContract, RunStoreContract


class TestMongoRuns(RunStoreContract):
    pass


class TestMongoLogs(LogStoreContract):
    pass
