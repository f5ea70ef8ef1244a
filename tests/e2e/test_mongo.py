"""Real servers on a real MongoDB: away, hanging, restarted; two servers, one of them paused."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time

import pytest

from taskhub.testing.mongod import Mongod
from tests.api.socket_client import Client
from tests.e2e.daemon import Daemon
from tests.e2e.test_crash import LEDGER, finish

RUN = "/api/dag/run_async"
SOON_S = 40


@pytest.fixture(params=["replica set"])
def mongod(request):
    with Mongod(replica_set=request.param == "replica set") as mongod:
        yield mongod


@pytest.fixture
async def start(tmp_path, mongod):
    """Start servers on one database, each with a data directory of its own; end all of them."""
    servers = []

    async def start(name="a", **options):
        flags = ("--store", mongod.database_url("taskhub"))
        servers.append(await Daemon.start(tmp_path / name, *flags, **options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.returncode is None:
            server.process.send_signal(signal.SIGCONT)
            await server.kill()


async def until(condition, seconds=SOON_S):
    async with asyncio.timeout(seconds):
        while not (found := await condition()):  # noqa: ASYNC110  # of other processes
            await asyncio.sleep(0.05)
    return found


def shell(command, task="t", **more):
    return {"tasks": [{"id": task, "exec_type": "Shell", "exec_command": command, **more}]}


async def submit(server, body):
    status, answer = await server.post(RUN, body)
    assert status == 200, answer
    return answer["data"]["run_id"]


def content(mongod):
    """Return every document there is, the lease's sign of life left out."""
    with mongod.client() as client:
        database = client["taskhub"]
        found = {
            name: list(database[name].find().sort("_id"))
            for name in database.list_collection_names()
        }
    found["meta"] = [document for document in found["meta"] if document["_id"] != "lease"]
    return found


@pytest.mark.parametrize("mongod", ["replica set", "standalone"], indirect=True)
async def test_while_mongod_is_away_tasks_go_on_and_nothing_is_lost_or_doubled(
    start, mongod, tmp_path
):
    server = await start()
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.02; done; seq 2000"
    run_id = await submit(server, shell(LEDGER.format(ledger, wait)))
    await server.until(ledger.exists, SOON_S)
    mongod.kill()
    began = time.monotonic()
    answers = await asyncio.gather(
        server.post(RUN, shell("true")),
        server.get("/api/dag/runs"),
        server.get(f"/api/dag/runs/{run_id}"),
        server.get("/api/tasks/logs?task_id=t"),
        server.post("/api/tasks", {"name": "n", "params": {"cmd": "true"}}),
    )
    assert [status for status, _ in answers] == [503] * 5
    assert time.monotonic() - began < 6, "5 s, and what the test itself takes"
    gate.touch()
    await server.until(lambda: "end" in ledger.read_text(), SOON_S)
    mongod.start()
    task = (await finish(server, run_id))["t"]
    assert (task["status_name"], task["attempt"], task["exit_code"]) == ("success", 1, 0)
    assert task["stdout"].splitlines() == [str(n) for n in range(1, 2001)]
    _, logs = await server.get(f"/api/tasks/logs?task_id=t&run_id={run_id}&from=1&limit=2000")
    assert [r["message"] for r in logs["data"]["records"]] == task["stdout"].splitlines()
    assert len(ledger.read_text().splitlines()) == 2
    next_run = await until(lambda: _submit_if_possible(server))
    assert (await finish(server, next_run))["t"]["status_name"] == "success"
    assert await server.stop() == 0


async def test_when_the_primary_steps_down_runs_and_sockets_go_on(start, mongod, tmp_path):
    server = await start()
    gate = tmp_path / "gate"
    command = f"for i in 1 2 3 4 5; do echo line $i; done; until [ -e {gate} ]; do sleep 0.02; done"
    run_id = await submit(server, shell(f"{command}; echo end"))
    socket = await Client.connect(int(server.url.rpartition(":")[2]))
    topic = {"op": "subscribe", "topic": "task_logs", "task_id": "t", "run_id": run_id, "from": 1}
    socket.send({"token": server.token, **topic})
    heard = [(await socket.recv())["message"] for _ in range(5)]
    await asyncio.to_thread(mongod.step_down)
    gate.touch()
    heard.append((await socket.recv())["message"])
    assert heard == [*(f"line {i}" for i in range(1, 6)), "end"]
    assert (await finish(server, run_id))["t"]["status_name"] == "success"
    next_run = await until(lambda: _submit_if_possible(server))
    assert (await finish(server, next_run))["t"]["status_name"] == "success"
    await socket.close()
    assert await server.stop() == 0


