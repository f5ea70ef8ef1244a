"""The server is killed at random moments; the tasks' own ledger is compared with what it says."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from taskhub.testing.mongod import Mongod
from tests.e2e.daemon import Daemon

TASKS = 200
KILLS = 5
LEDGER = 'echo "start $TASKHUB_ATTEMPT_KEY" >> {0}; {1}; echo "end $TASKHUB_ATTEMPT_KEY" >> {0}'


def dag(ledger, **more):
    """TASKS tasks in four layers that write when they start and when they end."""
    tasks = []
    for i in range(TASKS):
        nap = f"sleep 0.0{i % 7}"
        deps = {"deps": [f"t{i - 50}"]} if i >= 50 else {}
        command = LEDGER.format(ledger, nap)
        tasks.append({"id": f"t{i}", "exec_type": "Shell", "exec_command": command, **deps, **more})
    return {"name": "ledger", "config": {"max_parallel": 16}, "tasks": tasks}


async def finish(server, run_id):
    """Wait for the end of a run; return its task_runs by id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status, answer = await server.get(f"/api/dag/runs/{run_id}")
        if status == 200 and answer["data"]["run"]["status"]:
            return {task["task_id"]: task for task in answer["data"]["task_runs"]}
        await asyncio.sleep(0.05)
    pytest.fail("the run did not end")


def read(ledger):
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    starts = Counter(line.split()[1] for line in lines if line.startswith("start"))
    ends = Counter(line.split()[1] for line in lines if line.startswith("end"))
    return starts, ends


@pytest.fixture(params=["sqlite", "mongodb"])
def flags(request):
    if request.param == "sqlite":
        yield ()
        return
    with Mongod(replica_set=True) as mongod:
        yield "--store", mongod.database_url("taskhub")


@pytest.mark.parametrize("idempotent", [False, True])
async def test_kill_9_loses_nothing_starts_nothing_twice_and_invents_no_outcome(
    tmp_path, idempotent, flags
):
    ledger = tmp_path / "ledger"
    chance = random.Random(7)
    server = await Daemon.start(tmp_path / "data", *flags)
    try:
        _, answer = await server.post("/api/dag/run_async", dag(ledger, idempotent=idempotent))
        run_id = answer["data"]["run_id"]
        for _ in range(KILLS):
            mark = sum(read(ledger)[1].values()) + chance.randrange(4, 14)
            await server.until(lambda mark=mark: sum(read(ledger)[1].values()) >= mark, 5)
            await server.kill()
            server = await Daemon.start(tmp_path / "data", *flags)
        tasks = await finish(server, run_id)
        _, events = await server.get(
            f"/api/dag/events?run_id={run_id}&event=attempt_end&limit=1000"
        )
    finally:
        await server.stop()
    check(ledger, tasks, events["data"]["items"], idempotent=idempotent)


def check(ledger, tasks, ends_told, *, idempotent):
    starts, ends = read(ledger)
    assert len(tasks) == TASKS
    assert max(starts.values()) == 1, "an attempt was started twice"
    for task in tasks.values():
        lost = task["message"].startswith("lost:")
        assert task["status_name"] in (
            {"success"} if idempotent else {"success", "failed", "skipped"}
        )
        if task["status_name"] == "failed":
            assert lost
            assert task["metadata"]["outcome"] == "unknown"
        if task["status_name"] == "skipped":
            assert not any(key.split("_")[2] == task["task_id"][1:] for key in starts)
    succeeded = {e["extra"]["attempt_key"] for e in ends_told if e["extra"]["status"] == 2}
    assert succeeded == {key for key in succeeded if ends[key] == 1}, "a success nobody saw"
