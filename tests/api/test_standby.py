"""Two servers on one store: one drives runs, the other answers reads and takes over."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from taskhub.adapters.systemclock import SystemClock
from taskhub.bootstrap import serve
from taskhub.domain.result import Result
from taskhub.ports.executor import Executor, Installed
from tests.api.conftest import Api
from tests.leases import FakeLease, Leases

STANDS_BY = "this server stands by; the active one is {}"


class QuickClock(SystemClock):
    """Pauses of servers on standby are short."""

    async def sleep(self, seconds):
        await super().sleep(min(seconds, 0.01))


class Held(Executor):
    """An attempt ends when the test lets it, or is stopped."""

    def __init__(self):
        self.keys = []
        self.stopped = []
        self.gate = asyncio.Event()

    async def execute(self, context):
        self.keys.append(context.attempt_key)
        context.log("here")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped.append(context.attempt_key)
            raise
        return Result()


class Node(Api):
    """One of the servers, with what is only its own."""

    def __init__(self, server, lease, stores, held, close):
        super().__init__(server.url, server)
        self.close = close
        self.lease = lease
        self.stores = stores
        self.held = held

    async def login(self):
        body = {"username": "admin", "password": "123456"}
        status, answer = await self.post("/api/login", body)
        assert status == 200
        self.token = answer["data"]["token"]

    async def health(self):
        _, answer = await self.get("/api/health")
        return answer["data"]["status"]

    async def task(self, run_id):
        _, answer = await self.get(f"/api/dag/runs/{run_id}")
        (task,) = answer["data"]["task_runs"]
        return task

    async def hello(self):
        """Return what a socket of this server says to a token, or why it is closed."""
        socket = await self.socket()
        await socket.write_message(json.dumps({"token": self.token}))
        answer = await socket.read_message()
        why = json.loads(answer) if answer else (socket.close_code, socket.close_reason)
        socket.close()
        return why


def held(name="a", **more):
    return {"id": name, "exec_type": "Held", **more}


async def until(condition):
    """Poll until an async condition is true."""
    for _ in range(2000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("never came true")


@pytest.fixture
async def start(config, tmp_path):
    """start() starts another server on the same store."""
    leases = Leases()
    config = replace(config, shutdown=replace(config.shutdown, grace_s=0))
    async with AsyncExitStack() as stack:

        async def start():
            lease, executor = FakeLease(leases), Held()
            stores = leases.stores_of(lease)
            folder = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            (folder / "dev-password").touch()  # else each start sets it again, which ends tokens
            own = replace(config, server=replace(config.server, data_dir=folder))
            installed = Installed(name="Held", source="t", version="1", executor=executor)
            serving = serve(own, clock=QuickClock(), stores=stores, executors={"held": installed})
            own_stack = await stack.enter_async_context(AsyncExitStack())
            server = await own_stack.enter_async_context(serving)
            node = Node(server, lease, stores, executor, own_stack.aclose)
            await node.login()
            return node

        yield start


@pytest.fixture
async def pair(start):
    """The active server, and one that stands by."""
    return await start(), await start()


async def running(node, **more):
    """Start a run of one task, and return it once that is running."""
    run_id = await node.start(held(**more))

    async def is_running():
        return bool(node.held.keys)

    await until(is_running)
    return run_id


async def lose(first, lease):
    """Let another server's lease be the one that counts, and the first server notice."""
    lease.seize()
    first.lease.noticed.set()
    assert await first.server.wait(asyncio.Event()) is False
    await first.server.stop(20)


async def test_a_server_on_standby_answers_reads(pair):
    first, second = pair
    run_id = await running(first)
    assert (await first.health(), await second.health()) == ("healthy", "standby")
    assert (await second.task(run_id))["status_name"] == "running"
    _, runs = await second.get("/api/dag/runs")
    assert [run["run_id"] for run in runs["data"]["items"]] == [run_id]
    for path in ("/api/dag/task_runs", "/api/dag/events", "/api/stats", "/api/executors"):
        status, _ = await second.get(path)
        assert status == 200

    async def has_line():
        return await second.logs(run_id) == ["here"]

    await until(has_line)
    first.held.gate.set()


async def test_a_server_on_standby_changes_no_run_and_says_who_does(pair):
    first, second = pair
    run_id = await running(first)
    paths = ("run", "run_async", f"runs/{run_id}/cancel", f"runs/{run_id}/rerun")
    for path in paths:
        body = {"tasks": [held("b")]} if path.startswith("run_") or path == "run" else {}
        status, answer = await second.post(f"/api/dag/{path}", body)
        assert (status, answer["message"]) == (503, STANDS_BY.format(first.url))
    assert (await first.task(run_id))["status_name"] == "running"
    first.held.gate.set()


