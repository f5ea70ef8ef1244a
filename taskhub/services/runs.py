"""Use cases about runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.result import Output
from taskhub.domain.run import Blocker, Source
from taskhub.ports.store import EventQuery, Page, RunQuery, RunRow, TaskQuery, TaskRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task_run with what belongs beside its row: output, and why it is not running."""

    row: TaskRow
    output: Output
    waiting_on: Blocker | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with everything: its spec and its tasks in input order."""

    row: RunRow
    spec: DagSpec
    tasks: Sequence[TaskView]


class RunService:
    """Submits runs, stops them, and lets callers look at them."""

    async def submit(
        self,
        spec: DagSpec,
        *,
        source: Source = Source.MANUAL,
        owner: str = "",
        key: str = "",
        parent: str = "",
    ) -> str:
        """Store a run and start it; return its id once it is stored.

        `key` is the caller's Idempotency-Key or empty: the same key of the same owner gives the
        same run. Raises `TooManyError` when too many runs are queued, `UnavailableError`.
        """
        raise NotImplementedError

    async def wait(self, run_id: str) -> RunView:
        """Return the run once it has ended."""
        raise NotImplementedError

    async def get(self, run_id: str) -> RunView:
        """Return the run as it is now; raise `NotFoundError`."""
        raise NotImplementedError

    async def cancel(self, run_id: str, *, by: str, task_id: str | None = None) -> None:
        """Stop a run, or one task of it; returns once that is stored, maybe before it is over.

        Raises `NotFoundError`, or `ConflictError` if it has ended.
        """
        raise NotImplementedError

    async def rerun(self, run_id: str, *, from_failed: bool, owner: str = "", key: str = "") -> str:
        """Make a new run of an ended one's spec, which names it as parent; return its id.

        With `from_failed`, only the tasks that did not succeed, their edges to the others dropped.
        """
        raise NotImplementedError

    async def list_runs(self, query: RunQuery, limit: int, before: int | None) -> Page[RunRow]:
        """Return runs, newest first."""
        raise NotImplementedError

    async def list_tasks(self, query: TaskQuery, limit: int, before: int | None) -> Page[TaskView]:
        """Return task_runs, newest first; a page ends early when it holds much output."""
        raise NotImplementedError

    async def list_events(self, query: EventQuery, limit: int, before: int | None) -> Page[Event]:
        """Return events, newest first."""
        raise NotImplementedError

    def stats(self) -> Mapping[str, int]:
        """Return workers (attempts that may run at once), queued, running, submitted, finished."""
        raise NotImplementedError
