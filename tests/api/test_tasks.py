"""Simple tasks on a real server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from taskhub.bootstrap import serve
from tests.api.client import data
from tests.api.conftest import Api
from tests.api.socket_client import Client
from tests.api.test_runs import is_alive, until

LOCAL = {"exec_type": "Local", "exec_command": "echo", "exec_params": {"message": "x" * 20_000}}
FINAL = {"success", "failed", "canceled", "timeout"}
FIELDS = [
    *("id", "name", "type", "status", "create_time", "update_time", "params", "exit_code"),
    *("last_output", "last_error", "max_retries", "retry_count", "timeout_sec", "cancel_flag"),
    "run_id",
]


async def create(api, name="t", *, headers=None, **body):
    status, answer = await api.post("/api/tasks", {"name": name, **body}, headers=headers)
    assert status == 200, answer
    return answer["data"]["id"]


async def shell(api, cmd, **more):
    return await create(api, params={"cmd": cmd}, **more)


async def ended(api, number):
    async def final():
        item = await data(api, f"/api/tasks/{number}")
        return item if item["status"] in FINAL else None

    return await until(final)


def read(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def written(path: Path, count=1):
    """Return the process ids in a file once there are so many."""

    async def enough():
        return len(read(path)) == count

    await until(enough)
    return [int(word) for word in read(path)]


async def test_a_task_runs_and_is_shown_as_the_seed_says(api):
    params = {"cmd": "echo out; echo err >&2; exit 3", "mine": [1, {"a": None}]}
    number = await create(api, "first", type=2, params=params, timeout_sec=9)
    item = await ended(api, number)
    assert list(item) == FIELDS
    assert {name: item[name] for name in FIELDS if name not in {"create_time", "update_time"}} == {
        "id": number,
        "name": "first",
        "type": 2,
        "status": "failed",
        "params": params,
        "exit_code": 3,
        "last_output": "out\n",
        "last_error": "err\n",
        "max_retries": 0,
        "retry_count": 0,
        "timeout_sec": 9,
        "cancel_flag": False,
        "run_id": item["run_id"],
    }
    created, updated = (datetime.fromisoformat(item[f"{w}_time"]) for w in ("create", "update"))
    assert created.tzinfo is not None
    assert created <= updated
    (run,) = (await data(api, f"/api/dag/runs?run_id={item['run_id']}"))["items"]
    assert (run["source"], run["name"], run["total"]) == ("task", "first", 1)


async def test_numbers_count_up_and_the_newest_comes_first(api):
    numbers = [await shell(api, "true", name=f"n{i}") for i in range(3)]
    assert numbers == [1, 2, 3]
    status, answer = await api.get("/api/tasks")
    assert (status, answer["code"], answer["next_cursor"]) == (200, 0, None)
    assert [item["id"] for item in answer["data"]] == [3, 2, 1]


async def test_the_list_is_filtered_and_comes_in_pages(api):
    for name, cmd in (("alpha", "true"), ("ALPHABET", "false"), ("beta", "true")):
        await ended(api, await shell(api, cmd, name=name))
    assert [i["name"] for i in await data(api, "/api/tasks?name=Alpha")] == ["ALPHABET", "alpha"]
    assert [i["name"] for i in await data(api, "/api/tasks?status=failed")] == ["ALPHABET"]
    assert await data(api, "/api/tasks?status=failed&name=beta") == []
    _, first = await api.get("/api/tasks?limit=2")
    _, second = await api.get(f"/api/tasks?limit=2&cursor={first['next_cursor']}")
    assert [i["id"] for i in first["data"] + second["data"]] == [3, 2, 1]
    assert second["next_cursor"] is None


async def test_a_task_without_a_command_is_taken_and_fails_with_what_is_missing(api):
    for body in ({}, {"params": {}}, {"params": {"cmd": " "}, "max_retries": 5}):
        item = await ended(api, await create(api, **body))
        assert (item["status"], item["retry_count"], item["max_retries"]) == ("failed", 0, 0)
        assert "params.cmd" in item["last_error"]
        assert item["exit_code"] == -1


async def test_any_executor_can_be_named(api):
    params = {"exec_type": "local", "exec_command": "echo", "exec_params": {"message": "hi"}}
    item = await ended(api, await create(api, params=params))
    assert (item["status"], item["last_output"], item["params"]) == ("success", "hi\n", params)
    params = {"exec_command": "echo $X", "exec_params": {"env.X": "from env"}}
    item = await ended(api, await create(api, params=params))
    assert (item["status"], item["last_output"]) == ("success", "from env\n")


async def test_a_timeout_really_stops_the_process(api, tmp_path):
    pid_file = tmp_path / "pid"
    number = await shell(api, f"echo $$ > {pid_file}; sleep 60", timeout_sec=1)
    (pid,) = await written(pid_file)
    item = await ended(api, number)
    assert (item["status"], item["last_error"]) == ("timeout", "timed out after 1000 ms")
    assert item["cancel_flag"] is False
    assert not is_alive(pid)


async def test_a_cancel_really_stops_the_process_and_all_its_children(api, tmp_path):
    pids = tmp_path / "pids"
    command = f"(setsid sleep 60 & echo $! >> {pids}; wait) & echo $$ >> {pids}; wait"
    number = await shell(api, command, max_retries=3)
    found = await written(pids, 2)
    assert (await data(api, f"/api/tasks/{number}"))["status"] == "running"
    assert await api.post(f"/api/tasks/{number}/cancel") == (
        200,
        {"code": 0, "message": "ok", "data": None},
    )
    item = await ended(api, number)
    assert (item["status"], item["cancel_flag"], item["retry_count"]) == ("canceled", True, 0)
    assert item["last_error"] == "canceled"
    assert not any(map(is_alive, found))


async def test_a_task_that_succeeds_although_it_was_canceled_says_both(api, tmp_path):
    pid_file = tmp_path / "pid"
    command = f"trap 'exit 0' TERM; echo $$ > {pid_file}; while true; do sleep 0.05; done"
    number = await shell(api, command)
    await written(pid_file)
    await api.post(f"/api/tasks/{number}/cancel")
    item = await ended(api, number)
    assert (item["status"], item["exit_code"], item["cancel_flag"]) == ("success", 0, True)
    assert [i["cancel_flag"] for i in await data(api, "/api/tasks")] == [True]


async def test_a_waiting_task_is_canceled_before_it_starts(config, tmp_path):
    async with logged_in(config, running_attempts=1) as api:
        first = await shell(api, "sleep 60")
        second = await shell(api, f"touch {tmp_path / 'started'}")
        assert (await data(api, f"/api/tasks/{second}"))["status"] == "pending"
        await api.post(f"/api/tasks/{second}/cancel")
        item = await ended(api, second)
        assert (item["status"], item["cancel_flag"]) == ("canceled", True)
        await api.post(f"/api/tasks/{first}/cancel")
        await ended(api, first)
        assert not (tmp_path / "started").exists()


async def test_cancel_tells_what_is_not_there_from_what_is_over(api):
    number = await shell(api, "true")
    await ended(api, number)
    for path, status, code in ((f"{number}", 409, 1004), ("99", 404, 1003), ("x", 404, 1003)):
        answer = await api.post(f"/api/tasks/{path}/cancel")
        assert (answer[0], answer[1]["code"]) == (status, code)


async def test_a_number_that_no_task_has_is_not_found(api):
    await shell(api, "true")
    for number in ("0", "2", "x", "-1", "1.0", "9" * 19, "9" * 40, "%31x", "%D9%A1", "%00"):
        status, answer = await api.get(f"/api/tasks/{number}")
        assert (status, answer["code"], answer["message"]) == (404, 404, "Task not found"), number


async def test_retries_are_made_and_counted(api):
    number = await shell(
        api, 'echo "try $TASKHUB_ATTEMPT"; [ $TASKHUB_ATTEMPT = 2 ]', max_retries=4
    )
    item = await ended(api, number)
    assert (item["status"], item["retry_count"], item["max_retries"]) == ("success", 1, 4)
    assert (item["last_output"], item["last_error"], item["exit_code"]) == ("try 2\n", "", 0)


async def test_a_long_output_ends_with_its_last_64_kib_cut_at_a_character(api):
    command = "head -c 300000 /dev/zero | tr '\\0' x; yes 漢字 | head -c 70000 >&2; printf end"
    item = await ended(api, await shell(api, command))
    assert item["last_output"] == "x" * (65536 - 3) + "end"
    error = item["last_error"].encode()
    assert 65533 <= len(error) <= 65536
    assert "\ufffd" not in item["last_error"][1:-1]


async def test_the_lines_are_found_under_the_number(api):
    number = await shell(api, "echo one; echo two")
    await ended(api, number)
    lines = (await data(api, f"/api/tasks/logs?task_id={number}"))["records"]
    assert [line["message"] for line in lines] == ["one", "two"]


async def test_the_same_key_gives_the_same_task_and_no_dag(api, tmp_path):
    mark = tmp_path / "mark"
    key = {"Idempotency-Key": "once"}
    calls = [shell(api, f"echo x >> {mark}", headers=key) for _ in range(5)]
    numbers = set(await asyncio.gather(*calls))
    numbers.add(await shell(api, f"echo x >> {mark}", headers=key))
    assert len(numbers) == 1
    (number,) = numbers
    await ended(api, number)
    assert read(mark) == ["x"]
    assert [item["id"] for item in await data(api, "/api/tasks")] == [number]
    dag = {"tasks": [{"id": "a", "exec_command": "noop"}]}
    status, _ = await api.post("/api/dag/run_async", dag, headers=key)
    assert status == 409
    await api.post("/api/dag/run", dag, headers={"Idempotency-Key": "dag"})
    status, _ = await api.post("/api/tasks", {"name": "t"}, headers={"Idempotency-Key": "dag"})
    assert status == 409


async def test_everything_wrong_is_told_at_once(api):
    body = {"nmae": "x", "type": 1.5, "timeout_sec": -1, "max_retries": 101, "params": {"cmd": 5}}
    status, answer = await api.post("/api/tasks", body)
    assert (status, answer["code"]) == (400, 1001)
    problems = {p["pointer"]: p["message"] for p in answer["problems"]}
    assert problems.keys() >= {
        "/nmae",
        "/name",
        "/type",
        "/timeout_sec",
        "/max_retries",
        "/params/cmd",
    }
    assert "did you mean 'name'" in problems["/nmae"]
    assert await data(api, "/api/tasks") == []


async def test_what_is_not_json_is_told_by_1002(api):
    for raw in ("", "{", '{"name": "a", "name": "b"}', '{"name": NaN}', "\xff", "[" * 100):
        status, answer = await api.call("POST", "/api/tasks", raw=raw)
        assert (status, answer["code"]) == (400, 1002), raw


async def test_a_run_of_a_dag_is_no_task(api):
    await api.run({"id": "1", "exec_command": "noop"})
    assert await data(api, "/api/tasks") == []
    status, _ = await api.get("/api/tasks/1")
    assert status == 404


@asynccontextmanager
async def logged_in(config, **limits):
    """A server of its own that waits for nothing when it stops, and a client of it."""
    limited = replace(
        config,
        limits=replace(config.limits, **limits),
        shutdown=replace(config.shutdown, grace_s=0),
    )
    async with serve(limited) as server:
        api = Api(server.url, server)
        _, answer = await api.post("/api/login", {"username": "admin", "password": "123456"})
        api.token = answer["data"]["token"]
        yield api


class Listener:
    """A socket that hears of tasks."""

    def __init__(self, client):
        self.client = client
        self.heard = []

    @classmethod
    async def connect(cls, api, **more):
        client = await Client.connect(int(api.url.rsplit(":", 1)[1]), **more)
        client.send({"token": api.token})
        assert await client.recv() == {"type": "authed"}
        return cls(client)

    async def next(self):
        message = await asyncio.wait_for(self.client.recv(), 20)
        self.heard.append(message)
        return message

    async def until_final(self, *numbers):
        """Read until all of these tasks are seen to have ended."""
        left = set(numbers)
        while left:
            message = await self.next()
            assert isinstance(message, dict), message
            if message["data"]["status"] in FINAL:
                left.discard(message["data"]["id"])

    async def aclose(self):
        await self.client.close()


async def test_every_socket_hears_how_a_task_begins_goes_on_and_ends(api):
    async with (
        aclosing(await Listener.connect(api)) as one,
        aclosing(await Listener.connect(api)) as two,
    ):
        number = await shell(api, "echo hi; sleep 0.3", name="told")
        for listener in (one, two):
            await listener.until_final(number)
            assert listener.heard[0]["event"] == "task_created"
            assert {m["event"] for m in listener.heard[1:]} == {"task_updated"}
            words = [m["data"]["status"] for m in listener.heard]
            assert list(dict.fromkeys(words))[-2:] == ["running", "success"]
            assert listener.heard[-1]["data"] == await data(api, f"/api/tasks/{number}")


async def test_a_socket_without_a_token_hears_nothing(api):
    port = int(api.url.rsplit(":", 1)[1])
    silent = await Client.connect(port)
    async with aclosing(await Listener.connect(api)) as listener:
        await listener.until_final(await shell(api, "true"))
    silent.send({"token": "wrong"})
    assert await silent.recv() == (1008, "unauthorized")
    await silent.close()


async def test_a_cancel_is_told_before_its_end(api, tmp_path):
    async with aclosing(await Listener.connect(api)) as listener:
        trap = f"trap 'sleep 0.3; exit 1' TERM; echo $$ > {tmp_path / 'pid'}"
        number = await shell(api, f"{trap}; while :; do sleep 0.05; done")
        await written(tmp_path / "pid")
        await api.post(f"/api/tasks/{number}/cancel")
        await listener.until_final(number)
        states = [(m["data"]["status"], m["data"]["cancel_flag"]) for m in listener.heard]
        assert states[-2:] == [("running", True), ("canceled", True)]


async def test_a_burst_of_tasks_reaches_a_reader_that_keeps_up(api):
    async with aclosing(await Listener.connect(api)) as listener:
        bodies = [create(api, f"b{i}", params=LOCAL) for i in range(1000)]
        reading = asyncio.create_task(listener.until_final(*range(1, 1001)))
        numbers = await asyncio.gather(*bodies)
        await reading
        assert sorted(numbers) == list(range(1, 1001))


async def test_a_reader_that_stops_reading_for_a_while_still_hears_every_end(api):
    async with aclosing(await Listener.connect(api, receive_buffer=4096)) as listener:
        numbers = await asyncio.gather(*(create(api, f"b{i}", params=LOCAL) for i in range(300)))
        for number in numbers:
            await ended(api, number)
        await listener.until_final(*numbers)


async def test_tasks_go_on_and_are_told_of_after_a_restart(config, tmp_path):
    go, started = tmp_path / "go", tmp_path / "started"
    async with logged_in(config, running_attempts=1) as api:
        await shell(api, f"echo 1 > {started}; sleep 60", name="lost")
        waiting = await shell(api, f"until [ -e {go} ]; do sleep 0.05; done")
        await written(started)
    async with logged_in(config) as api:
        async with aclosing(await Listener.connect(api)) as listener:
            go.touch()
            await listener.until_final(waiting)
            assert {m["event"] for m in listener.heard} == {"task_updated"}
        after = await shell(api, "true")
        assert after > waiting
        lost = await data(api, "/api/tasks?name=lost")
        assert lost[0]["last_error"].startswith("lost:")
        await ended(api, after)


async def test_secrets_in_params_are_masked_in_answers_and_on_sockets(api):
    params = {
        "exec_type": "Shell",
        "exec_command": 'test "$API_KEY" = hunter2 && echo same',
        "exec_params": {"env.API_KEY": "hunter2"},
        "password": "hunter2",
    }
    _, answer = await api.post("/api/tasks", {"name": "masked", "params": params})
    item = await ended(api, answer["data"]["id"])
    assert item["last_output"] == "same\n", "the task itself gets the value"
    assert item["params"]["password"] == item["params"]["exec_params"]["env.API_KEY"] == "***"
    for path in ("/api/tasks", f"/api/dag/runs/{item['run_id']}", "/api/dag/task_runs"):
        assert "hunter2" not in str(await api.get(path)).replace(params["exec_command"], "")
