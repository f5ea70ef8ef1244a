"""A real server process for tests: started on a free port, stopped by pid, killed on demand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

ROOT = Path(__file__).parents[2]


class Daemon:
    """`python -m taskhub --dev` on a data directory."""

    def __init__(self, process, url):
        self.process = process
        self.url = url
        self.token = ""

    @classmethod
    async def start(cls, data_dir, *flags, env=None, launcher=(sys.executable, "-m", "taskhub")):
        process = await asyncio.create_subprocess_exec(
            *launcher,
            "--dev",
            "--port",
            "0",
            "--data-dir",
            str(data_dir),
            *flags,
            cwd=ROOT,
            env=os.environ | {"TASKHUB_LOG_LEVEL": "warning"} | (env or {}),
            stdout=asyncio.subprocess.PIPE,
        )
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert "http://" in line, f"no URL: {line!r}, exit code {process.returncode}"
        server = cls(process, line.split()[-1])
        _, answer = await server.post("/api/login", {"username": "admin", "password": "123456"})
        server.token = answer["data"]["token"]
        return server

    async def request(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = json.dumps(body) if body is not None else ("" if method == "POST" else None)
        request = HTTPRequest(
            self.url + path, method=method, headers=headers, body=data, request_timeout=60
        )
        response = await AsyncHTTPClient().fetch(request, raise_error=False)
        return response.code, json.loads(response.body)

    async def get(self, path):
        return await self.request("GET", path)

    async def post(self, path, body=None):
        return await self.request("POST", path, body)

    async def until(self, condition, seconds):
        """Poll until the condition holds or the time is over; either is fine."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  # a file, not ours
            await asyncio.sleep(0.005)

    async def kill(self):
        """End it as a crash would."""
        self.process.kill()
        await self.process.communicate()

    async def stop(self):
        """Ask it to stop in order; return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.communicate(), 60)
        return self.process.returncode