async def test_a_socket_of_a_server_on_standby_is_closed_after_its_token_was_seen(pair):
    first, second = pair
    assert await second.hello() == (1013, "this server stands by")
    second.token = "wrong"
    assert await second.hello() == (1008, "unauthorized")
    assert await first.hello() == {"type": "authed"}


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_server_that_takes_over_recovers_the_runs(pair, idempotent):
    first, second = pair
    run_id = await running(first, idempotent=idempotent)
    await lose(first, second.lease)

    async def is_active():
        return await second.health() == "healthy"

    await until(is_active)
    second.held.gate.set()

    async def has_ended():
        return (await second.task(run_id))["status_name"] in {"success", "failed"}

    await until(has_ended)
    task = await second.task(run_id)
    assert task["status_name"] == ("success" if idempotent else "failed")
    assert second.held.keys == ([f"{run_id}_0_2"] if idempotent else [])
    assert idempotent or task["message"].startswith("lost:")
    answer = await second.run(held("b"))
    assert answer["ok"]
    assert await second.hello() == {"type": "authed"}


async def test_a_superseded_server_ends_what_it_runs_and_writes_nothing(pair, caplog):
    first, second = pair
    run_id = await running(first)
    before = len(await first.stores.runs.history(run_id))
    second.lease.is_away = True
    await lose(first, second.lease)
    assert first.held.stopped == first.held.keys
    assert len(await first.stores.runs.history(run_id)) == before
    critical = [r.message for r in caplog.records if r.levelname == "CRITICAL"]
    assert critical == ["another server has taken over, this one stops"]
    status, answer = await first.post("/api/dag/run_async", {"tasks": [held("b")]})
    assert (status, answer["message"]) == (503, "another server has taken over; ask that one")


@pytest.mark.parametrize("path", ["run", "run_async"])
async def test_whoever_waits_for_a_superseded_server_hears_of_it(pair, path):
    first, second = pair
    second.lease.is_away = True
    body = {"tasks": [held("b")]}
    if path == "run_async":
        second.lease.seize()  # the store refuses the run before the server knows why
    asking = asyncio.create_task(first.post(f"/api/dag/{path}", body), name="ask")
    if path == "run":

        async def is_running():
            return bool(first.held.keys)

        await until(is_running)
        second.lease.seize()
        first.held.gate.set()
    assert await first.server.wait(asyncio.Event()) is False
    await first.server.stop(20)
    status, answer = await asking
    assert (status, answer["message"]) == (503, "another server has taken over; ask that one")
    assert first.stores.runs.refused + first.stores.logs.refused == 1


async def test_after_an_orderly_stop_another_server_goes_on_with_what_was_stored(pair):
    first, second = pair
    run_id = await running(first, idempotent=True)
    await first.close()
    assert (first.lease.released, first.stores.runs.refused) == (1, 0)

    async def is_running():
        return bool(second.held.keys)

    await until(is_running)
    second.held.gate.set()

    async def has_ended():
        return (await second.task(run_id))["status_name"] == "success"

    await until(has_ended)
    assert second.held.keys == [f"{run_id}_0_2"]


async def test_a_server_on_standby_can_be_stopped_and_gives_back_no_lease(config, tmp_path):
    leases = Leases()
    FakeLease(leases).seize()
    lease = FakeLease(leases)
    async with serve(config, stores=leases.stores_of(lease), executors={}) as server:
        assert not server.standing.is_active
    assert lease.released == 0


async def test_the_lease_is_given_back_when_the_server_is_closed(config):
    lease = FakeLease()
    async with serve(config, stores=lease.leases.stores_of(lease), executors={}) as server:
        assert server.standing.is_active
        assert lease.released == 0
    assert lease.released == 1
    assert lease.leases.holder is None


async def test_the_processes_of_a_superseded_server_are_ended(config, tmp_path):
    lease = FakeLease()
    pid_file = tmp_path / "pid"
    async with serve(config, stores=lease.leases.stores_of(lease)) as server:
        api = Node(server, lease, None, None, None)
        await api.login()
        command = (
            f"trap '' TERM; echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; sleep 60"
        )
        await api.start({"id": "a", "exec_type": "Shell", "exec_command": command})

        async def has_begun():
            return pid_file.exists()

        await until(has_begun)
        await lose(api, FakeLease(lease.leases))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert lease.released == 0
