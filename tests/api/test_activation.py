"""A start that the store interrupts is repeated, and takes up every run once."""

from __future__ import annotations

import asyncio

from taskhub.adapters.memory import MemoryStores
from taskhub.bootstrap import serve
from taskhub.domain.event import EventName
from taskhub.testing.faults import Fault, FaultyRunStore
from tests.api.conftest import Api

TASK = {"id": "a", "exec_type": "Shell", "exec_command": "sleep 3600"}


async def until(condition):
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  # of another server
            await asyncio.sleep(0.01)


async def crash():
    """End a server at once: it waits for nothing that runs, and stores nothing more."""
    raise RuntimeError("crashed")


async def test_a_start_that_fails_after_reading_runs_starts_no_attempt_twice(config):
    stores = MemoryStores()

    async def names(run_id):
        return [event.name for event in await stores.runs.history(run_id)]

    async with serve(config, stores=stores) as server:
        api = Api(server.url, server)
        body = {"username": "admin", "password": "123456"}
        api.token = (await api.post("/api/login", body))[1]["data"]["token"]
        run_id = await api.start({**TASK, "idempotent": True, "retry_delay_ms": 0})

        async def has_started():
            return EventName.ATTEMPT_START in await names(run_id)

        await until(has_started)
        server.engine.loops.start("crash", crash())
    stores.runs = FaultyRunStore(stores.runs)
    stores.runs.fail("last_number", Fault.REFUSED)
    async with serve(config, stores=stores) as server:

        async def has_started_again():
            return (await names(run_id)).count(EventName.ATTEMPT_START) > 1

        await until(has_started_again)
        assert (await names(run_id)).count(EventName.ATTEMPT_END) == 1, "lost, and that once"
        assert stores.runs.calls.count("last_number") == 2
        assert list(server.engine.supervisor.runs) == [run_id]
        server.engine.loops.start("crash", crash())
