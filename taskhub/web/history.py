"""Looking at runs, and stopping them."""

from __future__ import annotations

from functools import partial
from typing import Final

from taskhub.domain.event import EventName
from taskhub.ports.store import EventQuery, Page, RunQuery, TaskQuery
from taskhub.services.runs import RunService
from taskhub.spec.fields import Fields, Findings
from taskhub.web.base import ApiHandler
from taskhub.web.offload import encoded
from taskhub.web.query import Query
from taskhub.web.views import (
    ROW_BYTES,
    event_item,
    page,
    run_detail,
    run_item,
    task_item,
    tasks_size,
)

EVENT: Final = "event"
EVENT_NAMES: Final = frozenset(EventName)


class RunsHandler(ApiHandler):
    """/api/dag/runs."""

    runs: RunService

    async def get(self) -> None:
        query = Query(self.request)
        start, end = query.time_range()
        wanted = RunQuery(
            run_id=query.text("run_id"), name=query.text("name"), start_ts_ms=start, end_ts_ms=end
        )
        limit, before = query.limit(100, 500), query.cursor()
        query.check()
        found = await self.runs.list_runs(wanted, limit, before)
        self.ok(page([run_item(row) for row in found.items], found))


class RunHandler(ApiHandler):
    """/api/dag/runs/{run_id}."""

    runs: RunService

    async def get(self, run_id: str) -> None:
        view = await self.runs.get(run_id)
        size = 2 * tasks_size(view.tasks)
        secrets = self.gate.secrets
        await self.reply_large(
            lambda: {"code": 0, "message": "ok", "data": run_detail(view, secrets)}, size
        )


class CancelHandler(ApiHandler):
    """/api/dag/runs/{run_id}/cancel; with a task_id, one task of it."""

    runs: RunService

    async def post(self, run_id: str) -> None:
        findings = Findings()
        fields = Fields.of(await self.optional_body(), "", findings)
        fields.only(frozenset({"task_id"}))
        task_id = fields.text("task_id")
        findings.raise_any()
        await self.runs.cancel(
            run_id, by=self.username, task_id=task_id or None, origin=self.origin
        )
        self.ok()


class TaskRunsHandler(ApiHandler):
    """/api/dag/task_runs."""

    runs: RunService

    async def get(self) -> None:
        query = Query(self.request)
        wanted = TaskQuery(run_id=query.text("run_id"), name=query.text("name"))
        limit, before = query.limit(200, 1000), query.cursor()
        query.check()
        found = await self.runs.list_tasks(wanted, limit, before)
        view = partial(task_item, secrets=self.gate.secrets)
        await self.reply_large(
            lambda: {
                "code": 0,
                "message": "ok",
                "data": page(encoded(view, found.items), found),
            },
            tasks_size(found.items),
        )


class EventsHandler(ApiHandler):
    """/api/dag/events. All of them are of type "event"; any other type finds nothing."""

    runs: RunService

    async def get(self) -> None:
        query = Query(self.request)
        start, end = query.time_range()
        kind, name = query.text("type"), query.text("event")
        wanted = EventQuery(
            run_id=query.text("run_id"),
            task_id=query.text("task_id"),
            event=EventName(name) if name in EVENT_NAMES else None,
            start_ts_ms=start,
            end_ts_ms=end,
        )
        limit, before = query.limit(200, 1000), query.cursor()
        query.check()
        if kind not in {None, EVENT} or (name is not None and name not in EVENT_NAMES):
            self.ok(page([], Page(items=())))
            return
        found = await self.runs.list_events(wanted, limit, before)
        view = partial(event_item, secrets=self.gate.secrets)
        await self.reply_large(
            lambda: {
                "code": 0,
                "message": "ok",
                "data": page(encoded(view, found.items), found),
            },
            ROW_BYTES * len(found.items),
        )
