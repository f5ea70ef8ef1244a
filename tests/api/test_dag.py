"""Runs from outside, on a whole server with a real engine."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.api.client import data, ended

RUN_ID = re.compile(r"\d{13}_[0-9A-Za-z]{6}")


def local(name: str, function: str = "noop", **fields) -> dict:
    return {"id": name, "exec_type": "Local", "exec_command": function, **fields}


def sleep(name: str, ms: int, **fields) -> dict:
    return local(name, "sleep", exec_params={"ms": ms}, **fields)


async def start(api, *tasks: dict, **body) -> str:
    status, answer = await api.post("/api/dag/run_async", {"tasks": tasks, **body})
    assert status == 200, answer
    return answer["data"]["run_id"]


async def test_a_dag_runs_in_order_and_is_answered_whole(api):
    body = {
        "name": "flow",
        "tasks": [
            local("b", "echo", exec_params={"message": "second"}, deps=["a"]),
            local("a", "echo", exec_params={"message": "first"}),
        ],
    }
    status, answer = await api.post("/api/dag/run", body)
    assert (status, answer["ok"], answer["message"]) == (200, True, "")
    assert RUN_ID.fullmatch(answer["run_id"])
    assert answer["summary"]["total"] == 2
    assert sorted(answer["summary"]["success"]) == ["a", "b"]
    assert [node["id"] for node in answer["nodes"]] == ["b", "a"]
    result = answer["nodes"][0]["result"]
    assert (result["status"], result["stdout"], result["attempt"]) == (2, "second\n", 1)


async def test_a_failure_skips_what_depends_on_it(api):
    tasks = [local("a", "fail"), local("b", deps=["a"]), local("c")]
    status, answer = await api.post("/api/dag/run", {"tasks": tasks})
    assert (status, answer["ok"], answer["message"]) == (200, False, "dag failed")
    assert answer["summary"] == {
        "total": 3,
        "success": ["c"],
        "failed": ["a"],
        "skipped": ["b"],
    }


async def test_a_shell_task_returns_exit_code_and_both_streams(api):
    task = {"id": "s", "exec_type": "shell", "exec_command": "echo out; echo err >&2; exit 3"}
    _, answer = await api.post("/api/dag/run", {"task": task})
    result = answer["nodes"][0]["result"]
    assert (result["status"], result["exit_code"]) == (3, 3)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")


async def test_an_accepted_run_is_listed_followed_and_ends(api):
    run_id = await start(api, local("a", "echo", exec_params={"message": "hi"}), name="Nightly")
    run = await ended(api, run_id)
    assert (run["run"]["status_name"], run["run"]["name"]) == ("success", "Nightly")
    runs = await data(api, "/api/dag/runs?name=nIGHT")
    assert [run["run_id"] for run in runs["items"]] == [run_id]
    tasks = await data(api, f"/api/dag/task_runs?run_id={run_id}&name=a")
    assert [task["logical_id"] for task in tasks["items"]] == ["a"]
    events = await data(api, f"/api/dag/events?run_id={run_id}")
    names = [event["event"] for event in reversed(events["items"])]
    assert (names[0], names[-1]) == ("run_start", "run_end")
    logs = await data(api, f"/api/tasks/logs?task_id=a&run_id={run_id}")
    assert [record["message"] for record in logs["records"]] == ["hi"]


async def test_pages_follow_each_other_without_gap_or_repeat(api):
    run_ids = [await start(api, local("a")) for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = await data(api, f"/api/dag/runs?limit=3&cursor={cursor}")
        seen += [run["run_id"] for run in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == run_ids[::-1]


async def test_a_run_is_canceled(api):
    run_id = await start(api, sleep("a", 60_000), local("b", deps=["a"]))
    assert (await api.post(f"/api/dag/runs/{run_id}/cancel"))[0] == 200
    run = await ended(api, run_id)
    assert run["run"]["status_name"] == "canceled"
    status, answer = await api.post(f"/api/dag/runs/{run_id}/cancel")
    assert (status, answer["code"]) == (409, 409)


async def test_one_task_is_canceled_and_the_others_go_on(api):
    run_id = await start(api, sleep("a", 60_000), local("b"))
    status, answer = await api.post(f"/api/dag/runs/{run_id}/cancel", {"task_id": "a"})
    assert status == 200, answer
    run = await ended(api, run_id)
    names = {task["logical_id"]: task["status_name"] for task in run["task_runs"]}
    assert names == {"a": "canceled", "b": "success"}


async def test_a_run_is_repeated_from_where_it_failed(api):
    run_id = await start(api, local("a"), local("b", "fail", deps=["a"]))
    await ended(api, run_id)
    status, answer = await api.post(f"/api/dag/runs/{run_id}/rerun", {"from": "failed"})
    assert status == 200, answer
    run = await ended(api, answer["data"]["run_id"])
    assert run["run"]["parent_run_id"] == run_id
    assert [task["logical_id"] for task in run["task_runs"]] == ["b"]
    _, answer = await api.post(f"/api/dag/runs/{run_id}/rerun", {"from": "start"})
    run = await ended(api, answer["data"]["run_id"])
    assert [task["logical_id"] for task in run["task_runs"]] == ["a", "b"]


async def test_the_same_key_gives_the_same_run(api):
    body = {"tasks": [local("a")]}
    calls = [
        api.post("/api/dag/run_async", body, headers={"Idempotency-Key": "k"}) for _ in range(20)
    ]
    answers = [answer for _, answer in await asyncio.gather(*calls)]
    assert len({answer["data"]["run_id"] for answer in answers}) == 1
    _, answer = await api.post("/api/dag/run", body, headers={"Idempotency-Key": "k"})
    assert answer["run_id"] == answers[0]["data"]["run_id"]


async def test_a_client_that_leaves_does_not_stop_its_run(api):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await api.post("/api/dag/run", {"name": "left", "tasks": [sleep("a", 600)]})
    (run,) = (await data(api, "/api/dag/runs?name=left"))["items"]
    assert (await ended(api, run["run_id"]))["run"]["status_name"] == "success"


async def test_ten_thousand_tasks_are_accepted_while_the_server_answers_others(api):
    tasks = [local(f"t{i}", deps=[f"t{i - 1}"][: i > 0]) for i in range(10_000)]
    making = asyncio.create_task(api.post("/api/dag/run_async", {"tasks": tasks}))
    answered = 0
    while not making.done():
        assert (await api.get("/api/health"))[0] == 200
        answered += 1
    status, answer = making.result()
    assert status == 200, answer
    assert answered > 5, "the server answers others while it reads and checks"
    await api.post(f"/api/dag/runs/{answer['data']['run_id']}/cancel")
    await ended(api, answer["data"]["run_id"])
