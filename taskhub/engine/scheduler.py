"""Which ready task of which run starts next."""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final

from taskhub.domain.run import Run, TaskState

SWEEP_AT: Final = 256


class Scheduler:
    """Hands out the slots of this server: highest priority first, runs of equal priority in turn.

    A run stands in the heap at most once, with the priority of its best ready task; an entry
    that was overtaken by a better one is skipped when it comes up.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._heap: list[tuple[int, int, Run]] = []
        self._offers: dict[str, tuple[int, int]] = {}
        self._turn = count()

    def offer(self, run: Run) -> None:
        """Let a run compete for a slot if it has room and a ready task; call after any change."""
        task = None if run.is_stopping or not run.has_room else run.best_ready()
        if task is None:
            self._offers.pop(run.id, None)
            return
        standing = self._offers.get(run.id)
        priority = -task.spec.priority
        if standing is None or priority != standing[0]:
            offer = (priority, next(self._turn))
            self._offers[run.id] = offer
            heapq.heappush(self._heap, (*offer, run))

    def next(self) -> tuple[Run, TaskState] | None:
        """Return the task to start now, or None: no slot is free, or nothing may start.

        The caller starts it (which takes it off its run's ready tasks), counts it in `running`
        and offers the run again.
        """
        while self._heap and self.running < self.limit:
            priority, turn, run = heapq.heappop(self._heap)
            if self._offers.get(run.id) != (priority, turn):
                continue
            del self._offers[run.id]
            task = run.best_ready()
            if task is not None and run.has_room and not run.is_stopping:
                return run, task
        return None

    def forget(self, run: Run) -> None:
        """Drop a run that has ended; outdated entries must not pile up while no slot is free."""
        self._offers.pop(run.id, None)
        if len(self._heap) > SWEEP_AT and len(self._heap) > 2 * len(self._offers):
            self._heap = [(p, t, r) for p, t, r in self._heap if self._offers.get(r.id) == (p, t)]
            heapq.heapify(self._heap)
