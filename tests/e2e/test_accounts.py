"""Commands beside a running server: what they change is known there soon.

That soon is within a second is a claim about `RosterWatch`, whose tests have a clock to show it.
"""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.api.socket_client import Client
from tests.e2e.daemon import ROOT, Daemon

PASSWORD = "a good one"
UNAUTHORIZED = (1008, "unauthorized")


class Installation:
    """A server and the commands beside it, on one data directory."""

    def __init__(self, data_dir, server):
        self.data_dir = data_dir
        self.server = server
        self.sockets = []

    async def command(self, *words, typed=""):
        """Run a command that must succeed; return its stdout."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taskhub", *words, "--data-dir", str(self.data_dir)),
            cwd=ROOT,
            env=dict(os.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(typed.encode())
        assert process.returncode == 0, err
        return out.decode().strip()

    async def login(self, name):
        admin, self.server.token = self.server.token, ""
        body = {"username": name, "password": PASSWORD}
        _, answer = await self.server.post("/api/login", body)
        self.server.token = admin
        return answer["data"]["token"]

    async def status(self, token):
        admin, self.server.token = self.server.token, token
        status, _ = await self.server.get("/api/me")
        self.server.token = admin
        return status

    async def socket(self, token):
        """Return a socket that is authenticated."""
        socket = await Client.connect(int(self.server.url.rpartition(":")[2]))
        self.sockets.append(socket)
        socket.send({"token": token})
        assert await socket.recv() == {"type": "authed"}
        return socket


@pytest.fixture
async def here(tmp_path):
    server = await Daemon.start(tmp_path / "data")
    here = Installation(tmp_path / "data", server)
    yield here
    for socket in here.sockets:
        await socket.close()
    assert await server.stop() == 0


@pytest.mark.parametrize(
    ("words", "typed", "ends_machine"),
    [
        (("user", "disable", "ann"), "", True),
        (("user", "remove", "ann"), "", True),
        (("user", "role", "ann", "viewer"), "", True),
        (("user", "passwd", "ann"), "another one", False),
    ],
    ids=["disabled", "removed", "another role", "another password"],
)
async def test_a_command_ends_requests_and_sockets_soon(here, words, typed, ends_machine):
    await here.command("user", "add", "ann", "--role", "operator", typed=PASSWORD)
    login, machine = (
        await here.login("ann"),
        await here.command("token", "add", "ann", "--name", "ci"),
    )
    assert [await here.status(token) for token in (login, machine)] == [200, 200]
    sockets = [await here.socket(token) for token in (login, machine)]
    await here.command(*words, typed=typed)
    assert await sockets[0].recv() == UNAUTHORIZED
    assert await here.status(login) == 401
    if ends_machine:
        assert await sockets[1].recv() == UNAUTHORIZED
    else:
        assert await here.status(machine) == 200
        sockets[1].send({"op": "ping"})
        assert await sockets[1].recv() == {"type": "pong"}


async def test_a_revoked_token_ends_soon_and_no_other(here):
    first = await here.command("token", "add", "admin", "--name", "a")
    second = await here.command("token", "add", "admin", "--name", "b")
    ending, staying = await here.socket(first), await here.socket(second)
    await here.command("token", "revoke", first.split("_")[1])
    assert await ending.recv() == UNAUTHORIZED
    assert await here.status(first) == 401
    assert await here.status(second) == 200
    staying.send({"op": "ping"})
    assert await staying.recv() == {"type": "pong"}


async def test_what_commands_did_is_in_the_audit_of_the_server(here):
    await here.command("user", "add", "ann", typed=PASSWORD)
    await here.command("user", "disable", "ann")
    _, answer = await here.server.get("/api/audit?target=ann")
    told = [(item["action"], item["actor"][:4]) for item in answer["data"]["items"]]
    assert told == [("user.change", "cli:"), ("user.add", "cli:")]
