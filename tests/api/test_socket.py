from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from itertools import count

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from taskhub.adapters.memory import MemoryStores
from taskhub.adapters.systemclock import SystemClock
from taskhub.domain.event import Event, EventName
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.engine.bus import Bus
from taskhub.ports.accounts import Account
from taskhub.ports.store import Batch
from taskhub.services.live import LiveHub, LiveLimits
from taskhub.services.tokens import Tokens
from taskhub.web.frames import Frames
from taskhub.web.socket import SocketSettings, TaskHubSocket
from tests.access import KEY, access
from tests.api.socket_client import BINARY, PING, PONG, Client, Refused

ACCOUNT = Account(username="ann", password_hash="", role="viewer")
UNAUTHORIZED = (1008, "unauthorized")
SLOW = (1013, "too many pending messages")


class Server:
    """The socket alone, with a bus that the test publishes on."""

    def __init__(self, limits: LiveLimits, settings: SocketSettings) -> None:
        self.clock = SystemClock()
        self.stores = MemoryStores()
        self.bus = Bus()
        self.hub = LiveHub(self.bus, self.stores.logs, self.stores.runs, self.clock, limits)
        self.people = access(self.clock, self.stores.accounts)
        self.auth = self.people.auth
        needs = {"hub": self.hub, "auth": self.auth, "frames": Frames(), "settings": settings}
        self.http = HTTPServer(Application([(r"/.*", TaskHubSocket, needs)]))
        (sock,) = bind_sockets(0, "127.0.0.1")
        self.port = sock.getsockname()[1]
        self.http.add_socket(sock)
        self.token = self.token_for(3600)
        self.clients: list[Client] = []
        self.last: dict[tuple[str, str], int] = {}
        self._ids = count(1)

    def token_for(self, seconds: float) -> str:
        return Tokens(KEY, self.clock, int(seconds * 1000)).issue(ACCOUNT)

    async def connect(self, **more) -> Client:
        client = await Client.connect(self.port, **more)
        self.clients.append(client)
        return client

    async def login(self, *commands, **more) -> Client:
        """Return a client that is authenticated, its commands sent and obeyed."""
        client = await self.connect(**more)
        client.send({"token": self.token})
        assert await client.recv() == {"type": "authed"}
        for command in commands:
            client.send(command)
        if commands:
            client.send({"op": "ping"})
            assert await client.recv() == {"type": "pong"}
        return client

    async def print(self, task_id, *lines, run_id="r1") -> None:
        first = self.last.get((task_id, run_id), 0) + 1
        self.last[task_id, run_id] = first + len(lines) - 1
        segment = LogSegment(
            attempt=1, stream=Stream.STDOUT, level=Level.INFO, ts_ms=5, duration_ms=2, lines=lines
        )
        chunk = LogChunk(
            id=next(self._ids),
            run_id=run_id,
            task_id=task_id,
            first_seq=first,
            count=len(lines),
            size=sum(map(len, lines)),
            ts_ms=5,
            segments=(segment,),
        )
        await self.stores.logs.append([chunk])
        self.bus.logs.publish(chunk)

    async def happen(self, seq, task_id="t1") -> None:
        event = Event(next(self._ids), "r1", seq, 5, EventName.TASK_START, task_id, {"n": seq})
        await self.stores.runs.commit(Batch(events=[event]))
        self.bus.events.publish(event)

    async def until(self, condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await self.clock.sleep(0.005)

    @property
    def is_clean(self) -> bool:
        buses = self.bus.logs._subscribers, self.bus.events._subscribers
        return self.hub.sessions == 0 and not any(buses) and not self.auth._subscribers

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        self.http.stop()
        await self.until(lambda: self.is_clean)
        await self.http.close_all_connections()
        self.people.close()


@asynccontextmanager
async def serving(settings: SocketSettings | None = None, **limits):
    defaults = SocketSettings(auth_timeout_s=5, abort_s=0.1)
    server = Server(LiveLimits(**limits), settings or defaults)
    await server.stores.accounts.restore([ACCOUNT], [], {})
    await server.auth.start()
    try:
        yield server
    finally:
        await server.close()


@pytest.fixture
async def server():
    async with serving() as server:
        yield server


def watch(task_id="t1", run_id="r1", topic="task_logs", **more):
    return {"op": "subscribe", "topic": topic, "task_id": task_id, "run_id": run_id} | more


async def messages(client, how_many):
    async with asyncio.timeout(20):
        return [await client.recv() for _ in range(how_many)]


async def seqs(client, how_many):
    return [message["seq"] for message in await messages(client, how_many)]


@pytest.mark.parametrize(
    "first",
    [
        {"op": "ping"},
        {"token": "wrong"},
        {"token": 5},
        {"token": None},
        [],
        "{",
        "",
        '{"token": "a", "token": "b"}',
        "[" * 60_000,
    ],
)
async def test_whoever_does_not_begin_with_a_good_token_hears_nothing_else(server, first):
    client = await server.connect()
    client.send(first)
    assert await client.recv() == UNAUTHORIZED
    assert server.hub.sessions == 0


async def test_a_binary_first_message_is_no_token(server):
    client = await server.connect()
    client.send(json.dumps({"token": server.token}).encode(), BINARY)
    assert await client.recv() == UNAUTHORIZED


async def test_who_says_nothing_is_closed_in_time():
    async with serving(SocketSettings(auth_timeout_s=0.05)) as server:
        client = await server.connect()
        server.hub.broadcast({"event": "debug"})
        assert await client.recv() == UNAUTHORIZED


async def test_who_is_authenticated_outlives_that_time():
    async with serving(SocketSettings(auth_timeout_s=0.05)) as server:
        client, silent = await server.login(), await server.connect()
        assert await silent.recv() == UNAUTHORIZED
        client.send({"op": "ping"})
        assert await client.recv() == {"type": "pong"}


async def test_10_mb_are_refused_before_they_are_received(server):
    client = await server.login()
    client.writer.write(b"\x81\xff" + (10 << 20).to_bytes(8, "big"))
    assert await client.recv() == (1009, "message too big")
    assert await client.is_over()


async def test_10_mb_that_are_sent_all_the_same_end_the_connection(server):
    client = await server.connect()
    client.send("x" * (10 << 20))
    assert await client.is_over()
    await server.until(lambda: server.is_clean)


async def test_the_first_message_may_be_a_command_and_then_only_that_is_answered(server):
    client = await server.connect()
    client.send(watch() | {"token": server.token})
    await server.until(lambda: server.bus.logs._subscribers)
    await server.print("t1", 'say "hi"')
    assert await client.recv() == {
        "type": "log",
        "task_id": "t1",
        "run_id": "r1",
        "seq": 1,
        "ts_ms": 5,
        "level": 1,
        "stream": 1,
        "message": 'say "hi"',
        "duration_ms": 2,
        "attempt": 1,
        "fields": {},
    }


async def test_words_may_be_numbers(server):
    client = await server.login(
        {"op": 0, "topic": 1, "task_id": "t1"}, {"op": 0, "topic": 0, "task_id": "t1"}
    )
    await server.happen(1)
    await server.print("t1", "x")
    assert [m["type"] for m in await messages(client, 2)] == ["event", "log"]
    client.send({"op": 2})
    assert await client.recv() == {"type": "pong"}


async def test_a_token_in_every_message_is_what_the_original_wants(server):
    client = await server.login()
    for token in (server.token, server.token_for(100), None):
        client.send({"op": "ping", "token": token})
        assert await client.recv() == {"type": "pong"}


async def test_a_bad_token_in_a_later_message_closes(server):
    client = await server.login()
    client.send({"op": "ping", "token": "wrong"})
    assert await client.recv() == UNAUTHORIZED


@pytest.mark.parametrize("with_auth", [True, False])
async def test_the_31st_command_in_10_seconds_closes(server, with_auth):
    client = await server.login() if with_auth else await server.connect()
    for _ in range(31):
        client.send({"op": "ping", "token": server.token})
    assert await messages(client, 30) == [{"type": "pong"}] * 30
    assert await client.recv() == (1008, "rate limit")


async def test_commands_of_long_ago_do_not_count():
    async with serving(SocketSettings(commands=2, window_s=0.05)) as server:
        client = await server.login()
        for _ in range(3):
            client.send({"op": "ping"})
            client.send({"op": "ping"})
            assert await messages(client, 2) == [{"type": "pong"}] * 2
            await server.clock.sleep(0.06)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"op": NaN}', "NaN"),
        ({}, "op:"),
        ({"op": "explode"}, "op:"),
        ({"op": True}, "op:"),
        ({"op": 3}, "op:"),
        ({"op": ["ping"]}, "op:"),
        ({"op": "subscribe", "task_id": "t"}, "topic:"),
        (watch(topic="task_secrets"), "topic:"),
        (watch(topic=2), "topic:"),
        (watch(task_id=5), "task_id:"),
        (watch(task_id="a b"), "task_id:"),
        (watch(task_id="x\n"), "task_id:"),
        (watch(task_id="../x"), "task_id:"),
        (watch(run_id={}), "run_id:"),
        (watch(task_id="", run_id=""), "task_id:"),
        (watch(task_id=None, run_id=None), "task_id:"),
        ({"op": "subscribe", "topic": 0, "task_ids": []}, "task_ids:"),
        ({"op": "subscribe", "topic": 0, "task_ids": ["a", 1]}, "task_ids:"),
        ({"op": "subscribe", "topic": 0, "task_ids": "ab"}, "task_ids:"),
        (watch(task_ids=["a"]), "task_ids:"),
        ({"op": "subscribe", "topic": 0, "task_ids": [f"t{i}" for i in range(201)]}, "too many"),
        (watch(**{"from": 0}), "from:"),
        (watch(**{"from": "1"}), "from:"),
        (watch(**{"from": True}), "from:"),
        (watch(**{"from": 1 << 70}), "64 bits"),
        (watch(run_id="", **{"from": 1}), "from:"),
        (watch(ack=1), "ack:"),
    ],
)
async def test_a_bad_command_gets_an_error_and_the_connection_stays(server, command, words):
    client = await server.login()
    client.send(command)
    answer = await client.recv()
    assert (answer["type"], words in answer["message"]) == ("error", True), answer
    client.send({"op": "ping"})
    assert await client.recv() == {"type": "pong"}


