from __future__ import annotations

import pytest

from taskhub.domain.result import Output
from taskhub.domain.task import Status
from taskhub.errors import ConflictError, TooManyError, UnavailableError
from tests.unit.web.conftest import NOW_MS, Site
from tests.unit.web.test_gate import assert_error

DAG = {"name": "w", "tasks": [{"id": "a"}, {"id": "b", "deps": ["a"]}]}


async def test_a_run_that_ended_is_answered_whole(site: Site):
    reply = await site.post("/api/dag/run", DAG)
    run_id = f"{NOW_MS}_0"
    assert reply.status == 200
    assert reply.json["nodes"][0] == {
        "id": "a",
        "run_id": run_id,
        "result": {
            "status": 2,
            "status_name": "success",
            "message": "",
            "exit_code": 0,
            "duration_ms": 5,
            "stdout": "hi\n",
            "stderr": "",
            "attempt": 1,
            "max_attempts": 1,
            "metadata": {},
        },
    }
    del reply.json["nodes"]
    summary = {"total": 2, "success": ["a", "b"], "failed": [], "skipped": []}
    rest = {name: value for name, value in reply.json.items() if name != "nodes"}
    assert rest == {"ok": True, "message": "", "run_id": run_id, "summary": summary}
    assert site.runs.calls == [("submit", "admin", "")]


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMEOUT, Status.CANCELED])
async def test_a_run_with_failures_is_answered_with_200(site: Site, status: Status):
    site.runs.status = status
    reply = await site.post("/api/dag/run", DAG)
    assert (reply.status, reply.json["ok"], reply.json["message"]) == (200, False, "dag failed")
    assert reply.json["summary"]["failed"] == ["a", "b"]


async def test_a_skipped_task_is_no_failure_by_itself(site: Site):
    site.runs.status = Status.SKIPPED
    reply = await site.post("/api/dag/run", DAG)
    assert (reply.json["ok"], reply.json["summary"]["skipped"]) == (True, ["a", "b"])


async def test_a_large_answer_is_complete(site: Site):
    site.runs.output = Output(stdout="x" * 300_000, stderr='"\\\n\u2028€')
    reply = await site.post("/api/dag/run", DAG)
    assert [len(node["result"]["stdout"]) for node in reply.json["nodes"]] == [300_000] * 2
    assert reply.json["nodes"][0]["result"]["stderr"] == '"\\\n\u2028€'


async def test_a_single_task_object_is_run(site: Site):
    reply = await site.post("/api/dag/run", {"task": {"id": "only"}})
    assert reply.json["summary"]["success"] == ["only"]


GRAPHS = [
    ([], "/tasks: a DAG needs at least one task"),
    ([{"id": ""}], "/tasks/0/id: a task needs an id"),
    ([{"id": "a"}, {"id": "a"}], "/tasks/1/id: duplicate id 'a', already used by task 0"),
    (
        [{"id": "a", "deps": ["b"]}, {"id": "b", "deps": ["a"]}],
        "/tasks: cycle: a -> b -> a",
    ),
    (
        [{"id": "load"}, {"id": "b", "deps": ["laod"]}],
        "/tasks/1/deps/0: task 'b' depends on unknown task 'laod'; did you mean 'load'?",
    ),
    (
        [{"id": "a", "exec_type": "Loacl"}],
        "/tasks/0/exec_type: unknown exec_type 'Loacl'; did you mean 'Local'?; installed: Local",
    ),
    (
        [{"id": "a", "exec_type": "bad"}],
        "/tasks/0/exec_type: exec_type Bad (plug 2) cannot be used: ImportError: x",
    ),
]


@pytest.mark.parametrize(("tasks", "message"), GRAPHS)
async def test_a_bad_graph_is_500_to_those_who_wait_and_400_to_the_others(
    site: Site, tasks, message: str
):
    for path, status in (("run", 500), ("run_async", 400)):
        reply = await site.post(f"/api/dag/{path}", {"tasks": tasks})
        assert_error(reply, status)
        assert reply.json["error"] == message
        assert len(reply.json["problems"]) == 1
    assert not site.runs.calls


@pytest.mark.parametrize("path", ["run", "run_async"])
async def test_all_bad_fields_come_at_once_with_pointers(site: Site, path: str):
    body = {
        "config": {"max_parallel": 0},
        "tasks": [
            {"id": "a", "timeout_ms": "1", "exec_params": {"cwd": 5}},
            {"id": "b", "deps": ["zz"], "prio": 1},
        ],
    }
    reply = await site.post(f"/api/dag/{path}", body)
    assert_error(reply, 400)
    assert {problem["pointer"] for problem in reply.json["problems"]} == {
        "/config/max_parallel",
        "/tasks/0/timeout_ms",
        "/tasks/0/exec_params/cwd",
        "/tasks/1/prio",
        "/tasks/1/deps/0",
    }


