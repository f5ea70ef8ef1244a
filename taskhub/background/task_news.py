"""Every socket hears of simple tasks, without having asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from taskhub.errors import NotFoundError, UnavailableError
from taskhub.ports.clock import Clock
from taskhub.services.bulletin import Change
from taskhub.services.live import LiveHub, Session
from taskhub.services.tasks import SimpleTask, TaskService

CREATED: Final = "task_created"
UPDATED: Final = "task_updated"
PASS: Final = 64
RETRY_S: Final = 1.0


class TaskNews:
    """Tells all sessions what the hub's bulletin says, each as fast as it takes it.

    A session that keeps up hears of every change that is noted while it does; a slower one
    hears of each task once, as it is by then. Nobody is closed for many tasks having changed.
    """

    def __init__(
        self,
        tasks: TaskService,
        live: LiveHub,
        clock: Clock,
        item: Callable[[SimpleTask], Mapping[str, Any]],
    ) -> None:
        self._tasks = tasks
        self._live = live
        self._clock = clock
        self._item = item

    async def run(self) -> None:
        """Tell until cancelled; does nothing while nobody is behind."""
        wake = self._live.bulletin.wake
        while True:
            await wake.wait()
            wake.clear()
            while readers := self._live.behind():
                try:
                    await self._tell(readers)
                except UnavailableError:
                    await self._clock.sleep(RETRY_S)
            self._live.tidy()

    async def _tell(self, readers: Sequence[Session]) -> None:
        """Go on with some changes; who has no more room drops out until there is some."""
        start = min(reader.heard for reader in readers)
        for change in self._live.bulletin.after(start, PASS):
            item = await self._find(change.number)
            readers = _pass_on(readers, change, item)
            await asyncio.sleep(0)  # a store that answers at once must not keep others waiting
        self._live.tidy()

    async def _find(self, number: int) -> Mapping[str, Any] | None:
        try:
            return self._item(await self._tasks.get(number))
        except NotFoundError:  # expired meanwhile
            return None


def _pass_on(
    readers: Sequence[Session], change: Change, item: Mapping[str, Any] | None
) -> Sequence[Session]:
    """Tell those who have not heard of a change; return who can take more.

    Equal messages are the same object and follow each other, so that they are encoded once.
    """
    left = [reader for reader in readers if reader.heard >= change.position]
    new = [reader for reader in readers if reader.heard < change.created]
    known = [reader for reader in readers if change.created <= reader.heard < change.position]
    for event, part in ((CREATED, new), (UPDATED, known)):
        message = {"event": event, "data": item}
        for reader in part:
            if item is None:
                reader.heard = change.position
            if item is None or reader.tell(message, change.position):
                left.append(reader)
    return left
