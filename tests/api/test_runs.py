"""Whole runs over HTTP and WebSocket on a real server, SQLite and real processes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient

from taskhub.bootstrap import serve
from tests.api.conftest import Api


def shell(name, command, deps=(), **more):
    return {"id": name, "exec_type": "Shell", "exec_command": command, "deps": list(deps), **more}


def local(name, function="noop", deps=(), **more):
    return {"id": name, "exec_type": "Local", "exec_command": function, "deps": list(deps), **more}


async def until(check, seconds=20):
    """Poll an async condition until it holds; return what it returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := await check():
            return found
        await asyncio.sleep(0.02)
    pytest.fail("never came true")


async def test_a_diamond_of_both_executors_ends_as_the_seed_says(api):
    answer = await api.run(
        shell("a", "echo hello; echo oops >&2"),
        local("b", "echo", ["a"], exec_params={"message": "from b"}),
        shell("c", "exit 3", ["a"]),
        shell("d", "true", ["b", "c"]),
        name="diamond",
    )
    results = {node["id"]: node["result"] for node in answer["nodes"]}
    assert answer["ok"] is False
    assert answer["message"] == "dag failed"
    assert answer["summary"] == {
        "total": 4,
        "success": ["a", "b"],
        "failed": ["c"],
        "skipped": ["d"],
    }
    assert re.fullmatch(r"\d{13}_[0-9A-Za-z]{6}", answer["run_id"])
    assert results["a"]["stdout"] == "hello\n"
    assert results["a"]["stderr"] == "oops\n"
    assert (results["c"]["status"], results["c"]["exit_code"]) == (3, 3)
    assert results["d"]["status"] == 4
    _, runs = await api.get("/api/dag/runs?name=DIAM")
    (row,) = runs["data"]["items"]
    assert (row["status"], row["success_count"], row["failed_count"], row["skipped_count"]) == (
        2,
        2,
        1,
        1,
    )


async def test_a_retry_succeeds_and_says_so(api):
    answer = await api.run(
        shell("a", '[ "$TASKHUB_ATTEMPT" = 2 ]', retry_count=3, retry_delay_ms=20)
    )
    result = answer["nodes"][0]["result"]
    assert (answer["ok"], result["attempt"], result["max_attempts"]) == (True, 2, 4)


async def test_a_timeout_ends_the_process(api, tmp_path):
    pid_file = tmp_path / "pid"
    answer = await api.run(shell("a", f"echo $$ > {pid_file}; sleep 60", timeout_ms=300))
    result = answer["nodes"][0]["result"]
    assert (result["status"], result["message"]) == (6, "timed out after 300 ms")
    assert not is_alive(int(pid_file.read_text()))


def is_alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


async def test_cancel_ends_the_whole_tree(api, tmp_path):
    pids = tmp_path / "pids"
    command = f"(setsid sleep 60 & echo $! >> {pids}; wait) & echo $$ >> {pids}; wait"
    run_id = await api.start(shell("a", command), shell("b", "true", ["a"]))

    async def both():
        return pids.exists() and len(pids.read_text().split()) == 2

    await until(both)
    status, _ = await api.post(f"/api/dag/runs/{run_id}/cancel")
    assert status == 200

    async def ended():
        _, answer = await api.get(f"/api/dag/runs/{run_id}")
        return answer["data"] if answer["data"]["run"]["status"] else None

    data = await until(ended)
    assert data["run"]["status_name"] == "canceled"
    assert [t["status_name"] for t in data["task_runs"]] == ["canceled", "canceled"]
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())
    status, answer = await api.post(f"/api/dag/runs/{run_id}/cancel")
    assert (status, answer["code"], answer["ok"]) == (409, 409, False)


async def test_the_run_goes_on_when_the_client_of_dag_run_goes_away(api):
    body = json.dumps({"name": "left", "tasks": [shell("a", "sleep 0.4; echo done")]})
    with pytest.raises(Exception, match=r"(?i)timeout"):
        await AsyncHTTPClient().fetch(
            api.url + "/api/dag/run",
            method="POST",
            headers={"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"},
            body=body,
            request_timeout=0.2,
        )

    async def ended():
        _, answer = await api.get("/api/dag/runs?name=left")
        return answer["data"]["items"][0]["status"] == 1

    await until(ended)


