"""Use cases about runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from random import Random
from typing import Final, NamedTuple

from taskhub.domain.audit import AuditEntry
from taskhub.domain.dag import DagSpec
from taskhub.domain.ids import IdSource, new_run_id
from taskhub.domain.run import Run, RunHeader, RunStatus, Source
from taskhub.domain.task import JSON, Status
from taskhub.engine.supervisor import Supervisor
from taskhub.errors import ConflictError, NotFoundError, TooManyError
from taskhub.ports.clock import Clock
from taskhub.ports.store import RunStore
from taskhub.services.audit_log import AuditLog
from taskhub.services.deadline import ANSWER_S, in_time
from taskhub.services.history import RunHistory, RunView
from taskhub.services.origin import NOBODY, Origin
from taskhub.services.standing import Standing

LARGE_RUN: Final = 500
CLOSE_S: Final = 5.0
NOT_KNOWN: Final = (
    "the store does not answer; whether the run was stored is not known yet: "
    "repeat the request with the same Idempotency-Key"
)
NOT_STOPPED: Final = "the store does not answer; repeat the request to see whether this was stopped"


class Wanted(NamedTuple):
    """What is asked of a new run besides its spec; `unique` is empty or belongs to it alone."""

    source: Source
    owner: str
    unique: str
    parent: str
    number: int
    origin: Origin


class RunService(RunHistory):
    """Submits runs and stops them; `watch` is entered while a new run is being stored."""

    def __init__(  # noqa: PLR0913  # each of another layer, all by name
        self,
        *,
        store: RunStore,
        supervisor: Supervisor,
        clock: Clock,
        ids: IdSource,
        random: Random,
        queued_limit: int = 10_000,
        watch: Callable[[Run], AbstractContextManager[object]] = nullcontext,
        audit: AuditLog | None = None,
        standing: Standing | None = None,
        answer_s: float = ANSWER_S,
    ) -> None:
        super().__init__(store, supervisor)
        self._clock = clock
        self._ids = ids
        self._random = random
        self._queued_limit = queued_limit
        self._watch = watch
        self._audit = audit
        self._standing = standing or Standing()
        self._answer_s = answer_s
        self._by_key: dict[str, asyncio.Task[str]] = {}
        self._submissions: set[asyncio.Task[str]] = set()
        self._arriving: set[str] = set()

    async def submit(
        self,
        spec: DagSpec,
        *,
        source: Source = Source.MANUAL,
        owner: str = "",
        key: str = "",
        parent: str = "",
        number: int = 0,
        origin: Origin = NOBODY,
    ) -> str:
        """Store a run and start it; return its id once it is stored.

        `key` is the caller's Idempotency-Key or empty: the same key of the same owner gives the
        same run. `number` makes it a simple task. `origin` is for the audit. Raises `TooManyError`
        when too many runs are queued, and `UnavailableError` when the store does not answer: then
        the run may or may not exist, and the same call with the same key finds out.
        """
        self._standing.check()
        unique = f"idempotency/{owner}/{key}" if key else ""
        task = self._by_key.get(unique) if unique else None
        if task is None:
            wanted = Wanted(source, owner, unique, parent, number, origin)
            task = asyncio.create_task(self._submit(spec, wanted), name="submit run")
            self._keep(task, unique)
        async with in_time(NOT_KNOWN, self._answer_s):
            run_id = await asyncio.shield(task)
            if key:
                await self._check_kind(run_id, parent, number)
        return run_id

    async def _check_kind(self, run_id: str, parent: str, number: int) -> None:
        """Raise `ConflictError` if a key's run is not of the kind that was asked for."""
        header = (await self._store.run(run_id)).header
        if header.parent_run_id != parent or bool(header.number) != bool(number):
            raise ConflictError(f"this Idempotency-Key was used for another request: run {run_id}")

    def _keep(self, task: asyncio.Task[str], unique: str) -> None:
        """Let a submission end even if the caller goes away, and let repeats find it."""
        self._submissions.add(task)
        if unique:
            self._by_key[unique] = task

        def forget(_: asyncio.Task[str]) -> None:
            self._submissions.discard(task)
            self._by_key.pop(unique, None)
            if not task.cancelled():
                task.exception()

        task.add_done_callback(forget)

    async def _submit(self, spec: DagSpec, wanted: Wanted) -> str:
        if wanted.unique and (known := await self._store.run_by_key(wanted.unique)):
            return known
        now = self._clock.now_ms()
        run_id = new_run_id(now, self._random)
        self._check_queue()
        self._arriving.add(run_id)
        try:
            await self._store.check_room()
            header = self._header(run_id, now, spec, wanted)
            large = len(spec.tasks) > LARGE_RUN
            run = await asyncio.to_thread(Run, header, spec) if large else Run(header, spec)
            with self._watch(run):
                await self._supervisor.submit(run, self._submitted(run, wanted))
        finally:
            self._arriving.discard(run_id)
        return run_id

    def _check_queue(self) -> None:
        """Raise `TooManyError` if as many runs are here, or being stored, as may be."""
        here = self._supervisor.runs
        arriving = sum(run_id not in here for run_id in self._arriving)
        if len(here) + arriving >= self._queued_limit:
            raise TooManyError(f"{self._queued_limit} runs are queued already", retry_after_s=10)

    def _submitted(self, run: Run, wanted: Wanted) -> AuditEntry | None:
        if self._audit is None:
            return None
        action = "run.rerun" if wanted.parent else "run.submit"
        detail: dict[str, JSON] = {"name": run.header.name, "source": wanted.source.value}
        if wanted.parent:
            detail["parent_run_id"] = wanted.parent
        if wanted.number:
            action, detail["task"] = "task.submit", wanted.number
        return self._audit.entry(wanted.origin, action, run.id, detail=detail)

    def _header(self, run_id: str, now: int, spec: DagSpec, wanted: Wanted) -> RunHeader:
        return RunHeader(
            run_id=run_id,
            ord=self._ids.take(now),
            name=spec.name,
            source=wanted.source,
            created_ms=now,
            first_task_id=self._ids.take(now, len(spec.tasks)),
            owner=wanted.owner,
            parent_run_id=wanted.parent,
            unique_key=wanted.unique,
            number=wanted.number,
        )

    async def close(self) -> None:
        """Wait a moment for submissions under way; what is not stored by then was not answered."""
        if self._submissions:
            timeout = CLOSE_S if self._standing.is_active else 0
            _, late = await asyncio.wait(set(self._submissions), timeout=timeout)
            for task in late:
                task.cancel()

    async def cancel(
        self, run_id: str, *, by: str, task_id: str | None = None, origin: Origin = NOBODY
    ) -> None:
        """Stop a run, or one task of it; returns once that is stored, maybe before it is over.

        Raises `NotFoundError`, `ConflictError` if it has ended, or `UnavailableError`.
        """
        self._standing.check()
        async with in_time(NOT_STOPPED, self._answer_s):
            await self._cancel(run_id, task_id, by, origin)

    async def _cancel(self, run_id: str, task_id: str | None, by: str, origin: Origin) -> None:
        if run_id in self._supervisor.runs:
            entry = None
            if self._audit is not None:
                detail: dict[str, JSON] = {"task_id": task_id} if task_id else {}
                entry = self._audit.entry(origin, "run.cancel", run_id, detail=detail)
            try:
                await self._supervisor.cancel(run_id, task_id, by, entry)
            except NotFoundError as exc:
                if exc.kind != "run":  # else it ended while the command waited for its turn
                    raise
            else:
                return
        row = await self._store.run(run_id)
        raise ConflictError(f"run {run_id} has already ended: {row.state.status.word}")

    async def rerun(
        self,
        run_id: str,
        *,
        from_failed: bool,
        owner: str = "",
        key: str = "",
        origin: Origin = NOBODY,
    ) -> str:
        """Make a new run of an ended one's spec, which names it as parent; return its id.

        With `from_failed`, only the tasks that did not succeed, their edges to the others dropped.
        Raises `NotFoundError`; `ConflictError` if the run has not ended or nothing of it failed;
        what `submit` raises.
        """
        self._standing.check()
        async with in_time(NOT_KNOWN, self._answer_s):
            view = await self.get(run_id)
            spec = _spec_again(view, from_failed=from_failed)
            return await self.submit(
                spec,
                source=view.row.header.source,
                owner=owner,
                key=key,
                parent=run_id,
                origin=origin,
            )


def _spec_again(view: RunView, *, from_failed: bool) -> DagSpec:
    """Return what to run of an ended run; raise `ConflictError` if there is nothing to run."""
    run_id = view.row.header.run_id
    if view.row.state.status is RunStatus.RUNNING:
        raise ConflictError(f"run {run_id} has not ended yet")
    if not from_failed:
        return view.spec
    spec = _failed_part(view)
    if not spec.tasks:
        raise ConflictError(f"every task of run {run_id} succeeded; nothing to run again")
    return spec


def _failed_part(view: RunView) -> DagSpec:
    failed = {
        task.row.spec.id for task in view.tasks if task.row.state.status is not Status.SUCCESS
    }
    tasks = tuple(
        replace(task, deps=tuple(dep for dep in task.deps if dep in failed))
        for task in view.spec.tasks
        if task.id in failed
    )
    return replace(view.spec, tasks=tasks)
