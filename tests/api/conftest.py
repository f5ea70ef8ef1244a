from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from taskhub.bootstrap import serve
from taskhub.config import Config


class Api:
    """A client of a real server, logged in as admin."""

    def __init__(self, url, server):
        self.url = url
        self.server = server
        self.token = ""

    async def call(self, method, path, body=None, *, raw=None, headers=None):
        """Return the status and the JSON of the answer; `raw` is sent as it is."""
        sent = {"Content-Type": "application/json"}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        data = raw if raw is not None else (json.dumps(body) if body is not None else None)
        if method == "POST" and data is None:
            data = ""
        request = HTTPRequest(
            self.url + path,
            method=method,
            headers=sent | (headers or {}),
            body=data,
            request_timeout=60,
        )
        response = await AsyncHTTPClient().fetch(request, raise_error=False)
        return response.code, json.loads(response.body)

    async def get(self, path, **more):
        return await self.call("GET", path, **more)

    async def post(self, path, body=None, **more):
        return await self.call("POST", path, body, **more)

    async def run(self, *tasks, **config):
        """Run a DAG to its end; return the answer."""
        status, answer = await self.post("/api/dag/run", {"tasks": tasks, "config": config})
        assert status == 200, answer
        return answer

    async def start(self, *tasks, **config):
        """Start a DAG; return its run_id."""
        status, answer = await self.post("/api/dag/run_async", {"tasks": tasks, "config": config})
        assert status == 200, answer
        return answer["data"]["run_id"]

    async def logs(self, run_id, task_id="a", limit=2000):
        _, answer = await self.get(
            f"/api/tasks/logs?task_id={task_id}&run_id={run_id}&limit={limit}"
        )
        return [record["message"] for record in answer["data"]["records"]]

    async def socket(self):
        return await websocket_connect(self.url.replace("http", "ws") + "/ws")


@pytest.fixture
def config(tmp_path):
    base = Config()
    return replace(base, dev=True, server=replace(base.server, port=0, data_dir=tmp_path / "data"))


@pytest.fixture
async def api(config):
    async with serve(config) as server:
        api = Api(server.url, server)
        _, answer = await api.post("/api/login", {"username": "admin", "password": "123456"})
        api.token = answer["data"]["token"]
        yield api
