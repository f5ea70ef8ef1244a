"""A server with `auth.mode = "seed"`, as clients of the original find it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taskhub.bootstrap import serve
from taskhub.config import Server
from taskhub.errors import ConfigError
from tests.api.client import data
from tests.api.conftest import Api


@pytest.fixture
async def open_api(config):
    open_config = replace(config, dev=False, auth=replace(config.auth, mode="seed"))
    async with serve(open_config) as server:
        yield Api(server.url, server)


async def test_a_client_without_a_token_runs_a_dag_and_reads_about_it(open_api):
    run_id = await open_api.start({"id": "a", "exec_type": "Local", "exec_command": "noop"})
    (run,) = (await data(open_api, f"/api/dag/runs?run_id={run_id}"))["items"]
    assert run["owner"] == "anonymous"
    status, _ = await open_api.get(f"/api/dag/runs/{run_id}")
    assert status == 401


async def test_the_audit_knows_what_nobody_did(open_api, config):
    run_id = await open_api.start({"id": "a", "exec_type": "Local", "exec_command": "noop"})
    password = (config.server.data_dir / "admin-password").read_text().strip()
    login = {"username": "admin", "password": password}
    _, answer = await open_api.post("/api/login", login)
    open_api.token = answer["data"]["token"]
    (entry,) = (await data(open_api, "/api/audit?actor=anonymous"))["items"]
    assert (entry["action"], entry["target"]) == ("run.submit", run_id)
    assert entry["address"] == "127.0.0.1"


async def test_the_socket_asks_for_a_token_as_the_original_did(open_api):
    socket = await open_api.socket()
    await socket.write_message('{"op": "ping"}')
    assert await socket.read_message() is None
    assert socket.close_code == 1008
    socket.close()


async def test_it_does_not_start_where_others_can_reach_it(config):
    server = Server(host="0.0.0.0", port=0, data_dir=config.server.data_dir)
    config = replace(config, dev=False, server=server, auth=replace(config.auth, mode="seed"))
    with pytest.raises(ConfigError, match="not loopback"):
        async with serve(config):
            raise AssertionError("it started")
