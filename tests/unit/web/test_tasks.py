from __future__ import annotations

import pytest

from taskhub.domain.result import Output
from taskhub.domain.run import RunHeader, Source
from taskhub.domain.task import Status, TaskSpec
from taskhub.errors import ConflictError, NotFoundError, TooManyError, UnavailableError
from taskhub.ports.executor import Installed
from taskhub.ports.store import NumberedQuery, Page, TaskRow, TaskUpdate
from taskhub.services.roles import Role
from taskhub.services.tasks import SimpleTask
from taskhub.spec.simple_task import asked_of
from taskhub.web.task_views import last_bytes
from tests.unit.web.conftest import NOW_MS, Plain, Site
from tests.unit.web.test_gate import assert_error

NO_OUTPUT = Output()


def simple(number=7, *, output=NO_OUTPUT, message="", status=Status.RUNNING, attempt=1, **params):
    run_id = f"r{number}"
    spec = TaskSpec(
        id=str(number),
        name="n",
        exec_type="Shell",
        timeout_ms=5000,
        retry_count=2,
        metadata={"task": {"type": 3, "params": params}},
    )
    header = RunHeader(
        run_id=run_id,
        ord=1,
        name="n",
        source=Source.TASK,
        created_ms=NOW_MS,
        first_task_id=10,
        number=number,
    )
    state = TaskUpdate(10, run_id, spec.id, status, attempt, 1, 5, message, NOW_MS, NOW_MS, {})
    return SimpleTask(
        header=header,
        row=TaskRow(spec=spec, state=state),
        output=output,
        updated_ms=NOW_MS + 1,
        cancel_requested=True,
    )


ITEM = {
    "id": 7,
    "name": "n",
    "type": 3,
    "status": "running",
    "create_time": "2023-11-14T22:13:20.000+00:00",
    "update_time": "2023-11-14T22:13:20.001+00:00",
    "params": {"cmd": "x"},
    "exit_code": 1,
    "last_output": "out",
    "last_error": "reason",
    "max_retries": 2,
    "retry_count": 1,
    "timeout_sec": 5,
    "cancel_flag": True,
    "run_id": "r7",
}


async def test_a_task_has_the_fields_of_the_seed(site: Site):
    task = simple(output=Output(stdout="out"), message="reason", attempt=2, cmd="x")
    site.tasks.found[7] = task
    assert (await site.get("/api/tasks/7")).json == {"code": 0, "message": "ok", "data": ITEM}
    site.tasks.page_of = Page(items=[task], next_before=7)
    reply = await site.get("/api/tasks?status=running&name=N&limit=2000&cursor=c9")
    assert reply.json == {"code": 0, "message": "ok", "data": [ITEM], "next_cursor": "c7"}
    query = NumberedQuery(status=Status.RUNNING, name="N")
    assert site.tasks.calls[-1] == ("page", query, 1000, 9)


async def test_standard_error_comes_before_the_reason(site: Site):
    site.tasks.found[7] = simple(output=Output(stderr="err"), message="exit code 1")
    assert (await site.get("/api/tasks/7")).json["data"]["last_error"] == "err"


async def test_a_large_list_is_complete(site: Site):
    output = Output(stdout="x" * 300_000, stderr="€" * 100_000)
    site.tasks.page_of = Page(items=[simple(n, output=output) for n in range(9, 0, -1)])
    items = (await site.get("/api/tasks")).json["data"]
    assert [item["id"] for item in items] == list(range(9, 0, -1))
    assert {len(item["last_output"].encode()) for item in items} == {65536}
    assert {len(item["last_error"].encode()) for item in items} == {65535}


@pytest.mark.parametrize(
    ("text", "most", "end"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "bcd"),
        ("a€", 3, "€"),
        ("a€", 2, ""),
        ("€a", 3, "a"),
        ("", 3, ""),
    ],
)
def test_an_end_is_cut_at_a_character(text: str, most: int, end: str):
    assert last_bytes(text, most) == end


