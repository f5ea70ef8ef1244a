"""Loops that live as long as the server does; if one dies, the server must not go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from taskhub.errors import SupersededError

log = logging.getLogger(__name__)


class Loops:
    """Owns endless asyncio tasks by name."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._dead = asyncio.Event()
        self._may_end: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self.is_superseded = False
        """Whether a loop has ended because another server has taken over."""

    def start(self, name: str, loop: Coroutine[None, None, None], *, may_end: bool = False) -> None:
        """Run a loop until `close`; one that `may_end` does no harm by returning."""
        task = asyncio.create_task(loop, name=name)
        if may_end:
            self._may_end.add(task)
        task.add_done_callback(self._on_end)
        self._tasks.append(task)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if self._is_closing:
            return
        error = None if task.cancelled() else task.exception()
        if task in self._may_end and error is None and not task.cancelled():
            return
        self._report(task.get_name(), error)
        self._dead.set()

    def _report(self, loop: str, error: BaseException | None) -> None:
        """Say why the server stops; every writer hears of being superseded, once is enough."""
        if not isinstance(error, SupersededError):
            log.critical("loop died, server stops", extra={"loop": loop}, exc_info=error)
        elif not self.is_superseded:
            self.is_superseded = True
            log.critical("another server has taken over, this one stops", extra={"loop": loop})

    @property
    def is_dead(self) -> bool:
        """Whether a loop has ended by itself."""
        return self._dead.is_set()

    async def wait_for_death(self) -> None:
        """Return when a loop has ended by itself; it has been logged then."""
        await self._dead.wait()

    async def close(self) -> None:
        """End all loops, the last started first."""
        self._is_closing = True
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
