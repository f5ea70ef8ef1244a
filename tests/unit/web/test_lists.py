from __future__ import annotations

from dataclasses import replace

import pytest

from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event, EventName
from taskhub.domain.log import Level, LogRecord, LogSegment, Stream
from taskhub.domain.result import Output
from taskhub.domain.secrets import Secrets
from taskhub.domain.task import Status, TaskSpec
from taskhub.domain.waiting import Blocker
from taskhub.ports.store import EventQuery, Page, RunQuery, TaskQuery
from taskhub.services.history import TaskView
from taskhub.spec.limits import SpecLimits
from tests.unit.web.conftest import NOW_MS, Site, view_of
from tests.unit.web.test_gate import assert_error

SPEC = DagSpec(
    name="w",
    tasks=(
        TaskSpec(id="a", name="A", exec_type="Shell", exec_command="x", exec_params={"cwd": "/"}),
        TaskSpec(id="b", name="B", exec_type="Local", deps=("a",), retry_count=2),
    ),
)
VIEW = view_of("r1", SPEC, Status.SUCCESS, Output(stdout="out", stderr="err"))


async def test_runs_have_the_fields_of_the_seed(site: Site):
    site.runs.page = Page(items=[VIEW.row], next_before=255)
    reply = await site.get("/api/dag/runs?run_id=r1&name=W&start_ts_ms=1&end_ts_ms=9&limit=5")
    assert reply.json["data"]["next_cursor"] == "cff"
    assert reply.json["data"]["items"] == [
        {
            "run_id": "r1",
            "name": "w",
            "source": "manual",
            "status": 1,
            "status_name": "success",
            "start_ts_ms": NOW_MS,
            "end_ts_ms": NOW_MS + 5,
            "total": 2,
            "success_count": 2,
            "failed_count": 0,
            "skipped_count": 0,
            "message": "",
            "created_ts_ms": NOW_MS,
            "owner": "",
            "parent_run_id": "",
        }
    ]
    query = RunQuery(run_id="r1", name="W", start_ts_ms=1, end_ts_ms=9)
    assert site.runs.calls == [("list_runs", query, 5, None)]


async def test_task_runs_have_the_fields_of_the_seed(site: Site):
    waiting = TaskView(
        row=VIEW.tasks[1].row,
        output=Output(),
        waiting_on=Blocker(reason="upstream", detail={"tasks": ["a"]}),
    )
    site.runs.page = Page(items=[waiting, VIEW.tasks[0]])
    reply = await site.get("/api/dag/task_runs?run_id=r1&name=A")
    first, second = reply.json["data"]["items"]
    assert reply.json["data"]["next_cursor"] is None
    assert second == {
        "id": 10,
        "run_id": "r1",
        "logical_id": "a",
        "task_id": "a",
        "name": "A",
        "exec_type": "Shell",
        "exec_command": "x",
        "exec_params": {"cwd": "/"},
        "deps": [],
        "status": 2,
        "status_name": "success",
        "exit_code": 0,
        "duration_ms": 5,
        "message": "",
        "stdout": "out",
        "stderr": "err",
        "attempt": 1,
        "max_attempts": 1,
        "start_ts_ms": NOW_MS,
        "end_ts_ms": NOW_MS + 5,
        "metadata": {},
        "waiting_on": None,
    }
    assert (first["deps"], first["max_attempts"]) == (["a"], 3)
    assert first["waiting_on"] == {"reason": "upstream", "tasks": ["a"]}
    assert site.runs.calls == [("list_tasks", TaskQuery(run_id="r1", name="A"), 200, None)]


async def test_events_carry_their_extra_twice_and_it_hides_nothing(site: Site):
    extra = {"attempt": 1, "task_id": "spoofed", "type": "spoofed"}
    event = Event(7, "r1", 3, NOW_MS, EventName.ATTEMPT_START, "a", extra)
    site.runs.page = Page(items=[event])
    reply = await site.get("/api/dag/events?run_id=r1&task_id=a&event=attempt_start&type=event")
    assert reply.json["data"]["items"] == [
        {
            "id": 7,
            "task_id": "a",
            "run_id": "r1",
            "type": "event",
            "event": "attempt_start",
            "ts_ms": NOW_MS,
            "seq": 3,
            "extra": extra,
            "attempt": 1,
        }
    ]
    query = EventQuery(run_id="r1", task_id="a", event=EventName.ATTEMPT_START)
    assert site.runs.calls == [("list_events", query, 200, None)]


