"""How the server is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from taskhub.ports.executor import Executors
from taskhub.services.live import LiveHub
from taskhub.services.runs import RunService
from taskhub.services.system import SystemService
from taskhub.web.base import ApiHandler
from taskhub.web.views import executor_item

HELLO: Final = {"event": "debug", "data": {"msg": "hello from TaskHub WS"}}


class HealthHandler(ApiHandler):
    """/api/health."""

    system: SystemService

    def get(self) -> None:
        self.ok(asdict(self.system.health()))


class InfoHandler(ApiHandler):
    """/api/info."""

    system: SystemService

    def get(self) -> None:
        self.ok(asdict(self.system.info()))


class StatsHandler(ApiHandler):
    """/api/stats."""

    runs: RunService
    live: LiveHub

    def get(self) -> None:
        pool = dict(self.runs.stats())
        self.ok({"worker_pool": pool, "ws": {"sessions": self.live.sessions}})


class BroadcastHandler(ApiHandler):
    """/api/debug/broadcast."""

    live: LiveHub

    def get(self) -> None:
        self.live.broadcast(HELLO)
        self.ok()


class ExecutorsHandler(ApiHandler):
    """/api/executors."""

    executors: Executors

    def get(self) -> None:
        installed = sorted(self.executors.values(), key=lambda i: i.name.lower())
        self.ok({"items": [executor_item(i) for i in installed]})


class RefusedHandler(ApiHandler):
    """Requests that reach no route: unknown paths, foreign hosts and origins."""

    refusal: Exception

    async def prepare(self) -> None:
        self.refuse(self.refusal)
        await super().prepare()
