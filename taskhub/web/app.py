"""The whole HTTP surface on one page, with who may use what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tornado.httputil import HTTPServerRequest
from tornado.web import Application, HTTPError, RequestHandler, url

from taskhub.errors import ConfigError, ForbiddenError
from taskhub.ports.executor import Executors
from taskhub.services.accounts import Accounts
from taskhub.services.audit_log import AuditLog
from taskhub.services.auth import AuthService
from taskhub.services.live import LiveHub
from taskhub.services.logs import LogService
from taskhub.services.roles import Role
from taskhub.services.runs import RunService
from taskhub.services.system import SystemService
from taskhub.services.tasks import TaskService
from taskhub.web.accounts import (
    AuditHandler,
    MeHandler,
    MyPasswordHandler,
    TokenHandler,
    TokensHandler,
    UserHandler,
    UsersHandler,
)
from taskhub.web.base import ApiHandler, log_request
from taskhub.web.dag import DagRunAsyncHandler, DagRunHandler, RerunHandler
from taskhub.web.frames import Frames
from taskhub.web.gate import Gate, Open, Permissions, WebSettings
from taskhub.web.history import (
    CancelHandler,
    EventsHandler,
    RunHandler,
    RunsHandler,
    TaskRunsHandler,
)
from taskhub.web.logs import LogsHandler
from taskhub.web.offload import Offload
from taskhub.web.session import LoginHandler, LogoutHandler
from taskhub.web.socket import SocketSettings, TaskHubSocket
from taskhub.web.system import (
    BroadcastHandler,
    ExecutorsHandler,
    HealthHandler,
    InfoHandler,
    RefusedHandler,
    StatsHandler,
)
from taskhub.web.tasks import CancelSimpleTaskHandler, SimpleTaskHandler, SimpleTasksHandler

PUBLIC, FIRST_MESSAGE = Open.PUBLIC, Open.FIRST_MESSAGE
VIEWER, OPERATOR, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN
SEED: Final = True
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the handlers call."""

    runs: RunService
    tasks: TaskService
    auth: AuthService
    accounts: Accounts
    audit: AuditLog
    system: SystemService
    logs: LogService
    executors: Executors
    live: LiveHub


@dataclass(frozen=True, slots=True)
class Route:
    """One path: its handler, the permission of each of its methods, what the handler needs.

    `in_seed`: the original answered it without a token, and so does `auth.mode = "seed"`.
    """

    path: str
    handler: type[RequestHandler]
    permissions: Permissions
    needs: Mapping[str, Any] = field(default_factory=dict)
    in_seed: bool = False


def routes(
    s: Services, sockets: SocketSettings | None = None, frames: Frames | None = None
) -> Sequence[Route]:
    """Return the table. A method without a permission stops the start."""
    socket = {"hub": s.live, "auth": s.auth, "frames": frames or Frames(), "settings": sockets}
    runs = {"runs": s.runs}
    make = {"runs": s.runs, "executors": s.executors}
    run = r"/api/dag/runs/([^/]+)"
    tasks, task = {"tasks": s.tasks}, r"/api/tasks/([^/]+)"
    make_task = {**make, **tasks}
    people, user = {"accounts": s.accounts}, "/api/users/([^/]+)"
    return [
        Route("/api/login", LoginHandler, {"POST": PUBLIC}, {"auth": s.auth}),
        Route("/api/logout", LogoutHandler, {"POST": VIEWER}, {"auth": s.auth}),
        Route("/api/health", HealthHandler, {"GET": PUBLIC}, {"system": s.system}, SEED),
        Route("/api/info", InfoHandler, {"GET": VIEWER}, {"system": s.system}, SEED),
        Route("/api/stats", StatsHandler, {"GET": VIEWER}, {"runs": s.runs, "live": s.live}, SEED),
        Route("/api/debug/broadcast", BroadcastHandler, {"GET": ADMIN}, {"live": s.live}, SEED),
        Route("/api/executors", ExecutorsHandler, {"GET": VIEWER}, {"executors": s.executors}),
        Route("/api/dag/run", DagRunHandler, {"POST": OPERATOR}, make, SEED),
        Route("/api/dag/run_async", DagRunAsyncHandler, {"POST": OPERATOR}, make, SEED),
        Route("/api/dag/runs", RunsHandler, {"GET": VIEWER}, runs, SEED),
        Route(run, RunHandler, {"GET": VIEWER}, runs),
        Route(f"{run}/cancel", CancelHandler, {"POST": OPERATOR}, runs),
        Route(f"{run}/rerun", RerunHandler, {"POST": OPERATOR}, runs),
        Route("/api/dag/task_runs", TaskRunsHandler, {"GET": VIEWER}, runs, SEED),
        Route("/api/dag/events", EventsHandler, {"GET": VIEWER}, runs, SEED),
        Route("/api/tasks/logs", LogsHandler, {"GET": VIEWER}, {"logs": s.logs}, SEED),
        Route("/api/tasks", SimpleTasksHandler, {"GET": VIEWER, "POST": OPERATOR}, make_task),
        Route(task, SimpleTaskHandler, {"GET": VIEWER}, tasks),
        Route(f"{task}/cancel", CancelSimpleTaskHandler, {"POST": OPERATOR}, tasks),
        Route("/api/me", MeHandler, {"GET": VIEWER}),
        Route("/api/me/password", MyPasswordHandler, {"POST": VIEWER}, {**people, "auth": s.auth}),
        Route("/api/users", UsersHandler, {"GET": ADMIN, "POST": ADMIN}, people),
        Route(user, UserHandler, {"GET": ADMIN, "POST": ADMIN, "DELETE": ADMIN}, people),
        Route("/api/tokens", TokensHandler, {"GET": VIEWER, "POST": VIEWER}, people),
        Route("/api/tokens/([^/]+)", TokenHandler, {"DELETE": VIEWER}, people),
        Route("/api/audit", AuditHandler, {"GET": ADMIN}, {"audit": s.audit}),
        Route("/ws", TaskHubSocket, {"GET": FIRST_MESSAGE}, socket),
    ]