async def test_a_binary_command_gets_an_error(server):
    client = await server.login()
    client.send(b'{"op":"ping"}', BINARY)
    assert await client.recv() == {"type": "error", "message": "a message must be text"}


async def test_a_first_message_with_a_good_token_and_a_bad_command_gets_an_error(server):
    client = await server.connect()
    client.send({"token": server.token, "op": "explode"})
    assert (await client.recv())["type"] == "error"


async def test_one_subscribe_may_name_many_tasks_and_is_acknowledged_for_each(server):
    client = await server.login()
    ids = {"task_ids": ["a", "b", "a"], "ack": True, "run_id": None}
    client.send({"op": "subscribe", "topic": "task_logs"} | ids)
    assert await messages(client, 2) == [
        {"type": "subscribed", "topic": "task_logs", "task_id": t, "run_id": ""} for t in "ab"
    ]
    for task in "abc":
        await server.print(task, "x")
    assert [m["task_id"] for m in await messages(client, 2)] == ["a", "b"]


async def test_unsubscribe_ends_it(server):
    client = await server.login(watch())
    await server.print("t1", "one")
    client.send(watch() | {"op": "unsubscribe"})
    client.send({"op": "ping"})
    assert [m["type"] for m in await messages(client, 2)] == ["log", "pong"]
    await server.print("t1", "two")
    client.send({"op": "ping"})
    assert await client.recv() == {"type": "pong"}


