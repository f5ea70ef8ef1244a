"""A database of its own for each test, or an emptied one where its indexes are wanted."""

from __future__ import annotations

import pytest

from taskhub.adapters.mongo import open_mongo
from tests.contract.mongo.servers import new_url, running


@pytest.fixture(params=["standalone", "replica set"])
def mongod(request):
    return running(replica_set=request.param == "replica set")


@pytest.fixture
def url(mongod):
    return new_url(mongod)


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
