"""Loops that live as long as the server does; if one dies, the server must not go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger(__name__)


class Loops:
    """Owns endless asyncio tasks by name."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._dead = asyncio.Event()
        self._is_closing = False

    def start(self, name: str, loop: Coroutine[None, None, None]) -> None:
        """Run a loop until `close`."""
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._on_end)
        self._tasks.append(task)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if self._is_closing:
            return
        error = None if task.cancelled() else task.exception()
        log.critical("loop died, server stops", extra={"loop": task.get_name()}, exc_info=error)
        self._dead.set()

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