async def test_a_task_is_submitted_for_whoever_asks(site: Site):
    site.executors["shell"] = Installed(name="Shell", source="t", version="1", executor=Plain())
    body = {"name": "n", "type": 1, "params": {"cmd": "ls"}, "timeout_sec": 2}
    reply = await site.post("/api/tasks", body, Idempotency_Key="k")
    assert reply.json == {"code": 0, "message": "ok", "data": {"id": 7}}
    ((name, task, owner, key),) = site.tasks.calls
    assert (name, owner, key, task.exec_command, task.timeout_ms) == (
        *("submit", "admin", "k", "ls", 2000),
    )
    assert asked_of(task) == (1, {"cmd": "ls"})


async def test_a_large_body_is_read_as_well(site: Site):
    site.executors["shell"] = Installed(name="Shell", source="t", version="1", executor=Plain())
    body = {"name": "n", "params": {"cmd": "ls", "mine": ["x" * 1000] * 100}}
    assert (await site.post("/api/tasks", body)).status == 200
    assert asked_of(site.tasks.calls[0][1])[1] == body["params"]


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": None, "type": "x"}])
async def test_a_missing_name_is_1001(site: Site, body):
    assert_error(await site.post("/api/tasks", body), 400, 1001)
    assert not site.tasks.calls


async def test_other_mistakes_are_400_and_no_json_is_1002(site: Site):
    assert_error(await site.post("/api/tasks", {"name": "n", "typ": 1}), 400)
    assert_error(await site.post("/api/tasks", []), 400)
    assert_error(await site.post("/api/tasks", b"{"), 400, 1002)
    assert_error(await site.post("/api/tasks", b"x=1", Content_Type="text/plain"), 400)
    assert_error(await site.post("/api/tasks", {"name": "n"}, Idempotency_Key="é"), 400)
    assert not site.tasks.calls


@pytest.mark.parametrize(
    "query", ["status=skipped", "status=Running", "limit=0", "cursor=7", "limit=x", "name=%ff"]
)
async def test_a_bad_query_is_told(site: Site, query: str):
    reply = await site.get(f"/api/tasks?{query}")
    assert_error(reply, 400)
    assert [p["pointer"] for p in reply.json["problems"]] == [f"?{query.partition('=')[0]}"]


@pytest.mark.parametrize("number", ["8", "x", "0x7", "-7", "+7", "7.0", str(2**63), "9" * 400])
async def test_an_unknown_number_is_not_found(site: Site, number: str):
    reply = await site.get(f"/api/tasks/{number}")
    assert_error(reply, 404)
    assert reply.json["message"] == "Task not found"
    site.tasks.error = NotFoundError("task", number)
    assert_error(await site.post(f"/api/tasks/{number}/cancel"), 404, 1003)


async def test_cancel_says_by_whom_and_what_forbids_it(site: Site):
    reply = await site.post("/api/tasks/7/cancel")
    assert reply.json == {"code": 0, "message": "ok", "data": None}
    assert site.tasks.calls == [("cancel", 7, "admin")]
    site.tasks.error = ConflictError("run r7 has already ended: success")
    assert_error(await site.post("/api/tasks/7/cancel"), 409, 1004)


async def test_a_full_queue_and_a_store_that_is_away_say_when_to_return(site: Site):
    site.executors["shell"] = Installed(name="Shell", source="t", version="1", executor=Plain())
    for error, status in ((TooManyError("x"), 429), (UnavailableError("x"), 503)):
        site.tasks.error = error
        reply = await site.post("/api/tasks", {"name": "n"})
        assert_error(reply, status)
        assert int(reply.headers["Retry-After"]) > 0


async def test_a_viewer_may_look_and_no_more(site: Site):
    site.tasks.found[7] = simple()
    token = await site.token_of(Role.VIEWER)
    assert (await site.get("/api/tasks/7", token=token)).status == 200
    assert (await site.get("/api/tasks", token=token)).status == 200
    for path in ("/api/tasks", "/api/tasks/7/cancel"):
        assert_error(await site.post(path, {"name": "n"}, token=token), 403)
