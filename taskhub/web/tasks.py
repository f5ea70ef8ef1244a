"""Simple tasks."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from tornado.web import HTTPError

from taskhub.domain.task import STATUS_WORDS, Status, TaskSpec
from taskhub.errors import ConflictError, MissingNameError, NotFoundError
from taskhub.ports.executor import Executors
from taskhub.ports.store import NumberedQuery
from taskhub.services.tasks import TaskService
from taskhub.spec.simple_task import load_simple_task
from taskhub.spec.strict_json import INT64_MAX
from taskhub.web.base import INLINE_BYTES, ApiHandler
from taskhub.web.dag import MakingHandler
from taskhub.web.offload import encoded
from taskhub.web.problems import Answer
from taskhub.web.query import Query, to_cursor
from taskhub.web.task_views import simple_task_item, simple_tasks_size

MOST: Final = 1000
NUMBER: Final = re.compile(r"[0-9]{1,19}")
NOT_FOUND: Final = "Task not found"
WORDS: Final = {word: status for status, word in STATUS_WORDS.items() if status != Status.SKIPPED}


class SimpleTasksHandler(MakingHandler):
    """/api/tasks."""

    tasks: TaskService
    executors: Executors
    answers = {MissingNameError: Answer(400, 1001)}  # noqa: RUF012  # declared on the base

    async def post(self) -> None:
        key = self.idempotency_key()
        task = await self._task()
        self.ok(
            {"id": await self.tasks.submit(task, owner=self.username, key=key, origin=self.origin)}
        )

    async def _task(self) -> TaskSpec:
        body = await self.body()
        limits = self.gate.settings.spec
        if self.received <= INLINE_BYTES:
            return load_simple_task(body, self.executors, limits)
        return await self.gate.offload.run(load_simple_task, body, self.executors, limits)

    async def get(self) -> None:
        query = Query(self.request)
        wanted = NumberedQuery(status=query.word("status", WORDS), name=query.text("name"))
        limit, before = query.limit(MOST, MOST), query.cursor()
        query.check()
        found = await self.tasks.page(wanted, limit, before)
        item = partial(simple_task_item, secrets=self.gate.secrets)
        await self.reply_large(
            lambda: {
                "code": 0,
                "message": "ok",
                "data": encoded(item, found.items),
                "next_cursor": to_cursor(found.next_before),
            },
            simple_tasks_size(found.items),
        )


class SimpleTaskHandler(ApiHandler):
    """/api/tasks/{id}."""

    tasks: TaskService

    async def get(self, task_id: str) -> None:
        try:
            task = await self.tasks.get(to_number(task_id))
        except NotFoundError:
            raise HTTPError(404, reason=NOT_FOUND) from None
        await self.reply_large(
            lambda: {"code": 0, "message": "ok", "data": simple_task_item(task, self.gate.secrets)},
            simple_tasks_size((task,)),
        )


class CancelSimpleTaskHandler(ApiHandler):
    """/api/tasks/{id}/cancel."""

    tasks: TaskService
    answers = {  # noqa: RUF012  # declared on the base
        NotFoundError: Answer(404, 1003),
        ConflictError: Answer(409, 1004),
    }

    async def post(self, task_id: str) -> None:
        await self.tasks.cancel(to_number(task_id), by=self.username, origin=self.origin)
        self.ok()


def to_number(task_id: str) -> int:
    """Return the number in a path; raise `NotFoundError` if no task can have it."""
    if NUMBER.fullmatch(task_id) and (number := int(task_id)) <= INT64_MAX:
        return number
    raise NotFoundError("task", task_id)