async def test_lines_are_there_while_the_task_runs(api, tmp_path):
    gate = tmp_path / "gate"
    run_id = await api.start(shell("a", f"echo first; until [ -e {gate} ]; do sleep 0.01; done"))

    async def first():
        return await api.logs(run_id) == ["first"]

    await until(first)
    _, answer = await api.get(f"/api/dag/runs/{run_id}")
    assert answer["data"]["task_runs"][0]["status_name"] == "running"
    gate.touch()


async def test_a_socket_sees_every_line_once_with_replay_and_live(api, tmp_path):
    gate = tmp_path / "gate"
    run_id = await api.start(
        shell("a", f"seq 1 500; until [ -e {gate} ]; do sleep 0.01; done; seq 501 1000")
    )

    async def half():
        return len(await api.logs(run_id)) == 500

    await until(half)
    socket = await api.socket()
    await socket.write_message(
        json.dumps(
            {
                "token": api.token,
                "op": "subscribe",
                "topic": "task_logs",
                "task_id": "a",
                "run_id": run_id,
                "from": 1,
                "ack": True,
            }
        )
    )
    seen = []
    while len(seen) < 1000:
        message = json.loads(await socket.read_message())
        if message["type"] == "log":
            seen.append((message["seq"], message["message"]))
        if len(seen) == 500:
            gate.touch()
    assert seen == [(i, str(i)) for i in range(1, 1001)]
    socket.close()


async def test_events_come_over_the_socket_in_order(api):
    socket = await api.socket()
    run_id = await api.start(shell("z", "true"), local("a", deps=["z"]))
    await socket.write_message(
        json.dumps(
            {
                "token": api.token,
                "op": "subscribe",
                "topic": "task_events",
                "task_id": "",
                "run_id": run_id,
                "from": 1,
            }
        )
    )
    names = []
    while "run_end" not in names:
        message = json.loads(await socket.read_message())
        if message["type"] == "event":
            names.append(message["event"])
    assert names[0] == "run_start"
    assert names.count("attempt_start") == names.count("attempt_end") == 2
    socket.close()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf 'no line end'", ["no line end"]),
        (r"printf 'a\377b\n'", ["a\ufffdb"]),
        ("head -c 5242880 /dev/zero | tr '\\0' x; echo", ["x" * 16384] * 320),
    ],
)
async def test_odd_output_is_kept_whole(api, command, expected):
    answer = await api.run(shell("a", command))
    assert await api.logs(answer["run_id"]) == expected


async def test_a_gigabyte_is_drained_capped_counted_and_marked(api):
    line = "x" * 99
    answer = await api.run(shell("a", f"yes {line} | head -c 1073741824"))
    result = answer["nodes"][0]["result"]
    cut = (1 << 30) - (64 << 20)
    assert (answer["ok"], result["metadata"]["output_cut_bytes"]) == (True, cut)
    _, page = await api.get(
        f"/api/tasks/logs?task_id=a&run_id={answer['run_id']}&from={(64 << 20) // 100}&limit=10"
    )
    *stored, mark = page["data"]["records"]
    assert [len(record["message"]) for record in stored] == [99, (64 << 20) % 100]
    assert (mark["fields"]["cut_bytes"], mark["level"]) == (cut, 2)


async def test_the_same_idempotency_key_gives_the_same_run(api):
    headers = {"Idempotency-Key": "deploy-7"}
    body = {"tasks": [shell("a", "echo once")]}
    first = await api.post("/api/dag/run", body, headers=headers)
    second = await api.post("/api/dag/run_async", body, headers=headers)
    assert first[1]["run_id"] == second[1]["data"]["run_id"]


async def test_rerun_from_failed_runs_only_that(api):
    answer = await api.run(
        shell("a", "true"), shell("b", "exit 1", ["a"]), shell("c", "true", ["b"])
    )
    status, again = await api.post(f"/api/dag/runs/{answer['run_id']}/rerun", {"from": "failed"})
    assert status == 200
    run_id = again["data"]["run_id"]
    _, view = await api.get(f"/api/dag/runs/{run_id}")
    assert [t["task_id"] for t in view["data"]["task_runs"]] == ["b", "c"]


