"""What tasks printed."""

from __future__ import annotations

from functools import partial
from typing import Final

from taskhub.services.logs import MAX_PAGE, LogService
from taskhub.web.base import ApiHandler
from taskhub.web.offload import encoded
from taskhub.web.query import Query
from taskhub.web.views import log_item

DEFAULT_PAGE: Final = 200
LINE_BYTES: Final = 300  # about what a line takes beside its text


class LogsHandler(ApiHandler):
    """/api/tasks/logs."""

    logs: LogService

    async def get(self) -> None:
        query = Query(self.request)
        task_id, run_id = query.required("task_id"), query.text("run_id")
        from_seq, limit = query.integer("from"), query.integer("limit")
        query.check()
        first = max(1, 1 if from_seq is None else from_seq)
        most = min(max(1, DEFAULT_PAGE if limit is None else limit), MAX_PAGE)
        lines = await self.logs.page(task_id, run_id, first, most)
        view = partial(log_item, secrets=self.gate.secrets)
        data = {
            "task_id": task_id,
            "from": first,
            "limit": most,
            "next_from": lines[-1][0] + 1 if lines else first,
        }
        await self.reply_large(
            lambda: {
                "code": 0,
                "message": "ok",
                "data": {**data, "records": encoded(view, lines)},
            },
            sum(LINE_BYTES + len(record.message) for _, record in lines),
        )