async def test_a_whole_run_is_watched_without_a_task(server):
    client = await server.login(watch(task_id=""), watch(task_id="", topic="task_events"))
    await server.print("a", "x")
    await server.happen(1, task_id="")
    await server.print("b", "y")
    await server.print("b", "z", run_id="r2")
    await server.happen(2, task_id="b")
    got = await messages(client, 4)
    assert [(m["type"], m["task_id"]) for m in got] == [
        ("log", "a"),
        ("event", ""),
        ("log", "b"),
        ("event", "b"),
    ]


async def test_an_event_has_the_seeds_form_and_a_number_only_in_a_replay(server):
    await server.happen(1)
    plain = await server.login(watch(topic="task_events"))
    numbered = await server.login()
    numbered.send(watch(topic="task_events", **{"from": 1}))
    assert (await numbered.recv())["seq"] == 1
    await server.happen(2)
    event = {
        "type": "event",
        "task_id": "t1",
        "run_id": "r1",
        "event": "task_start",
        "ts_ms": 5,
        "extra": {"n": 2},
    }
    assert await plain.recv() == event
    assert await numbered.recv() == event | {"seq": 2}


async def test_a_socket_resumes_where_it_left_off(server):
    first = await server.login(watch())
    await server.print("t1", "1", "2", "3")
    assert await seqs(first, 3) == [1, 2, 3]
    await first.close()
    await server.print("t1", "4", "5")
    second = await server.login()
    second.send(watch(ack=True, **{"from": 4}))
    assert (await second.recv())["type"] == "subscribed"
    assert await seqs(second, 2) == [4, 5]
    await server.print("t1", "6")
    assert await seqs(second, 1) == [6]