@pytest.mark.parametrize("query", ["type=log", "event=no_such_event", "type=log&event=run_end"])
async def test_unknown_kinds_of_events_find_nothing(site: Site, query: str):
    reply = await site.get(f"/api/dag/events?{query}")
    assert reply.json["data"] == {"items": [], "next_cursor": None}
    assert not site.runs.calls


@pytest.mark.parametrize(
    ("path", "default", "most"),
    [("runs", 100, 500), ("task_runs", 200, 1000), ("events", 200, 1000)],
)
async def test_limits_have_defaults_and_are_clamped(site: Site, path: str, default: int, most: int):
    for query in ("", "?limit=", f"?limit={most}", "?limit=999999999"):
        await site.get(f"/api/dag/{path}{query}")
    assert [call[-2] for call in site.runs.calls] == [default, default, most, most]


@pytest.mark.parametrize("path", ["runs", "task_runs", "events"])
@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=-1", "?limit"),
        ("limit=1.5", "?limit"),
        ("limit=x", "?limit"),
        ("limit=18446744073709551616", "?limit"),
        ("limit=" + "9" * 5000, "?limit"),
        ("limit=%D9%A1", "?limit"),
        ("cursor=x", "?cursor"),
        ("cursor=cffffffffffffffff", "?cursor"),
        ("name=%ff", "?name"),
        ("start_ts_ms=yesterday", "?start_ts_ms"),
        ("start_ts_ms=2&end_ts_ms=1", "?end_ts_ms"),
    ],
)
async def test_a_bad_parameter_is_named(site: Site, path: str, query: str, pointer: str):
    reply = await site.get(f"/api/dag/{path}?{query}")
    knows = {"?name": "runs task_runs", "?start_ts_ms": "runs events", "?end_ts_ms": "runs events"}
    if path not in knows.get(pointer, path).split():
        assert reply.status == 200
        return
    assert_error(reply, 400)
    assert [problem["pointer"] for problem in reply.json["problems"]] == [pointer]
    assert not site.runs.calls


async def test_the_cursor_of_a_page_leads_to_the_next(site: Site):
    site.runs.page = Page(items=[], next_before=(1 << 53) + 1)
    cursor = (await site.get("/api/dag/runs")).json["data"]["next_cursor"]
    await site.get(f"/api/dag/runs?cursor={cursor}")
    assert site.runs.calls[-1][-1] == (1 << 53) + 1


async def test_a_run_is_shown_with_its_spec_and_tasks(site: Site):
    site.runs.views["r1"] = VIEW
    data = (await site.get("/api/dag/runs/r1")).json["data"]
    assert data["run"]["run_id"] == "r1"
    assert DagSpec.from_json(data["spec"]) == SPEC
    assert [task["logical_id"] for task in data["task_runs"]] == ["a", "b"]


async def test_ten_thousand_tasks_are_shown(site: Site):
    tasks = tuple(TaskSpec(id=f"t{i}", name=f"t{i}", exec_type="Local") for i in range(10_000))
    spec = DagSpec(name="", tasks=tasks)
    site.runs.views["r1"] = view_of("r1", spec, Status.SUCCESS, Output())
    data = (await site.get("/api/dag/runs/r1")).json["data"]
    assert (len(data["task_runs"]), len(data["spec"]["tasks"])) == (10_000, 10_000)


SEGMENT = LogSegment(
    attempt=2,
    stream=Stream.STDERR,
    level=Level.ERROR,
    ts_ms=NOW_MS,
    duration_ms=4,
    lines=("one", "two"),
    continued=(1,),
    fields={"k": "v"},
)


