"""Secrets go in and do their work; they come out nowhere but in what tasks print."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from dataclasses import replace

import pytest

from taskhub.adapters.memory import MemoryStores
from taskhub.bootstrap import serve
from taskhub.config import Auth
from taskhub.domain.event import Event, EventName
from taskhub.executors.local import LocalExecutor
from taskhub.logconfig import JsonFormatter
from taskhub.plugin_api import Level
from taskhub.ports.executor import Installed
from taskhub.ports.store import Batch
from taskhub.registry import discover
from tests.api.client import data, ended
from tests.api.conftest import Api

VALUE = "hunter2-é/+\n\"'"
FORMS = ("hunter2", "é/+", "%2F%2B")


class Point:
    def __init__(self, function):
        self.name = self.value = function.__name__
        self.function = function

    def load(self):
        return self.function


async def leak(password: str, context) -> None:
    """Say the secret in every way a function has, but for printing it."""
    context.log(f"with {password}", Level.WARN, {"db_password": password, "url": f"x?{password}"})
    raise ValueError(f"{password} was refused", {"p": password})


def give_back(password: str) -> dict:
    return {"token": "hunter2-other", "list": [{"said": password}], "max_tokens": 5}


@pytest.fixture
def log_of_the_server():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel("DEBUG")
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def stores():
    return MemoryStores()


@pytest.fixture
async def api(config, stores, log_of_the_server):
    local = LocalExecutor([Point(leak), Point(give_back)])
    row = Installed(name="Local", source="tests", version="1", executor=local)
    config = replace(config, auth=Auth(secret_names=("webhook*",)))
    executors = {**discover(), "local": row}
    async with serve(config, stores=stores, executors=executors) as server:
        api = Api(server.url, server)
        _, answer = await api.post("/api/login", {"username": "admin", "password": "123456"})
        api.token = answer["data"]["token"]
        yield api


def assert_hidden(*answers):
    for answer in answers:
        text = json.dumps(answer, ensure_ascii=False)
        assert not any(form in text for form in FORMS), text
        assert "***" in text


async def heard(api, run_id, topic, count):
    """Return the first messages of a run over the socket."""
    socket = await api.socket()
    command = {"op": "subscribe", "topic": topic, "task_id": "", "run_id": run_id, "from": 1}
    await socket.write_message(json.dumps(command | {"token": api.token}))
    async with asyncio.timeout(10):
        got = [json.loads(await socket.read_message()) for _ in range(count)]
    socket.close()
    return got


async def everything(api, run_id):
    """Return all that a run says over HTTP and over the socket."""
    detail = await data(api, f"/api/dag/runs/{run_id}")
    events = await data(api, f"/api/dag/events?run_id={run_id}")
    lines = await data(api, f"/api/tasks/logs?task_id=a&run_id={run_id}")
    tasks = await data(api, f"/api/dag/task_runs?run_id={run_id}")
    pushed = await heard(api, run_id, "task_events", len(events["items"]))
    assert pushed[-1]["event"] == "run_end"
    return detail, events, lines, tasks, pushed


async def test_parameters_and_metadata_are_masked_wherever_they_are_shown(api, log_of_the_server):
    params = {"env.API_KEY": VALUE, "env.HOME": "/x", "env.WEBHOOK_URL": VALUE}
    metadata = {"owner": "me", "env": [{"name": "DB_PASSWORD", "value": VALUE}], "max_tokens": 9}
    answer = await api.run(
        {"id": "a", "exec_type": "Shell", "exec_command": "true", "exec_params": params}
        | {"metadata": metadata}
    )
    detail, _, _, tasks, _ = everything_ = await everything(api, answer["run_id"])
    masked = {"env.API_KEY": "***", "env.HOME": "/x", "env.WEBHOOK_URL": "***"}
    assert detail["spec"]["tasks"][0]["exec_params"] == masked
    assert detail["spec"]["tasks"][0]["metadata"] == {
        "owner": "me",
        "env": [{"name": "DB_PASSWORD", "value": "***"}],
        "max_tokens": 9,
    }
    assert detail["task_runs"][0]["exec_params"] == masked
    assert tasks["items"][0]["exec_params"] == masked
    assert_hidden(detail, tasks)
    assert "hunter2" not in json.dumps([answer, *everything_]) + log_of_the_server.getvalue()


async def test_a_failure_does_not_tell_the_password(api, stores, log_of_the_server):
    answer = await api.run({"id": "a", "exec_command": "leak", "exec_params": {"password": VALUE}})
    assert (
        answer["nodes"][0]["result"]["message"] == "ValueError: ('*** was refused', {'p': '***'})"
    )
    detail, events, lines, tasks, pushed = await everything(api, answer["run_id"])
    assert_hidden(answer, detail, events, lines, tasks, pushed)
    (line,) = await heard(api, answer["run_id"], "task_logs", 1)
    assert (line["message"], line["fields"]) == (
        "with ***",
        {"db_password": "***", "url": "x?***"},
    )
    stored = [*await stores.runs.history(answer["run_id"]), *await stores.logs.chunks("", 0, 9)]
    stored += await stores.logs.chunks(answer["run_id"], 0, 9)
    assert not any(form in repr(stored) for form in FORMS), "stored masked already"
    assert "hunter2" not in log_of_the_server.getvalue()


async def test_a_result_does_not_tell_the_password(api):
    answer = await api.run(
        {"id": "a", "exec_command": "give_back", "exec_params": {"password": VALUE}}
    )
    returned = {"token": "***", "list": [{"said": "***"}], "max_tokens": 5}
    assert answer["nodes"][0]["result"]["metadata"] == {"return": returned}
    detail, events, _, tasks, pushed = await everything(api, answer["run_id"])
    assert detail["task_runs"][0]["metadata"] == {"return": returned}
    assert_hidden(answer, detail, events, tasks, pushed)


async def test_a_task_gets_the_real_value_and_so_does_its_rerun(api):
    key = "hunter2 and more"
    show = 'echo "${#API_KEY} $(printf %s "$API_KEY" | tr a-z b-za)"'
    shell = {"id": "a", "exec_type": "Shell", "exec_command": show}
    answer = await api.run(shell | {"exec_params": {"env.API_KEY": key}})
    proof = f"{len(key)} ivoufs2 boe npsf\n"
    assert answer["nodes"][0]["result"]["stdout"] == proof
    path = f"/api/dag/runs/{answer['run_id']}/rerun"
    _, again = await api.post(path, {"from": "start"})
    detail = await ended(api, again["data"]["run_id"])
    assert detail["task_runs"][0]["stdout"] == proof
    assert detail["task_runs"][0]["exec_params"] == {"env.API_KEY": "***"}


async def test_what_a_task_prints_is_its_own(api):
    shell = {"id": "a", "exec_type": "Shell", "exec_command": 'echo "$TOKEN"'}
    answer = await api.run(shell | {"exec_params": {"env.TOKEN": "hunter2"}})
    assert answer["nodes"][0]["result"]["stdout"] == "hunter2\n"
    assert await api.logs(answer["run_id"]) == ["hunter2"]


async def test_a_refused_body_does_not_repeat_the_password(api, log_of_the_server):
    shell = {"id": "a", "exec_type": "Shell", "exec_command": "true", "name": 1}
    params = {"env.API_KEY": [VALUE], "cwd": ["/hunter3"]}
    status, answer = await api.post("/api/dag/run", {"task": shell | {"exec_params": params}})
    assert status == 400
    problems = {problem["pointer"]: problem["message"] for problem in answer["problems"]}
    assert "hunter3" in problems["/task/exec_params/cwd"]
    assert problems.keys() == {
        *("/task/name", "/task/exec_params/cwd", "/task/exec_params/env.API_KEY"),
    }
    assert not any(form in json.dumps(answer) for form in FORMS)
    assert "hunter2" not in log_of_the_server.getvalue()


async def test_what_was_stored_before_there_were_masks_is_masked_on_its_way_out(api, stores):
    answer = await api.run({"id": "a", "exec_type": "Shell", "exec_command": "true"})
    run_id = answer["run_id"]
    last = (await stores.runs.history(run_id))[-1]
    extra = {"attempt_key": "k", "metadata": {"token": "hunter2"}, "webhook_x": "hunter2"}
    old = Event(last.id + 1, run_id, last.seq + 1, 1, EventName.ATTEMPT_END, "a", extra)
    await stores.runs.commit(Batch(events=[old]))
    shown = {"attempt_key": "k", "metadata": {"token": "***"}, "webhook_x": "***"}
    events = await data(api, f"/api/dag/events?run_id={run_id}&event=attempt_end")
    assert events["items"][0]["extra"] == shown
    pushed = await heard(api, run_id, "task_events", last.seq + 1)
    assert pushed[-1]["extra"] == shown
    assert_hidden(events, pushed)
