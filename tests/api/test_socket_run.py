from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from taskhub.bootstrap import serve
from tests.api.client import ended
from tests.api.socket_client import Client, Refused


async def watch(api, run_id, topic):
    """Return the messages of a whole run, replayed from the first, until it ends."""
    socket = await api.socket()
    command = {"op": "subscribe", "topic": topic, "task_id": "", "run_id": run_id, "from": 1}
    await socket.write_message(json.dumps(command | {"token": api.token}))
    return socket


async def read(socket, is_last):
    got = []
    async with asyncio.timeout(30):
        while not got or not is_last(got[-1]):
            got.append(json.loads(await socket.read_message()))
    socket.close()
    return got


def shell(name, command, **more):
    return {"id": name, "exec_type": "Shell", "exec_command": command} | more


async def test_a_run_is_watched_while_it_runs_and_again_when_it_is_over(api):
    counting = "for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done"
    run_id = await api.start(shell("a", counting), shell("b", "echo last", deps=["a"]))
    live_lines = await watch(api, run_id, "task_logs")
    live_events = await watch(api, run_id, "task_events")
    lines = await read(live_lines, lambda m: m["message"] == "last")
    events = await read(live_events, lambda m: m["event"] == "run_end")
    await ended(api, run_id)
    assert [m["message"] for m in lines if m["stream"] == 1] == [
        *(f"line {i}" for i in range(1, 6)),
        "last",
    ]
    assert [m["seq"] for m in events] == list(range(1, len(events) + 1))
    assert events[0]["event"] == "run_start"
    replayed = await watch(api, run_id, "task_logs")
    assert await read(replayed, lambda m: m["message"] == "last") == lines
    replayed = await watch(api, run_id, "task_events")
    assert await read(replayed, lambda m: m["event"] == "run_end") == events


async def test_sockets_are_counted_and_hear_the_debug_broadcast(api):
    socket = await api.socket()
    await socket.write_message(json.dumps({"token": api.token}))
    assert json.loads(await socket.read_message()) == {"type": "authed"}
    _, stats = await api.get("/api/stats")
    assert stats["data"]["ws"] == {"sessions": 1}
    await api.get("/api/debug/broadcast")
    debug = {"event": "debug", "data": {"msg": "hello from TaskHub WS"}}
    assert json.loads(await socket.read_message()) == debug
    socket.close()


async def test_logout_closes_the_sockets_of_that_token(api):
    socket = await api.socket()
    await socket.write_message(json.dumps({"token": api.token}))
    await socket.read_message()
    await api.post("/api/logout")
    assert await socket.read_message() is None
    assert (socket.close_code, socket.close_reason) == (1008, "unauthorized")
    socket.close()


async def test_pages_of_other_sites_get_no_socket(api):
    port = urlsplit(api.url).port
    with pytest.raises(Refused) as caught:
        await Client.connect(port, Origin="http://evil.example")
    assert (caught.value.status, caught.value.body["ok"]) == (403, False)
    client = await Client.connect(port, Origin=f"http://127.0.0.1:{port}")
    await client.close()


async def test_a_page_behind_a_proxy_gets_one(config):
    server_settings = replace(config.server, allowed_hosts=("hub.example",))
    async with serve(replace(config, server=server_settings)) as server:
        client = await Client.connect(urlsplit(server.url).port, Origin="https://hub.example")
        await client.close()
