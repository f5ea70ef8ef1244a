"""The store is away: at the start the server waits for it, later it says so and forgets nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from taskhub.adapters.memory import MemoryStores
from taskhub.adapters.systemclock import SystemClock
from taskhub.bootstrap import serve
from taskhub.domain.result import Result
from taskhub.errors import ConfigError
from taskhub.ports.executor import Executor, Installed
from taskhub.testing.faults import Fault, FaultyRunStore
from tests.api.conftest import Api
from tests.leases import FakeLease


class QuickClock(SystemClock):
    """Pauses are short."""

    async def sleep(self, seconds):
        await super().sleep(min(seconds, 0.01))


class Held(Executor):
    """An attempt ends when the test lets it."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.started = asyncio.Event()

    async def execute(self, context):
        self.started.set()
        context.log("before")
        await self.gate.wait()
        context.log("after")
        return Result()


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def executors(held):
    return {"held": Installed(name="Held", source="t", version="1", executor=held)}


@pytest.fixture
def faulty():
    return FaultyRunStore(MemoryStores().runs)


async def test_a_start_waits_for_what_it_loads(config, faulty, executors, caplog):
    faulty.fail("open_epoch", Fault.REFUSED)
    faulty.fail("active", Fault.TIMEOUT, Fault.REFUSED)
    stores = MemoryStores(runs=faulty)
    async with serve(config, stores=stores, executors=executors, clock=QuickClock()) as server:
        assert server.standing.is_active
    assert [r.message for r in caplog.records].count("waiting for the store") == 3


async def test_a_start_whose_lease_cannot_be_asked_for_gives_up(config, executors):
    config = replace(config, store=replace(config.store, start_timeout_s=0))
    lease = FakeLease()
    lease.is_away = True
    with pytest.raises(ConfigError, match="cannot be used: no answer"):
        async with serve(config, stores=lease.leases.stores_of(lease), executors=executors):
            pass
    assert lease.released == 0


async def test_what_runs_goes_on_without_a_store_and_is_stored_when_it_returns(
    config, faulty, executors, held
):
    stores = MemoryStores(runs=faulty)
    async with serve(config, stores=stores, executors=executors, clock=QuickClock()) as server:
        api = Api(server.url, server)
        _, answer = await api.post("/api/login", {"username": "admin", "password": "123456"})
        api.token = answer["data"]["token"]
        run_id = await api.start({"id": "a", "exec_type": "Held"})
        await held.started.wait()
        faulty.fail("commit", *[Fault.LOST_ANSWER] * 150)
        held.gate.set()

        async def health():
            _, answer = await api.get("/api/health")
            return answer["data"]["status"]

        while await health() != "degraded":
            pass
        status, answer = await api.post(
            "/api/dag/run", {"tasks": [{"id": "b", "exec_type": "Held"}]}
        )
        assert (status, answer["code"]) == (503, 503)
        while await health() != "healthy":
            pass
        _, answer = await api.get(f"/api/dag/runs/{run_id}")
        assert answer["data"]["run"]["status_name"] == "success"
        assert await api.logs(run_id) == ["before", "after"]
        _, answer = await api.get(f"/api/dag/events?run_id={run_id}")
        seqs = [event["seq"] for event in answer["data"]["items"]]
        assert seqs == list(range(len(seqs), 0, -1))
