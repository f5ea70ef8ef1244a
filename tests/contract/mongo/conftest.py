"""Two real servers for all tests here, and a database of its own for each test."""

from __future__ import annotations

import itertools
import threading
from contextlib import ExitStack

import pytest
from motor.frameworks.asyncio import _EXECUTOR as MOTOR_THREADS

from taskhub.adapters.mongo import open_mongo
from taskhub.testing.mongod import Mongod

NAMES = (f"t{number}" for number in itertools.count(1))
SERVERS = ExitStack()
RUNNING: dict[bool, Mongod] = {}


def pytest_sessionfinish():
    SERVERS.close()


@pytest.fixture(scope="session", autouse=True)
def motor_threads():
    """Start motor's threads, which live as long as the process, before leaks are counted."""
    barrier = threading.Barrier(MOTOR_THREADS._max_workers + 1)
    for _ in range(MOTOR_THREADS._max_workers):
        MOTOR_THREADS.submit(barrier.wait)
    barrier.wait()


def running(*, replica_set: bool) -> Mongod:
    if replica_set not in RUNNING:
        RUNNING[replica_set] = SERVERS.enter_context(Mongod(replica_set=replica_set))
    return RUNNING[replica_set]


@pytest.fixture(params=["standalone", "replica set"])
def mongod(request):
    return running(replica_set=request.param == "replica set")


@pytest.fixture
def url(mongod):
    return mongod.database_url(next(NAMES))


@pytest.fixture
async def stores(mongod):
    """The stores of the active server on a database whose indexes are there and which is empty."""
    with mongod.client() as client:
        database = client["contract"]
        database.command("profile", 0)
        database["system.profile"].drop()
        for name in database.list_collection_names():
            database[name].delete_many({})
    async with open_mongo(mongod.database_url("contract"), node="n1") as stores:
        assert await stores.lease.acquire("http://one.example")
        yield stores