async def test_replay_goes_over_into_live_without_gap_or_repeat(server):
    for _ in range(100):
        await server.print("t1", *["before"] * 50)
    client = await server.login()
    client.send(watch(**{"from": 1}))

    async def go_on() -> None:
        for _ in range(100):
            await server.print("t1", *["meanwhile"] * 50)
            await asyncio.sleep(0)

    going_on = asyncio.create_task(go_on(), name="printing")
    assert await seqs(client, 10_000) == list(range(1, 10_001))
    await going_on


async def test_a_fast_producer_costs_a_reading_client_nothing(server):
    client = await server.login(watch())
    for _ in range(200):
        await server.print("t1", *["x" * 80] * 500)
    assert await seqs(client, 100_000) == list(range(1, 100_001))


async def test_a_client_that_stops_reading_for_a_while_misses_nothing():
    async with serving(stall_s=30) as server:
        client = await server.login(watch(), receive_buffer=4096)
        (socket,) = server.hub._sessions
        for _ in range(300):
            await server.print("t1", *["x" * 100] * 200)
            await asyncio.sleep(0)
            assert socket._sink._outbox.all.bytes < 3 << 20
        assert socket._sink._outbox.all.messages > 0, "it did fall behind"
        assert await seqs(client, 60_000) == list(range(1, 60_001))


@pytest.mark.parametrize("run_id", ["r1", ""])
async def test_who_never_reads_is_closed_and_others_do_not_notice(run_id):
    async with serving(SocketSettings(abort_s=0.05), stall_s=0.2) as server:
        lazy = await server.login(watch(run_id=run_id), receive_buffer=4096)
        others = [await server.login(watch()) for _ in range(3)]
        for i in range(100):
            await server.print("t1", *["x" * 100] * 100)
            for other in others:
                assert await seqs(other, 100) == list(range(100 * i + 1, 100 * i + 101))
        await server.until(lambda: server.hub.sessions == 3)
        assert await lazy.is_over()
        assert [key for key in server.bus.logs._subscribers if key == ("t1", "")] == []


async def test_who_is_slow_but_never_stops_reading_is_not_closed():
    async with serving(stall_s=0.2) as server:
        client = await server.login(watch(), receive_buffer=4096)
        for _ in range(10):
            await server.print("t1", *["x" * 1000] * 200)
        (session,) = server.hub._sessions
        for _ in range(30):  # 60 KB in 0.9 s: less than one block, and four times the stall
            await client.reader.readexactly(2000)
            await server.clock.sleep(0.03)
        assert session._sink._outbox.all.messages > 0, "it is slow"
        assert server.hub.sessions == 1


async def test_who_is_too_slow_is_told_so_at_the_next_frame(server):
    client = await server.login(watch(run_id=""), receive_buffer=4096)
    while server.hub.sessions:
        await server.print("t1", *["x" * 1000] * 600)
        await asyncio.sleep(0)
    got = []
    while not isinstance(message := await client.recv(), tuple):
        got.append(message["seq"])
    assert message == SLOW
    assert got == list(range(1, len(got) + 1)), "whole frames, from the beginning"


async def test_closing_waits_for_nobody():
    async with serving(SocketSettings(abort_s=0.05), stall_s=60) as server:
        client = await server.login(watch(), receive_buffer=4096)
        for _ in range(30):
            await server.print("t1", *["x" * 1000] * 200)
        server.hub.close()
        assert server.is_clean
        await server.until(lambda: not server.http._connections)
        assert await client.is_over()


