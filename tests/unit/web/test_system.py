from __future__ import annotations

import re
from datetime import datetime

from taskhub import __version__
from tests.unit.web.conftest import Site


async def test_health_is_public_and_shows_a_failing_store(site: Site):
    await site.clock.advance(90)
    data = (await site.get("/api/health", token="")).json["data"]
    assert (data["status"], data["uptime_sec"]) == ("healthy", 90)
    assert datetime.fromisoformat(data["time"]).timestamp() * 1000 == site.clock.now_ms()
    site.failing[0] = True
    reply = await site.get("/api/health", token="")
    assert (reply.status, reply.json["data"]["status"]) == (200, "degraded")


async def test_health_says_that_another_server_is_active(site: Site):
    site.failing[0] = True
    site.standing.stand_by("http://a.example:1")
    reply = await site.get("/api/health", token="")
    assert (reply.status, reply.json["data"]["status"]) == (200, "standby")


async def test_info_says_what_is_running(site: Site):
    data = (await site.get("/api/info")).json["data"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", data.pop("build_time"))
    assert data == {"name": "TaskHub Server", "version": __version__, "commit": "dev-local"}


async def test_stats_count_workers_and_sockets(site: Site):
    pool = {"workers": 4, "queued": 0, "running": 1, "submitted": 3, "finished": 2}
    assert (await site.get("/api/stats")).json == {
        "code": 0,
        "message": "ok",
        "data": {"worker_pool": pool, "ws": {"sessions": 2}},
    }


async def test_the_debug_broadcast_reaches_the_sockets(site: Site):
    reply = await site.get("/api/debug/broadcast")
    assert reply.json == {"code": 0, "message": "ok", "data": None}
    assert site.live.sent == [{"event": "debug", "data": {"msg": "hello from TaskHub WS"}}]


async def test_executors_show_their_parameters_or_their_error(site: Site):
    bad, local = (await site.get("/api/executors")).json["data"]["items"]
    assert (bad["name"], bad["error"], bad["parameters"]) == ("Bad", "ImportError: x", None)
    assert (local["name"], local["source"], local["version"]) == ("Local", "taskhub", "1")
    assert local["parameters"] == {"properties": {"cwd": {"type": "string"}}}
