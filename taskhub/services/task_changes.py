"""Which simple tasks are under way, and what happens to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from taskhub.domain.event import Event, EventName
from taskhub.domain.run import Run
from taskhub.engine.bus import Bus, Topic
from taskhub.services.live import LiveHub

SHOWN: Final = frozenset(
    {EventName.ATTEMPT_START, EventName.ATTEMPT_END, EventName.TASK_CANCELED, EventName.TASK_END}
)
"""The events after which a task's item differs."""


class TaskChanges:
    """Notes in the hub's bulletin what the bus tells of simple tasks, while anybody reads it."""

    def __init__(self, bus: Bus, live: LiveHub) -> None:
        self._events = bus.events
        self._live = live
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @contextmanager
    def watch(self, run: Run) -> Iterator[None]:
        """Follow a run from before it is stored; not at all if it is no simple task.

        What the block raises means that the run was not stored.
        """
        self.follow((run,))
        try:
            yield
        except BaseException:
            self._forget(run.id)
            raise

    def follow(self, runs: Iterable[Run]) -> None:
        """Follow those of these runs that are simple tasks until they end."""
        for run in runs:
            if run.header.number:
                self._numbers[run.id] = run.header.number
                self._events.add(Topic("", run.id), self._hear)

    def _hear(self, event: Event) -> None:
        if event.name is EventName.RUN_START or event.name in SHOWN:
            if self._live.sessions:
                is_new = event.name is EventName.RUN_START
                self._live.bulletin.note(self._numbers[event.run_id], is_new=is_new)
        elif event.name is EventName.RUN_END:
            self._forget(event.run_id)

    def _forget(self, run_id: str) -> None:
        if self._numbers.pop(run_id, None) is not None:
            self._events.remove(Topic("", run_id), self._hear)