async def test_commands_after_the_close_frame_are_not_obeyed():
    async with serving(SocketSettings(abort_s=5)) as server:
        client = await server.login()
        server.hub.close()
        assert await client.recv() == (1001, "server stopping")
        client.send(watch())
        client.send({"token": server.token, "op": "explode"})
        client.send((1001).to_bytes(2, "big"), 8)
        assert await client.reader.read() == b""
        assert server.is_clean


async def test_when_the_server_stops_clients_are_told(server):
    client = await server.login()
    server.hub.close()
    assert await client.recv() == (1001, "server stopping")


@pytest.mark.parametrize("is_polite", [True, False])
async def test_who_leaves_leaves_nothing_behind(server, is_polite):
    client = await server.login(watch(), watch(task_id="", topic="task_events", **{"from": 1}))
    if is_polite:
        client.send((1000).to_bytes(2, "big"), 8)
        assert await client.recv() == (1000, "")
    await client.close()
    await server.until(lambda: server.is_clean)


async def test_an_expired_token_closes(server):
    client = await server.connect()
    client.send({"token": server.token_for(2)})
    assert await client.recv() == {"type": "authed"}
    assert await client.recv() == UNAUTHORIZED


async def test_a_newer_token_keeps_the_connection(server):
    client = await server.connect()
    client.send({"token": server.token_for(1.5)})
    other = await server.connect()
    other.send({"token": server.token_for(1.5)})
    client.send({"op": "ping", "token": server.token})
    assert await messages(client, 2) == [{"type": "authed"}, {"type": "pong"}]
    assert await messages(other, 2) == [{"type": "authed"}, UNAUTHORIZED]
    client.send({"op": "ping"})
    assert await client.recv() == {"type": "pong"}


async def test_a_revoked_token_closes_at_once_and_no_other(server):
    client, same = await server.login(), await server.login()
    other = await server.connect()
    other.send({"token": server.token_for(100)})
    await server.auth.logout(server.token)
    assert await client.recv() == UNAUTHORIZED
    assert await same.recv() == UNAUTHORIZED
    assert await other.recv() == {"type": "authed"}
    other.send({"op": "ping"})
    assert await other.recv() == {"type": "pong"}


async def test_a_changed_account_closes_all_that_are_its(server):
    client = await server.login()
    await server.people.change("ann", disabled=True)
    assert await client.recv() == UNAUTHORIZED


async def test_a_broadcast_goes_to_everybody_who_is_known(server):
    client, stranger = await server.login(), await server.connect()
    server.hub.broadcast({"event": "debug", "data": {"msg": "hello from TaskHub WS"}})
    debug = {"event": "debug", "data": {"msg": "hello from TaskHub WS"}}
    assert await client.recv() == debug
    stranger.send({"token": server.token})
    assert await stranger.recv() == {"type": "authed"}


async def test_a_socket_too_many_is_told_to_come_later():
    async with serving(sockets=1) as server:
        await server.login()
        client = await server.connect()
        assert await client.recv() == (1013, "too many sockets")


async def test_a_plain_request_gets_the_envelope(server):
    with pytest.raises(Refused) as caught:
        await server.connect(Upgrade="")
    message = 'Can "Upgrade" only to "WebSocket".'
    assert caught.value.body == {
        "ok": False,
        "code": 400,
        "message": message,
        "error": message,
        "data": None,
    }


async def test_nothing_is_compressed(server):
    client = await server.connect(Sec_WebSocket_Extensions="permessage-deflate")
    assert "extensions" not in client.head.lower()


async def test_any_path_will_do(server):
    await server.login(path="/anything/at/all")


async def test_pings_in_the_middle_of_much_tear_no_frame(server):
    client = await server.login(watch(), receive_buffer=4096)
    for _ in range(20):
        await server.print("t1", *["x" * 700] * 100)
        client.send(b"are you there", PING)
        await asyncio.sleep(0)
    seen, pongs = [], 0
    async with asyncio.timeout(20):
        while len(seen) < 2000:
            opcode, payload = await client.frame()
            if opcode == PONG:
                pongs += 1
            else:
                seen.append(json.loads(payload)["seq"])
    assert seen == list(range(1, 2001))
    assert pongs >= 1


async def test_a_dead_peer_is_found_by_ping():
    async with serving(SocketSettings(ping_s=0.05, abort_s=0.05)) as server:
        client = await server.login()
        opcode, _ = await client.frame()
        assert opcode == PING
        await client.close()
        await server.until(lambda: server.is_clean)
