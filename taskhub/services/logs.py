"""Use cases about lines that tasks printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taskhub.domain.log import LogRecord
from taskhub.ports.store import LogStore

MAX_PAGE: Final = 2000


class LogService:
    """Lets callers read what tasks printed, page by page."""

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs

    async def page(
        self, task_id: str, run_id: str | None, from_seq: int, limit: int
    ) -> Sequence[tuple[int, LogRecord]]:
        """Return lines of a task in order, each with the number it is shown under.

        With a `run_id` that is the line's own `seq`; without, its position over all runs that are
        stored, oldest run first. `from_seq` below 1 means 1; `limit` is clamped to 1..2000.
        Raises `UnavailableError`.
        """
        from_seq = max(1, from_seq)
        limit = min(max(1, limit), MAX_PAGE)
        if run_id is None:
            return await self._logs.read_task(task_id, from_seq, limit)
        return [(r.seq, r) for r in await self._logs.read(task_id, run_id, from_seq, limit)]
