"""A real Tornado application on a free port, with fakes behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from taskhub.domain.dag import DagSpec
from taskhub.domain.result import Output
from taskhub.domain.run import RunHeader, RunStatus, Source
from taskhub.domain.task import Status, TaskSpec
from taskhub.errors import NotFoundError
from taskhub.ports.executor import Executor, Installed
from taskhub.ports.store import Page, RunRow, RunUpdate, TaskRow, TaskUpdate
from taskhub.services.auth import AuthService
from taskhub.services.history import RunView, TaskView
from taskhub.services.roles import Role
from taskhub.services.standing import Standing
from taskhub.services.system import SystemService
from taskhub.services.tasks import SimpleTask
from taskhub.testing.clock import FakeClock
from taskhub.web.app import Services, TaskHubApp, make_app
from taskhub.web.gate import WebSettings
from taskhub.web.offload import Offload
from tests.access import Access, access

NOW_MS = 1_700_000_000_000


class Plain(Executor):
    parameters: ClassVar = {"properties": {"cwd": {"type": "string"}}}

    async def execute(self, context):
        raise NotImplementedError


class FakeRuns:
    """Ends every run at once, with success, unless `gate` is closed."""

    def __init__(self) -> None:
        self.views: dict[str, RunView] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.left = asyncio.Event()
        self.status = Status.SUCCESS
        self.output = Output(stdout="hi\n")
        self.error: Exception | None = None
        self.page: Page[Any] = Page(items=())

    async def submit(
        self, spec: DagSpec, *, source=Source.MANUAL, owner="", key="", parent="", origin=None
    ):
        self._note("submit", owner, key)
        run_id = f"{NOW_MS}_{key or len(self.views)}"
        self.views.setdefault(run_id, view_of(run_id, spec, self.status, self.output))
        return run_id

    async def wait(self, run_id):
        self.begun.set()
        try:
            await self.gate.wait()
        finally:
            self.left.set()
        return self.views[run_id]

    async def get(self, run_id):
        self._note("get", run_id)
        if run_id not in self.views:
            raise NotFoundError("run", run_id)
        return self.views[run_id]

    async def cancel(self, run_id, *, by, task_id=None, origin=None):
        self._note("cancel", run_id, by, task_id)

    async def rerun(self, run_id, *, from_failed, owner="", key="", origin=None):
        self._note("rerun", run_id, from_failed, owner, key)
        return "new"

    async def list_runs(self, query, limit, before):
        self._note("list_runs", query, limit, before)
        return self.page

    async def list_tasks(self, query, limit, before):
        self._note("list_tasks", query, limit, before)
        return self.page

    async def list_events(self, query, limit, before):
        self._note("list_events", query, limit, before)
        return self.page

    def stats(self):
        return {"workers": 4, "queued": 0, "running": 1, "submitted": 3, "finished": 2}

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error


class FakeTasks:
    """Keeps what it is asked; `found` is by number."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.found: dict[int, SimpleTask] = {}
        self.error: Exception | None = None
        self.page_of: Page[Any] = Page(items=())

    async def submit(self, task: TaskSpec, *, owner="", key="", origin=None):
        self._note("submit", task, owner, key)
        return 7

    async def get(self, number):
        self._note("get", number)
        if number not in self.found:
            raise NotFoundError("task", str(number))
        return self.found[number]

    async def cancel(self, number, *, by, origin=None):
        self._note("cancel", number, by)

    async def page(self, query, limit, before):
        self._note("page", query, limit, before)
        return self.page_of

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error


class FakeLive:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.sessions = 2

    def broadcast(self, message):
        self.sent.append(message)


class FakeLogs:
    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.calls: list[tuple[Any, ...]] = []

    async def page(self, task_id, run_id, from_seq, limit):
        self.calls.append((task_id, run_id, from_seq, limit))
        return self.lines