async def test_log_lines_have_the_fields_of_the_seed(site: Site):
    records = [LogRecord(i + 5, "r1", "a", SEGMENT, i) for i in range(2)]
    site.logs.lines = [(record.seq, record) for record in records]
    data = (await site.get("/api/tasks/logs?task_id=a&run_id=r1&from=5&limit=9")).json["data"]
    assert data["records"][1] == {
        "seq": 6,
        "task_id": "a",
        "run_id": "r1",
        "dag_run_id": "r1",
        "cron_job_id": None,
        "worker_id": None,
        "level": 3,
        "stream": 2,
        "message": "two",
        "ts_ms": NOW_MS,
        "duration_ms": 4,
        "attempt": 2,
        "fields": {"k": "v", "continued": True},
    }
    del data["records"]
    assert data == {"task_id": "a", "from": 5, "limit": 9, "next_from": 7}
    assert site.logs.calls == [("a", "r1", 5, 9)]


async def test_logs_of_all_runs_are_numbered_by_position(site: Site):
    site.logs.lines = [(41, LogRecord(1, "r2", "a", SEGMENT, 0))]
    data = (await site.get("/api/tasks/logs?task_id=a&from=41")).json["data"]
    assert (data["records"][0]["seq"], data["next_from"]) == (41, 42)
    assert site.logs.calls == [("a", None, 41, 200)]


@pytest.mark.parametrize(
    ("query", "first", "most"),
    [
        ("", 1, 200),
        ("&from=0&limit=0", 1, 1),
        ("&from=-5&limit=-5", 1, 1),
        ("&limit=5000", 1, 2000),
    ],
)
async def test_bounds_of_log_pages_are_clamped(site: Site, query: str, first: int, most: int):
    data = (await site.get(f"/api/tasks/logs?task_id=a{query}")).json["data"]
    assert data == {"task_id": "a", "from": first, "limit": most, "next_from": first, "records": []}


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("", ["?task_id"]),
        ("task_id=", ["?task_id"]),
        ("from=x&limit=y", ["?task_id", "?from", "?limit"]),
        ("task_id=a&from=18446744073709551616", ["?from"]),
    ],
)
async def test_bad_log_queries_are_400(site: Site, query: str, pointers: list[str]):
    reply = await site.get(f"/api/tasks/logs?{query}")
    assert_error(reply, 400)
    assert [problem["pointer"] for problem in reply.json["problems"]] == pointers


async def test_every_answer_masks_what_users_and_executors_filled_in(site: Site):
    site.change(spec=SpecLimits(secrets=Secrets(["pin"])))
    hidden = {"token": "hunter2", "list": [{"name": "pin", "value": "hunter2"}], "n": 1}
    shown = {"token": "***", "list": [{"name": "pin", "value": "***"}], "n": 1}
    task = TaskSpec(id="a", name="A", exec_type="X", exec_params=hidden, metadata=hidden)
    view = view_of("r1", DagSpec(name="w", tasks=(task,)), Status.SUCCESS, Output())
    row = view.tasks[0].row
    state = row.state._replace(metadata=hidden)
    view = replace(view, tasks=[replace(view.tasks[0], row=replace(row, state=state))])
    site.runs.views["r1"] = view
    detail = (await site.get("/api/dag/runs/r1")).json["data"]
    (spec,), (item,) = detail["spec"]["tasks"], detail["task_runs"]
    assert spec["exec_params"] == spec["metadata"] == shown
    assert item["exec_params"] == item["metadata"] == shown
    site.runs.page = Page(items=view.tasks)
    assert (await site.get("/api/dag/task_runs")).json["data"]["items"] == [item]
    site.runs.page = Page(items=[Event(7, "r1", 3, 1, EventName.ATTEMPT_END, "a", hidden)])
    (event,) = (await site.get("/api/dag/events")).json["data"]["items"]
    assert event["extra"] == shown
    assert {name: event[name] for name in shown} == shown
    segment = LogSegment(
        attempt=1,
        stream=Stream.NONE,
        level=Level.INFO,
        ts_ms=1,
        duration_ms=1,
        lines=["x"],
        fields=hidden,
    )
    site.logs.lines = [(1, LogRecord(1, "r1", "a", segment, 0))]
    (line,) = (await site.get("/api/tasks/logs?task_id=a")).json["data"]["records"]
    assert line["fields"] == shown
    assert hidden["token"] == "hunter2", "what is stored stays as it is"