async def _submit_if_possible(server):
    status, answer = await server.post(RUN, shell("true"))
    return answer["data"]["run_id"] if status == 200 else None


async def test_a_mongod_that_hangs_is_a_503_within_five_seconds(start, mongod):
    server = await start()
    mongod.pause()
    try:
        began = time.monotonic()
        read, write = await asyncio.gather(
            server.get("/api/dag/runs"), server.post(RUN, shell("true"))
        )
        assert (read[0], write[0]) == (503, 503)
        assert time.monotonic() - began < 6
    finally:
        mongod.resume()
    run_id = await until(lambda: _submit_if_possible(server))
    assert (await finish(server, run_id))["t"]["status_name"] == "success"


async def test_a_start_waits_for_mongod_and_gives_up_after_a_setting(start, mongod, tmp_path):
    mongod.stop()
    starting = asyncio.create_task(start(), name="start")
    await asyncio.wait([starting], timeout=3)
    assert not starting.done()
    mongod.start()
    server = await starting
    assert await server.stop() == 0
    mongod.stop()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskhub", "--port", "0", "--data-dir", str(tmp_path / "b")),
        *("--store", mongod.database_url("taskhub").replace("//", "//user:hunter2@")),
        env={"TASKHUB_STORE_START_TIMEOUT_S": "1"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), SOON_S)
    assert process.returncode == 2
    assert re.search(rb"the store at mongodb://user:\*\*\*@127.0.0.1:\d+/taskhub", said), said
    assert b"hunter2" not in said


async def test_the_standby_reads_and_takes_over_from_a_server_that_was_killed(start, tmp_path):
    active, standby = await start("a"), await start("b")
    ledger = tmp_path / "ledger"
    body = shell(LEDGER.format(ledger, "sleep 3600"), "stays")
    body["tasks"] += shell(LEDGER.format(ledger, "true"), "next", deps=["stays"])["tasks"]
    lost = await submit(active, body)
    done = await submit(active, shell("echo hello"))
    await finish(active, done)
    await active.until(ledger.exists, SOON_S)
    assert (await standby.get("/api/health"))[1]["data"]["status"] == "standby"
    assert await finish(standby, done) == await finish(active, done)
    status, refusal = await standby.post(RUN, shell("true"))
    assert status == 503
    assert active.url in refusal["message"]
    await active.kill()
    began = time.monotonic()
    await until(lambda: _is_healthy(standby))
    assert time.monotonic() - began < 30
    tasks = await finish(standby, lost)
    assert tasks["stays"]["message"].startswith("lost:")
    assert tasks["next"]["status_name"] == "skipped"
    assert len(ledger.read_text().splitlines()) == 1
    run_id = await submit(standby, shell("true"))
    assert (await finish(standby, run_id))["t"]["status_name"] == "success"
    assert await standby.stop() == 0


async def _is_healthy(server):
    return (await server.get("/api/health"))[1]["data"]["status"] == "healthy"


async def test_a_paused_and_resumed_server_writes_nothing_and_ends(start, mongod, tmp_path):
    active, standby = await start("a"), await start("b")
    gate = tmp_path / "gate"
    command = f"until [ -e {gate} ]; do echo tick; sleep 0.01; done"
    runs = [await submit(active, shell(command, f"t{i}")) for i in range(3)]
    path = f"/api/tasks/logs?task_id=t0&run_id={runs[0]}"

    async def is_printing():
        return (await active.get(path))[1]["data"]["records"]

    await until(is_printing)
    active.process.send_signal(signal.SIGSTOP)
    await until(lambda: _is_healthy(standby))
    for i, run_id in enumerate(runs):
        assert (await finish(standby, run_id))[f"t{i}"]["message"].startswith("lost:")
    await standby.get("/api/dag/runs")
    before = content(mongod)
    active.process.send_signal(signal.SIGCONT)
    assert await asyncio.wait_for(active.process.wait(), SOON_S) == 1
    assert content(mongod) == before
    gate.touch()


async def test_a_server_that_stops_in_order_is_followed_at_once(start):
    active, standby = await start("a"), await start("b")
    assert await active.stop() == 0
    await until(lambda: _is_healthy(standby), 10)
