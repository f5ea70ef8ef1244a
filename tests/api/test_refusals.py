"""Whatever comes in, the answer is an error that says what is wrong, and the server lives on."""

from __future__ import annotations

from random import Random

import pytest

from tests.api.client import data

MIB = 1 << 20


async def assert_alive(api) -> None:
    assert (await api.get("/api/health"))[1]["data"]["status"] == "healthy"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * MIB,
        b'{"tasks":' * 100_000,
        b'{"tasks": [], "tasks": []}',
        b"[NaN]",
        b"9" * 100_000,
        b'"\xff"',
        b'"\\ud800"',
    ],
    ids=["empty", "cut", "deep", "deep objects", "twice", "NaN", "huge int", "latin", "surrogate"],
)
async def test_malformed_json_is_1002(api, body: bytes):
    for path in ("run", "run_async"):
        status, answer = await api.post(f"/api/dag/{path}", raw=body)
        assert (status, answer["code"], answer["ok"]) == (400, 1002, False)
    await assert_alive(api)


async def test_more_than_a_mebibyte_is_413(api):
    status, answer = await api.post("/api/dag/run", raw=b" " * (MIB + 1))
    assert (status, answer["code"]) == (413, 413)
    await assert_alive(api)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "at least one task"),
        ([{"id": ""}], "a task needs an id"),
        ([{"id": "a"}, {"id": "a"}], "duplicate id 'a'"),
        ([{"id": "a", "deps": ["b"]}, {"id": "b", "deps": ["a"]}], "cycle: a -> b -> a"),
        ([{"id": "load"}, {"id": "b", "deps": ["laod"]}], "did you mean 'load'?"),
        ([{"id": "a", "exec_type": "Shel"}], "did you mean 'Shell'?"),
    ],
)
async def test_a_graph_that_cannot_run_is_500_or_400(api, tasks: list, message: str):
    for path, expected in (("run", 500), ("run_async", 400)):
        body = {"tasks": [{"exec_command": "noop", **task} for task in tasks]}
        status, answer = await api.post(f"/api/dag/{path}", body)
        assert status == expected, answer
        assert message in answer["error"]
    assert (await data(api, "/api/dag/runs"))["items"] == []


async def test_wrong_fields_come_all_at_once(api):
    task = {"id": "a b", "timeout_ms": -1, "retry_count": "3", "metadata": [], "colour": "red"}
    status, answer = await api.post("/api/dag/run", {"tasks": [task], "config": {"x": 1}})
    assert status == 400
    assert {problem["pointer"] for problem in answer["problems"]} >= {
        "/config/x",
        "/tasks/0/id",
        "/tasks/0/timeout_ms",
        "/tasks/0/retry_count",
        "/tasks/0/metadata",
        "/tasks/0/colour",
    }


async def test_bad_parameters_of_an_executor_are_refused_before_anything_runs(api):
    task = {"id": "a", "exec_type": "Shell", "exec_command": "true", "exec_params": {"cwd": 5}}
    status, answer = await api.post("/api/dag/run", {"tasks": [task]})
    assert status == 400
    assert answer["problems"][0]["pointer"] == "/tasks/0/exec_params/cwd"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/dag/runs/nope", 404),
        ("POST", "/api/dag/runs/nope/cancel", 404),
        ("POST", "/api/dag/runs/nope/rerun", 404),
        ("POST", "/api/dag/runs/..%2f..%2fetc/cancel", 404),
        ("GET", "/api/dag/runs?limit=x", 400),
        ("GET", "/api/dag/runs?cursor=x", 400),
        ("GET", "/api/dag/task_runs?limit=0", 400),
        ("GET", "/api/dag/events?start_ts_ms=2&end_ts_ms=1", 400),
        ("GET", "/api/tasks/logs", 400),
        ("GET", "/api/tasks/logs?task_id=%00", 200),
        ("GET", "/api/dag/runs?name=%25%27%22%5C&run_id=%00", 200),
        ("GET", "/api/nothing", 404),
        ("DELETE", "/api/dag/runs", 405),
    ],
)
async def test_every_error_is_the_same_object(api, method: str, path: str, expected: int):
    status, answer = await api.call(method, path)
    assert status == expected, answer
    if expected != 200:
        assert (answer["ok"], answer["code"], answer["data"]) == (False, expected, None)
        assert answer["message"] == answer["error"]


async def test_a_token_ends_at_logout(api):
    assert (await api.post("/api/logout"))[0] == 200
    assert (await api.get("/api/dag/runs"))[0] == 401


WORDS = [
    *("tasks", "task", "config", "name", "max_parallel", "fail_policy", "FailFast"),
    *("id", "deps", "exec_type", "exec_params", "exec_command", "timeout_ms", "retry_count"),
    *("priority", "metadata", "a", "b", "Local", "noop"),
]
LEAVES = (None, True, -1, 0, 1, 2**63 - 1, 1.5, "", "é\n\x00", "a" * 200, *WORDS)


def anything(random: Random, depth: int = 4) -> object:
    """Return JSON made of the right words in the wrong places."""
    kind = random.randrange(4 if depth else 2)
    if kind < 2:
        return random.choice(LEAVES)
    inner = [anything(random, depth - 1) for _ in range(random.randrange(4))]
    return inner if kind == 2 else {random.choice(WORDS): value for value in inner}


@pytest.mark.parametrize("seed", range(4))
async def test_no_body_makes_an_error_nobody_meant(api, seed: int):
    random = Random(seed)
    for _ in range(60):
        task = {"id": "a", random.choice(WORDS): anything(random)}
        for body in (anything(random), {"tasks": [task, anything(random)]}, {"tasks": [task]}):
            for path, allowed in (("run", {200, 400, 500}), ("run_async", {200, 400})):
                status, answer = await api.post(f"/api/dag/{path}", body)
                assert status in allowed, answer
                assert status != 500 or answer["problems"], answer
    await assert_alive(api)
