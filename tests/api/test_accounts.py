"""Users, tokens and the audit of a real server, changed by itself and by another process."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import pytest

from taskhub.adapters.sqlite import open_sqlite_accounts
from taskhub.services.accounts import Accounts
from taskhub.services.audit_log import AuditLog
from taskhub.services.origin import Origin
from taskhub.services.passwords import Passwords
from taskhub.services.roles import Role
from taskhub.testing.clock import FakeClock
from tests.api.client import data, ended
from tests.api.socket_client import Client

CLI = Origin("cli:me")
PASSWORD = "good enough"
SECONDS = 10
"""The server looks twice a second; this only ends a test that hangs."""


async def login(api, name, password=PASSWORD):
    body = {"username": name, "password": password}
    status, answer = await api.post("/api/login", body, headers={"Authorization": ""})
    assert status == 200, answer
    return answer["data"]["token"]


@asynccontextmanager
async def beside(config):
    """Open the accounts as another process would, while the server runs."""
    passwords = Passwords(log_n=4)
    async with open_sqlite_accounts(config.server.data_dir) as stores:
        clock = FakeClock()
        audit = AuditLog(stores.audit, clock)
        yield Accounts(stores.accounts, clock, passwords, audit)
    passwords.close()


@pytest.fixture
async def other(api, config):
    """Another process, with the user bob in place."""
    async with beside(config) as accounts:
        await accounts.create("bob", PASSWORD, Role.OPERATOR, CLI)
        yield accounts


async def connected(api, token):
    client = await Client.connect(int(api.url.rpartition(":")[2]))
    client.send({"token": token})
    assert await client.recv() == {"type": "authed"}
    return client


@asynccontextmanager
async def sockets(api, *tokens):
    clients = [await connected(api, token) for token in tokens]
    yield clients
    for client in clients:
        await client.close()


async def is_put_out(client):
    async with asyncio.timeout(SECONDS):
        return await client.recv() == (1008, "unauthorized")


async def is_in(client):
    client.send({"op": "ping"})
    return await client.recv() == {"type": "pong"}


CHANGES = {
    "disabled": lambda a, t: a.change("bob", disabled=True, origin=CLI),
    "removed": lambda a, t: a.remove("bob", CLI),
    "demoted": lambda a, t: a.change("bob", role=Role.VIEWER, origin=CLI),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_another_process_does_to_a_user_ends_sockets_and_requests(api, other, change):
    token, text = await other.add_token("bob", "ci", None, None, CLI)
    session = await login(api, "bob")
    async with sockets(api, session, text, api.token) as (by_login, by_token, admin):
        await change(other, token)
        assert await is_put_out(by_login)
        assert await is_put_out(by_token)
        assert await is_in(admin)
    assert (await api.get("/api/me", headers={"Authorization": f"Bearer {session}"}))[0] == 401


async def test_a_new_password_ends_logins_and_no_api_token(api, other):
    _, text = await other.add_token("bob", "ci", None, None, CLI)
    async with sockets(api, await login(api, "bob"), text) as (by_login, by_token):
        await other.change("bob", password="another one", origin=CLI)
        assert await is_put_out(by_login)
        assert await is_in(by_token)


async def test_a_revoked_api_token_ends_alone(api, other):
    one, text = await other.add_token("bob", "ci", None, None, CLI)
    _, second = await other.add_token("bob", "ci", None, None, CLI)
    async with sockets(api, text, second) as (client, kept):
        await other.remove_token(one.id, CLI)
        assert await is_put_out(client)
        assert await is_in(kept)
    assert (await api.get("/api/me", headers={"Authorization": f"Bearer {text}"}))[0] == 401


async def test_what_the_server_itself_changes_counts_at_once(api, other):
    token = await login(api, "bob")
    async with sockets(api, token) as (client,):
        assert (await api.post("/api/users/bob", {"disabled": True}))[0] == 200
        headers = {"Authorization": f"Bearer {token}"}
        assert (await api.get("/api/me", headers=headers))[0] == 401
        assert await is_put_out(client)


async def test_both_see_what_the_other_made(api, other):
    body = {"username": "ann", "password": PASSWORD, "role": "viewer"}
    assert (await api.post("/api/users", body))[0] == 200
    assert [each.username for each in await other.all()] == ["admin", "ann", "bob"]
    users = (await data(api, "/api/users"))["items"]
    assert [each["username"] for each in users] == ["admin", "ann", "bob"]
    (entry,) = (await data(api, "/api/audit?actor=cli:me"))["items"]
    assert (entry["action"], entry["target"], entry["address"]) == ("user.add", "bob", "")


async def test_who_asked_for_a_run_is_stored_with_it(api, config):
    task = {"id": "a", "exec_command": "sleep", "exec_params": {"ms": 60_000}}
    run_id = await api.start(task, name="nightly")
    _, answer = await api.post("/api/tasks", {"name": "one", "type": 0, "params": {"cmd": "true"}})
    assert (await api.post(f"/api/dag/runs/{run_id}/cancel", {}))[0] == 200
    await ended(api, run_id)
    _, again = await api.post(f"/api/dag/runs/{run_id}/rerun", {"from": "start"})
    newest = (await data(api, "/api/audit?actor=admin&limit=4"))["items"]
    found = [(e["action"], e["target"] == run_id, e["address"], e["outcome"]) for e in newest]
    assert found == [
        ("run.rerun", False, "127.0.0.1", "ok"),
        ("run.cancel", True, "127.0.0.1", "ok"),
        ("task.submit", False, "127.0.0.1", "ok"),
        ("run.submit", True, "127.0.0.1", "ok"),
    ]
    assert newest[0]["target"] == again["data"]["run_id"]
    assert newest[2]["detail"]["task"] == answer["data"]["id"]
    await api.post(f"/api/dag/runs/{again['data']['run_id']}/cancel", {})


async def test_a_run_that_is_repeated_by_its_key_is_in_the_audit_once(api):
    body = {"tasks": [{"id": "a", "exec_command": "noop"}]}
    for _ in range(3):
        await api.post("/api/dag/run_async", body, headers={"Idempotency-Key": "k"})
    assert len((await data(api, "/api/audit?action=run.submit"))["items"]) == 1


async def test_what_was_refused_made_nothing_and_is_in_the_audit(api, other):
    await other.change("bob", role=Role.VIEWER, origin=CLI)
    token = await login(api, "bob")
    body = {"tasks": [{"id": "a", "exec_command": "noop"}]}
    headers = {"Authorization": f"Bearer {token}"}
    assert (await api.post("/api/dag/run_async", body, headers=headers))[0] == 403
    wrong = {"username": "bob", "password": "wrong one"}
    assert (await api.post("/api/login", wrong, headers={"Authorization": ""}))[0] == 401
    denied = (await data(api, "/api/audit?outcome=denied"))["items"]
    assert [(e["actor"], e["action"], e["target"]) for e in denied] == [
        ("", "login", "bob"),
        ("bob", "request", "POST /api/dag/run_async"),
    ]
    assert (await data(api, "/api/dag/runs"))["items"] == []


async def test_no_password_and_no_token_is_in_the_files(api, other, config):
    _, answer = await api.post("/api/tokens", {"name": "ci"})
    await login(api, "bob")
    secret = answer["data"]["token"].split("_", 2)[2]
    with sqlite3.connect(config.server.data_dir / "taskhub.db") as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert "ci" in dump
    assert secret not in dump
    assert PASSWORD not in dump