async def test_waiting_tasks_say_why(api, tmp_path):
    gate = tmp_path / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.01; done"
    run_id = await api.start(
        shell("a", wait), shell("b", "true", ["a"]), shell("c", "true"), max_parallel=1
    )
    _, answer = await api.get(f"/api/dag/task_runs?run_id={run_id}")
    reasons = {t["task_id"]: t["waiting_on"] for t in answer["data"]["items"]}
    assert reasons["b"]["reason"] == "upstream"
    assert reasons["b"]["tasks"] == ["a"]
    assert reasons["c"]["reason"] == "slot"
    gate.touch()


async def test_the_loop_is_not_blocked_by_a_large_dag(api):
    tasks = [local(f"t{i}", deps=[f"t{i // 2}"] if i else []) for i in range(1, 3000)]
    tasks[0]["deps"] = []
    tasks = [t | {"deps": [d for d in t["deps"] if d != "t0"]} for t in tasks]
    run_id = await api.start(*tasks)

    async def ended():
        _, answer = await api.get(f"/api/dag/runs?run_id={run_id}")
        return answer["data"]["items"][0]["status"] == 1

    await until(ended)


async def test_the_server_can_be_stopped_while_tasks_run(config):
    config = replace(config, shutdown=replace(config.shutdown, grace_s=0))
    async with serve(config) as server:
        api = Api(server.url, server)
        _, answer = await api.post("/api/login", {"username": "admin", "password": "123456"})
        api.token = answer["data"]["token"]
        run_id = await api.start(shell("a", "sleep 60"), shell("b", "true", ["a"]))

        async def running():
            _, answer = await api.get(f"/api/dag/runs/{run_id}")
            return answer["data"]["task_runs"][0]["status_name"] == "running"

        await until(running)
    async with serve(config) as server:
        api.url, api.server = server.url, server
        _, answer = await api.get(f"/api/dag/runs/{run_id}")
        task = answer["data"]["task_runs"][0]
        assert answer["data"]["run"]["status_name"] == "failed"
        assert task["message"] == "lost: the server was stopped before the attempt ended"
        assert task["metadata"]["outcome"] == "unknown"


async def test_a_key_of_another_request_is_a_conflict(api):
    key = {"Idempotency-Key": "k"}
    failed = await api.run(shell("a", "exit 1"))
    other = await api.run(shell("a", "exit 1"))
    path = "/api/dag/runs/{}/rerun"
    status, first = await api.post(path.format(failed["run_id"]), {"from": "start"}, headers=key)
    assert status == 200
    status, again = await api.post(path.format(failed["run_id"]), {"from": "start"}, headers=key)
    assert (status, again["data"]) == (200, first["data"])
    status, answer = await api.post(path.format(other["run_id"]), {"from": "start"}, headers=key)
    assert (status, answer["code"]) == (409, 409)
    status, answer = await api.post("/api/dag/run", {"tasks": [shell("a", "true")]}, headers=key)
    assert status == 409


async def test_an_empty_key_is_refused(api):
    body = {"tasks": [shell("a", "true")]}
    status, _ = await api.post("/api/dag/run", body, headers={"Idempotency-Key": ""})
    assert status == 400


async def test_a_repeated_attempt_counts_among_the_most_there_may_be(api, config):
    run_id = await api.start(shell("a", "kill -9 $PPID; sleep 60", idempotent=True))

    async def ended():
        _, answer = await api.get(f"/api/dag/runs/{run_id}")
        (task,) = answer["data"]["task_runs"]
        return task if task["attempt"] == 2 else None

    task = await until(ended)
    assert task["max_attempts"] == 2
    await api.post(f"/api/dag/runs/{run_id}/cancel")


async def test_fat_rows_end_a_page_early(api):
    text = "x" * 200_000
    for _ in range(60):
        await api.run(shell("a", "true", exec_params={"env.X": text}))
    _, answer = await api.get("/api/dag/task_runs?limit=1000")
    first = answer["data"]
    assert first["next_cursor"]
    _, answer = await api.get(f"/api/dag/task_runs?limit=1000&cursor={first['next_cursor']}")
    ids = [item["id"] for item in first["items"] + answer["data"]["items"]]
    assert len(set(ids)) == 60


async def test_stats_count_every_task_once(api):
    await api.run(shell("a", "exit 1"), shell("b", "true", ["a"]))
    _, answer = await api.get("/api/stats")
    pool = answer["data"]["worker_pool"]
    assert (pool["submitted"], pool["finished"], pool["queued"], pool["running"]) == (2, 2, 0, 0)