@pytest.mark.parametrize("body", [{}, [], 1, {"tasks": {}}, {"task": {"id": "a"}}])
async def test_run_async_wants_an_array(site: Site, body):
    reply = await site.post("/api/dag/run_async", body)
    assert_error(reply, 400)
    assert reply.json["error"] == "tasks must be array"


async def test_run_async_names_the_tasks(site: Site):
    reply = await site.post("/api/dag/run_async", DAG)
    assert reply.json == {
        "code": 0,
        "message": "ok",
        "data": {
            "run_id": f"{NOW_MS}_0",
            "task_ids": [{"logical": name, "task_id": name} for name in "ab"],
        },
    }


async def test_the_same_key_gives_the_same_run(site: Site):
    for path in ("run", "run_async"):
        site.runs.views.clear()
        first = await site.post(f"/api/dag/{path}", DAG, Idempotency_Key="k 1")
        again = await site.post(f"/api/dag/{path}", DAG, Idempotency_Key="k 1")
        assert again.json == first.json
    assert ("submit", "admin", "k 1") in site.runs.calls


async def test_a_key_used_for_another_body_names_the_tasks_of_its_run(site: Site):
    first = await site.post("/api/dag/run_async", DAG, Idempotency_Key="k")
    again = await site.post("/api/dag/run_async", {"tasks": [{"id": "z"}]}, Idempotency_Key="k")
    assert again.json == first.json


@pytest.mark.parametrize("key", ["x" * 129, "é", "a\tb"])
async def test_a_bad_key_is_refused(site: Site, key: str):
    for path in ("run", "run_async", "runs/x/rerun"):
        assert_error(
            await site.post(
                f"/api/dag/{path}", DAG if "/" not in path else {}, Idempotency_Key=key
            ),
            400,
        )
    assert not site.runs.calls


async def test_too_many_runs_and_a_store_that_is_away_say_when_to_return(site: Site):
    site.runs.error = TooManyError("10000 runs are queued already", retry_after_s=10)
    reply = await site.post("/api/dag/run_async", DAG)
    assert_error(reply, 429)
    assert reply.headers["Retry-After"] == "10"
    site.runs.error = UnavailableError("disk full")
    reply = await site.post("/api/dag/run_async", DAG)
    assert_error(reply, 503)
    assert int(reply.headers["Retry-After"]) > 0


async def test_cancel_stops_a_run_or_one_task_of_it(site: Site):
    assert (await site.post("/api/dag/runs/r1/cancel")).json["data"] is None
    await site.post("/api/dag/runs/r1/cancel", {})
    await site.post("/api/dag/runs/r1/cancel", {"task_id": "a"})
    whole, one = ("cancel", "r1", "admin", None), ("cancel", "r1", "admin", "a")
    assert site.runs.calls == [whole, whole, one]


async def test_cancel_of_what_is_not_there_or_over_is_told_apart(site: Site):
    assert_error(await site.get("/api/dag/runs/nope"), 404)
    site.runs.error = ConflictError("run r1 has ended: success")
    assert_error(await site.post("/api/dag/runs/r1/cancel"), 409)


@pytest.mark.parametrize(
    ("body", "from_failed"), [(None, True), ({"from": "failed"}, True), ({"from": "start"}, False)]
)
async def test_rerun_makes_a_new_run(site: Site, body, from_failed):
    reply = await site.post("/api/dag/runs/r1/rerun", body, Idempotency_Key="k")
    assert reply.json["data"] == {"run_id": "new", "parent_run_id": "r1"}
    assert site.runs.calls == [("rerun", "r1", from_failed, "admin", "k")]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("rerun", {"from": "middle"}, "/from"),
        ("rerun", {"form": "start"}, "/form"),
        ("rerun", [], ""),
        ("cancel", {"task_id": 5}, "/task_id"),
        ("cancel", {"task": "a"}, "/task"),
        ("cancel", "x", ""),
    ],
)
async def test_bad_bodies_of_cancel_and_rerun_are_refused(site: Site, path, body, pointer):
    reply = await site.post(f"/api/dag/runs/r1/{path}", body)
    assert_error(reply, 400)
    assert reply.json["problems"][0]["pointer"] == pointer
    assert not site.runs.calls
