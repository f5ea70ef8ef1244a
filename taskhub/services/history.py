"""What is known of runs: lists, single runs, and what they wait for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.result import Output
from taskhub.domain.run import Run, RunStatus
from taskhub.domain.task import JSON, Status
from taskhub.domain.waiting import Blocker, waiting_on
from taskhub.engine.supervisor import Supervisor
from taskhub.ports.store import (
    EventQuery,
    Page,
    RunQuery,
    RunRow,
    RunStore,
    RunUpdate,
    TaskQuery,
    TaskRow,
    TaskUpdate,
)

OUTPUT_BUDGET: Final = 8 * 1024 * 1024
OUTPUT_SLICE: Final = 16
ROWS_SLICE: Final = 50
SMALL_OUTPUT: Final = 64 * 1024
MOST_OUTPUTS: Final = 1024
NO_OUTPUT: Final = Output()
NAME_COST: Final = 32  # in characters: a new name is judged before its value is shown


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task_run with what belongs beside its row: output, and why it is not running."""

    row: TaskRow
    output: Output
    waiting_on: Blocker | None = None

    @property
    def size(self) -> int:
        """About how many characters its texts have."""
        spec, output = self.row.spec, self.output
        params = sum(_size_of(given) for given in (spec.exec_params, spec.metadata) if given)
        return params + len(spec.exec_command) + len(output.stdout) + len(output.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with everything: its spec and its tasks in input order."""

    row: RunRow
    spec: DagSpec
    tasks: Sequence[TaskView]


class RunHistory:
    """Lets callers look at runs: rows come from the store, what changes by the moment from here."""

    def __init__(self, store: RunStore, supervisor: Supervisor) -> None:
        self._store = store
        self._supervisor = supervisor

    async def wait(self, run_id: str) -> RunView:
        """Return the run once it has ended."""
        run = await self._supervisor.wait(run_id)
        if run is None:
            return await self.get(run_id)
        rows = [
            TaskRow(spec=task.spec, state=TaskUpdate.of(run, task)) for task in run.tasks.values()
        ]
        silent = {row.state.id for row in rows if not run.tasks[row.spec.id].printed}
        views, _ = await self.with_output(rows, cut_early=False, silent=silent)
        return RunView(row=_row_of(run), spec=run.spec, tasks=views)

    async def get(self, run_id: str) -> RunView:
        """Return the run as it is now; raise `NotFoundError`."""
        row = self._with_counts(await self._store.run(run_id))
        _, spec = await self._store.load(run_id)
        rows: list[TaskRow] = []
        before: int | None = None
        while True:
            page = await self._store.task_runs(TaskQuery(run_id=run_id), 1000, before)
            rows.extend(page.items)
            before = page.next_before
            if before is None:
                break
        views, _ = await self.with_output(rows[::-1], cut_early=False)
        return RunView(row=row, spec=spec, tasks=views)

    async def list_runs(self, query: RunQuery, limit: int, before: int | None) -> Page[RunRow]:
        """Return runs, newest first."""
        page = await self._store.runs(query, limit, before)
        return replace(page, items=[self._with_counts(row) for row in page.items])

    async def list_tasks(self, query: TaskQuery, limit: int, before: int | None) -> Page[TaskView]:
        """Return task_runs, newest first; a page ends early when it holds much output."""
        views: list[TaskView] = []
        size = 0
        while True:
            wanted = min(ROWS_SLICE, limit - len(views))
            page = await self._store.task_runs(query, wanted, before)
            part, cut = await self.with_output(page.items, cut_early=True)
            views += part
            size += sum(view.size for view in part)
            before = cut or page.next_before
            if before is None or cut or len(views) >= limit or size >= OUTPUT_BUDGET:
                return Page(items=views, next_before=before)

    async def list_events(self, query: EventQuery, limit: int, before: int | None) -> Page[Event]:
        """Return events, newest first."""
        return await self._store.events(query, limit, before)

    def stats(self) -> Mapping[str, int]:
        """Return workers (attempts that may run at once), queued, running, submitted, finished."""
        supervisor = self._supervisor
        left = sum(run.left for run in supervisor.runs.values())
        return {
            "workers": supervisor.limit,
            "queued": max(0, left - supervisor.running),
            "running": supervisor.running,
            "submitted": supervisor.submitted,
            "finished": max(0, supervisor.submitted - left),
        }

    def _with_counts(self, row: RunRow) -> RunRow:
        """Return the row with the counts of this moment; those in the store may lag behind."""
        run = self._supervisor.runs.get(row.header.run_id)
        if run is None or row.state.status is not RunStatus.RUNNING:
            return row
        now = RunUpdate.of(run)
        return replace(
            row,
            state=row.state._replace(
                success_count=now.success_count,
                failed_count=now.failed_count,
                skipped_count=now.skipped_count,
            ),
        )

    async def with_output(
        self, rows: Sequence[TaskRow], *, cut_early: bool, silent: Collection[int] = ()
    ) -> tuple[list[TaskView], int | None]:
        """Add outputs until they fill the budget; then end the page there, or leave them out."""
        views: list[TaskView] = []
        budget = OUTPUT_BUDGET
        count = OUTPUT_SLICE
        while len(views) < len(rows):
            part = rows[len(views) : len(views) + count]
            if budget <= 0 and cut_early:
                return views, views[-1].row.state.id
            asked = part if budget > 0 else ()
            wanted = [r.state.id for r in asked if r.state.attempt and r.state.id not in silent]
            outputs = await self._store.outputs(wanted) if wanted else {}
            size = sum(len(output.stdout) + len(output.stderr) for output in outputs.values())
            budget -= size
            count = min(MOST_OUTPUTS, count * 4) if size < SMALL_OUTPUT else OUTPUT_SLICE
            for row in part:
                output = outputs.get(row.state.id, NO_OUTPUT)
                views.append(TaskView(row=row, output=output, waiting_on=self._blocker(row)))
        return views, None

    def _blocker(self, row: TaskRow) -> Blocker | None:
        run = self._supervisor.runs.get(row.state.run_id)
        if run is None or row.state.status is not Status.PENDING:
            return None
        return waiting_on(run, run.tasks[row.spec.id])


def _size_of(given: Mapping[str, JSON]) -> int:
    return NAME_COST * len(given) + sum(map(_size, given.values()))


def _size(value: JSON) -> int:
    """Return about how many characters a value has; texts, as most long ones are, cost nothing."""
    if isinstance(value, str):
        return len(value)
    return len(str(value)) if isinstance(value, dict | list) else 1


def _row_of(run: Run) -> RunRow:
    return RunRow(header=run.header, total=len(run.tasks), state=RunUpdate.of(run))