def view_of(run_id: str, spec: DagSpec, status: Status, output: Output) -> RunView:
    header = RunHeader(
        run_id=run_id,
        ord=1,
        name=spec.name,
        source=Source.MANUAL,
        created_ms=NOW_MS,
        first_task_id=10,
    )
    state = RunUpdate(run_id, RunStatus.SUCCESS, NOW_MS, NOW_MS + 5, len(spec.tasks), 0, 0, "")
    tasks = [
        TaskView(
            row=TaskRow(
                spec=task,
                state=TaskUpdate(
                    10 + i, run_id, task.id, status, 1, 0, 5, "", NOW_MS, NOW_MS + 5, {}
                ),
            ),
            output=output,
        )
        for i, task in enumerate(spec.tasks)
    ]
    row = RunRow(header=header, total=len(tasks), state=state)
    return RunView(row=row, spec=spec, tasks=tasks)


@dataclass
class Reply:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    """The application under test, its fakes, and a client that is logged in as admin."""

    app: TaskHubApp
    port: int
    runs: FakeRuns
    tasks: FakeTasks
    live: FakeLive
    logs: FakeLogs
    auth: AuthService
    people: Access
    clock: FakeClock
    client: AsyncHTTPClient
    settings: WebSettings
    offload: Offload
    executors: dict[str, Installed]
    standing: Standing
    token: str = ""
    failing: list[bool] = field(default_factory=lambda: [False])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def fetch(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> Reply:
        """Send a request; `body` is JSON unless it is bytes, `_` in header names stands for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        token = self.token if token is None else token
        if token:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = await self.client.fetch(
            self.url + path,
            method=method,
            body=body,
            headers=sent,
            raise_error=False,
            allow_nonstandard_methods=True,
            follow_redirects=False,
        )
        return Reply(reply.code, reply.headers, reply.body)

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.fetch("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Reply:
        return await self.fetch("POST", path, body, **options)

    async def token_of(self, role: Role) -> str:
        """Make an account of that role and log it in."""
        await self.people.add(role.word, "pw", role)
        return await self.auth.login(role.word, "pw", "test")

    def change(self, **settings: Any) -> None:
        """Change settings of the running application."""
        self.settings = replace(self.settings, **settings)
        self.app.gate = replace(self.app.gate, settings=self.settings)
        for rule in self.app.default_router.rules[0].target.rules:
            if "gate" in rule.target_kwargs:
                rule.target_kwargs["gate"] = self.app.gate


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    clock, runs, tasks, live, logs = (
        FakeClock(NOW_MS),
        FakeRuns(),
        FakeTasks(),
        FakeLive(),
        FakeLogs(),
    )
    people = access(clock)
    auth = people.auth
    await auth.start()
    await people.add("admin", "secret", Role.ADMIN)
    failing = [False]
    standing = Standing()
    executors = {
        "local": Installed(name="Local", source="taskhub", version="1", executor=Plain()),
        "bad": Installed(name="Bad", source="plug", version="2", error="ImportError: x"),
    }
    services = Services(
        runs=runs,
        tasks=tasks,
        auth=auth,
        accounts=people.accounts,
        audit=people.audit,
        system=SystemService(clock, is_failing=lambda: failing[0], standing=standing),
        logs=logs,
        executors=executors,
        live=live,
    )
    settings, offload = WebSettings(), Offload()
    app = make_app(services, settings, offload=offload)
    listener, port = bind_unused_port()
    server = HTTPServer(app)
    server.add_sockets([listener])
    client = AsyncHTTPClient(force_instance=True)
    yield Site(
        app=app,
        port=port,
        runs=runs,
        tasks=tasks,
        live=live,
        logs=logs,
        auth=auth,
        people=people,
        clock=clock,
        client=client,
        settings=settings,
        offload=offload,
        executors=executors,
        standing=standing,
        token=await auth.login("admin", "secret", "test"),
        failing=failing,
    )
    client.close()
    server.stop()
    await server.close_all_connections()
    offload.close()
    people.close()
