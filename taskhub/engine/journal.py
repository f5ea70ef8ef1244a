"""The one door through which a run changes: fold, store, then tell."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Final

from taskhub.domain.audit import AuditEntry
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event, EventName
from taskhub.domain.ids import IdSource
from taskhub.domain.result import Output
from taskhub.domain.run import Run, RunHeader, TaskState
from taskhub.domain.task import JSON
from taskhub.engine.bus import Bus
from taskhub.engine.insistence import Insistence
from taskhub.ports.clock import Clock
from taskhub.ports.store import Batch, RunStore, RunUpdate, TaskOutput, TaskUpdate

COUNT_EVERY_MS: Final = 500
PUBLISH_SECONDS: Final = 0.005
ROW_CHANGES: Final = frozenset(
    {
        EventName.ATTEMPT_START,
        EventName.ATTEMPT_END,
        EventName.TASK_END,
        EventName.NODE_SKIPPED,
    }
)


class Journal:
    """Collects what one tick decides, stores it in one commit, and publishes it after that.

    The store failing stops the progress of runs, not the server: the same batch is tried again
    until the store has it, and nobody hears of it before.
    """

    def __init__(self, store: RunStore, bus: Bus, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._now_ms = clock.now_ms()
        self._new: list[tuple[RunHeader, DagSpec]] = []
        self._runs: dict[str, Run] = {}
        self._counted_ms: dict[str, int] = {}
        self._tasks: dict[int, tuple[Run, TaskState]] = {}
        self._outputs: dict[int, TaskOutput] = {}
        self._events: list[Event] = []
        self._audit: list[AuditEntry] = []
        self._insist = Insistence(clock, "run store")

    @property
    def is_failing(self) -> bool:
        """Whether the store does not take what happens at present."""
        return self._insist.is_failing

    @property
    def now_ms(self) -> int:
        """The wall clock time of this tick."""
        return self._now_ms

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not self._events and not self._audit

    def begin_tick(self) -> None:
        """Read the clock; all events until the next call carry this time."""
        self._now_ms = self._clock.now_ms()

    def add_run(self, run: Run) -> None:
        """Take up a run that is not stored yet."""
        self._new.append((run.header, run.spec))

    def add_output(self, run: Run, task: TaskState, output: Output) -> None:
        """Keep the end of what an attempt printed."""
        if output.stdout or output.stderr or task.attempt > 1:
            row_id = run.header.first_task_id + task.index
            self._outputs[row_id] = TaskOutput(row_id, run.id, output)

    def add_audit(self, entry: AuditEntry) -> None:
        """Keep the entry of who asked for what this tick does."""
        self._audit.append(entry)

    def record(self, run: Run, name: EventName, task_id: str, extra: Mapping[str, JSON]) -> None:
        """Make an event, fold it into the run, and keep it for the commit."""
        now = self._now_ms
        event = Event(self._ids.take(now), run.id, run.seq + 1, now, name, task_id, extra)
        run.apply(event)
        self._events.append(event)
        if name in ROW_CHANGES:
            self._note_counts(run)
            task = run.tasks[task_id]
            self._tasks[run.header.first_task_id + task.index] = (run, task)
        elif not task_id:
            self._runs[run.id] = run
            if name is EventName.RUN_END:
                self._counted_ms.pop(run.id, None)

    def _note_counts(self, run: Run) -> None:
        """Write the run's row again if that was long ago; each task's end changes it a little."""
        if self._now_ms - self._counted_ms.get(run.id, 0) >= COUNT_EVERY_MS:
            self._counted_ms[run.id] = self._now_ms
            self._runs[run.id] = run

    async def commit(self) -> None:
        """Store what was recorded, as often as it takes, and publish it."""
        batch = self._take()
        await self._insist(partial(self._store.commit, batch))
        await self._publish(batch.events)

    async def _publish(self, events: Sequence[Event]) -> None:
        if not self._bus.events.has_subscribers:
            return
        deadline = perf_counter() + PUBLISH_SECONDS
        for event in events:
            self._bus.events.publish(event)
            if perf_counter() > deadline:
                await asyncio.sleep(0)
                deadline = perf_counter() + PUBLISH_SECONDS

    def _take(self) -> Batch:
        batch = Batch(
            new_runs=self._new,
            runs=[RunUpdate.of(run) for run in self._runs.values()],
            tasks=[TaskUpdate.of(run, task) for run, task in self._tasks.values()],
            outputs=list(self._outputs.values()),
            events=self._events,
            audit=self._audit,
        )
        self._new, self._runs, self._tasks, self._outputs, self._events = [], {}, {}, {}, []
        self._audit = []
        return batch