class TaskHubApp(Application):
    """A table behind the gate: requests for other hosts or from other sites reach no handler."""

    def __init__(self, table: Sequence[Route], gate: Gate) -> None:
        check_table(table)
        self.table = tuple(table)
        self.gate = gate
        super().__init__(
            [url(route.path, route.handler, _kwargs(route, gate)) for route in table],
            default_handler_class=RefusedHandler,
            default_handler_args=_refusal(gate, HTTPError(404)),
            log_function=log_request,
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        try:
            self.gate.check_site(request)
        except ForbiddenError as exc:
            return self.get_handler_delegate(request, RefusedHandler, _refusal(self.gate, exc))
        return super().find_handler(request, **kwargs)


def make_app(
    services: Services,
    settings: WebSettings | None = None,
    sockets: SocketSettings | None = None,
    offload: Offload | None = None,
) -> TaskHubApp:
    """Bind the services to the routes; raise `ConfigError` if a method has no permission.

    The caller closes `offload` once no request is under way.
    """
    gate = Gate(
        auth=services.auth,
        audit=services.audit,
        settings=settings or WebSettings(),
        offload=offload or Offload(),
    )
    return TaskHubApp(routes(services, sockets, Frames(gate.secrets)), gate)


def make_ws_app(
    services: Services,
    sockets: SocketSettings | None = None,
    settings: WebSettings | None = None,
    offload: Offload | None = None,
) -> TaskHubApp:
    """Return what listens for clients of the original: the socket, on any path."""
    gate = Gate(
        auth=services.auth,
        audit=services.audit,
        settings=settings or WebSettings(is_loopback=False),
        offload=offload or Offload(),
    )
    frames = Frames(gate.secrets)
    needs = {"hub": services.live, "auth": services.auth, "frames": frames, "settings": sockets}
    return TaskHubApp([Route(".*", TaskHubSocket, {"GET": FIRST_MESSAGE}, needs)], gate)


def check_table(table: Sequence[Route]) -> None:
    """Raise `ConfigError` unless every method of every handler has a permission."""
    for route in table:
        if offered(route.handler) != set(route.permissions):
            raise ConfigError(f"route {route.path}: permissions do not match its methods")


def offered(handler: type[RequestHandler]) -> set[str]:
    """Return the HTTP methods a handler implements."""
    return {
        method
        for method in METHODS
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
    }


def _kwargs(route: Route, gate: Gate) -> dict[str, Any]:
    if issubclass(route.handler, ApiHandler):
        door = {"gate": gate, "permissions": route.permissions, "in_seed": route.in_seed}
        return {**door, **route.needs}
    return dict(route.needs)


def _refusal(gate: Gate, exc: Exception) -> dict[str, Any]:
    return {"gate": gate, "permissions": {}, "refusal": exc}
