"""Use cases about simple tasks: runs of one task, known by a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from taskhub.domain.dag import DagSpec
from taskhub.domain.result import Output
from taskhub.domain.run import CANCEL_REQUESTED, RunHeader, Source
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.engine.supervisor import Supervisor
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.store import NumberedQuery, NumberedTask, Page, RunStore, TaskRow
from taskhub.services.history import OUTPUT_BUDGET, ROWS_SLICE
from taskhub.services.origin import NOBODY, Origin
from taskhub.services.runs import RunService
from taskhub.spec.parameters import encoded
from taskhub.spec.simple_task import asked_of

SHOWN_OUTPUT: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleTask:
    """A simple task as it is: what was asked for, and how far it has come.

    `updated_ms` is when it last changed; `cancel_requested` says whether somebody asked to stop it.
    """

    header: RunHeader
    row: TaskRow
    output: Output
    updated_ms: int
    cancel_requested: bool

    @property
    def number(self) -> int:
        """Its id."""
        return self.header.number

    @property
    def asked(self) -> tuple[int, Mapping[str, JSON]]:
        """The `type` and `params` its author sent."""
        return asked_of(self.row.spec)

    @property
    def size(self) -> int:
        """About how many bytes its texts have in an answer."""
        ends = (self.output.stdout, self.output.stderr)
        return len(encoded(self.asked)) + sum(min(len(end), SHOWN_OUTPUT) for end in ends)


class TaskService:
    """Makes simple tasks, stops them, and lets callers look at them. Call `load` first."""

    def __init__(self, *, store: RunStore, runs: RunService, supervisor: Supervisor) -> None:
        self._store = store
        self._runs = runs
        self._supervisor = supervisor
        self._last = 0

    async def load(self) -> None:
        """Go on behind the highest number stored; again where another server was active since."""
        self._last = max(self._last, await self._store.last_number())

    async def submit(
        self, task: TaskSpec, *, owner: str = "", key: str = "", origin: Origin = NOBODY
    ) -> int:
        """Store a simple task and start it; return its number once it is stored.

        The number stands in for the id of `task`. It is given once: a submission that fails leaves
        a gap. Raises what `RunService.submit` raises.
        """
        self._last += 1
        number = self._last
        spec = DagSpec(name=task.name, tasks=(replace(task, id=str(number)),))
        run_id = await self._runs.submit(
            spec, source=Source.TASK, owner=owner, key=key, number=number, origin=origin
        )
        return (await self._store.run(run_id)).header.number if key else number

    async def get(self, number: int) -> SimpleTask:
        """Return a task as it is now; raise `NotFoundError`."""
        (task,) = await self._complete([await self._find(number)])
        return task

    async def cancel(self, number: int, *, by: str, origin: Origin = NOBODY) -> None:
        """Stop a task; returns once that is stored, maybe before it is over.

        Raises `NotFoundError`, or `ConflictError` if it has ended.
        """
        found = await self._find(number)
        try:
            await self._runs.cancel(found.header.run_id, by=by, origin=origin)
        except ConflictError:
            word = (await self._find(number)).task.state.status.word
            raise ConflictError(f"task {number} has already ended: {word}") from None

    async def page(self, query: NumberedQuery, limit: int, before: int | None) -> Page[SimpleTask]:
        """Return tasks, newest first; a page ends early when it holds much text."""
        tasks: list[SimpleTask] = []
        size = 0
        while True:
            wanted = min(ROWS_SLICE, limit - len(tasks))
            found = await self._store.numbered(query, wanted, before)
            part = await self._complete(found.items)
            is_cut = len(part) < len(found.items)
            before = part[-1].number if is_cut else found.next_before
            tasks += part
            size += sum(task.size for task in part)
            if before is None or is_cut or len(tasks) >= limit or size >= OUTPUT_BUDGET:
                return Page(items=tasks, next_before=before)

    async def _find(self, number: int) -> NumberedTask:
        found = await self._store.numbered(NumberedQuery(number=number), 1)
        if not found.items:
            raise NotFoundError("task", str(number))
        return found.items[0]

    async def _complete(self, found: Sequence[NumberedTask]) -> Sequence[SimpleTask]:
        """Add output and what is known of the moment; leave out the last if the output is much."""
        rows = [each.task for each in found]
        silent = {row.state.id for row in rows if _is_in_first_attempt(row)}
        views, _ = await self._runs.with_output(rows, cut_early=len(rows) > 1, silent=silent)
        return [self._as_it_is(each, view.output) for each, view in zip(found, views, strict=False)]

    def _as_it_is(self, found: NumberedTask, output: Output) -> SimpleTask:
        header, state = found.header, found.task.state
        updated_ms = max(header.created_ms, state.start_ts_ms, state.end_ts_ms)
        cancel_requested = state.metadata.get(CANCEL_REQUESTED) is True
        run = self._supervisor.runs.get(header.run_id)
        if run is not None and not state.status.is_final:
            updated_ms = max(updated_ms, run.updated_ms)
            (task,) = run.tasks.values()
            cancel_requested = run.cancel_requested or task.cancel_requested
        return SimpleTask(
            header=header,
            row=found.task,
            output=output,
            updated_ms=updated_ms,
            cancel_requested=cancel_requested,
        )


def _is_in_first_attempt(row: TaskRow) -> bool:
    """Say whether nothing can be stored of its output: that is done at the end of an attempt."""
    return row.state.status is Status.RUNNING and row.state.attempt == 1
