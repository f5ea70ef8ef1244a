"""A client of a running server, for tests: logged in as admin, JSON in, (status, JSON) out.

Wire it in conftest.py:

    @pytest.fixture
    async def api(server) -> AsyncIterator[Api]:
        async with Api(server.url, password) as api:
            yield api
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

from tornado.httpclient import AsyncHTTPClient, HTTPResponse


class Api:
    """Calls one server; `headers` are sent with every request."""

    def __init__(self, url: str, password: str, username: str = "admin") -> None:
        self.url = url
        self.headers: dict[str, str] = {}
        self._credentials = {"username": username, "password": password}
        self._client = AsyncHTTPClient(force_instance=True, max_clients=100)

    async def __aenter__(self) -> Self:
        status, body = await self.post("/api/login", self._credentials)
        assert status == 200, body
        self.headers["Authorization"] = f"Bearer {body['data']['token']}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return answer(await self.send("GET", path, None, **headers))

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return answer(await self.send("POST", path, body, **headers))

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> HTTPResponse:
        """Send a request; `body` is JSON unless it is bytes, `_` in header names stands for -."""
        sent = {**self.headers, **{name.replace("_", "-"): v for name, v in headers.items()}}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._client.fetch(
            self.url + path,
            method=method,
            body=body,
            headers=sent,
            raise_error=False,
            allow_nonstandard_methods=True,
            request_timeout=60,
        )

    async def data(self, path: str) -> Any:
        """Return the data of a GET that must succeed."""
        status, body = await self.get(path)
        assert (status, body["code"]) == (200, 0), body
        return body["data"]

    async def ended(self, run_id: str) -> Any:
        """Return a run once it has ended."""
        async with asyncio.timeout(30):
            while True:
                data = await self.data(f"/api/dag/runs/{run_id}")
                if data["run"]["status"]:
                    return data
                await asyncio.sleep(0.01)


def answer(response: HTTPResponse) -> tuple[int, Any]:
    """Return status and body, which must be JSON whatever happened."""
    assert response.headers["Content-Type"] == "application/json", response.headers
    return response.code, json.loads(response.body)
