"""Drives all runs: takes in what happened, decides, stores, and only then acts."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final

from taskhub.domain.audit import AuditEntry
from taskhub.domain.run import Run
from taskhub.engine.attempt import SHUTDOWN
from taskhub.engine.journal import Journal
from taskhub.engine.launcher import STOP_GRACE_MS, Launcher
from taskhub.engine.progress import Progress
from taskhub.engine.scheduler import Scheduler
from taskhub.engine.timers import Timers
from taskhub.errors import ConflictError, NotFoundError, UnavailableError

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.007
STORE_GRACE_S: Final = 5.0
"""How long an orderly stop waits for a store that does not answer."""


class Supervisor:
    """Owns every run that has not ended.

    All changes happen in its loop, in ticks: commands and outcomes that came in since the last
    tick are turned into events; one commit stores them; after it, attempts are started and
    stopped, and whoever waits is told. While a commit is under way the next tick fills up, so
    the busier the server is, the more shares a commit. A tick takes a few milliseconds at most;
    what is left of it comes with the next.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        launcher: Launcher,
        timers: Timers,
        scheduler: Scheduler,
        epoch: int = 0,
    ) -> None:
        self._journal = journal
        self._launcher = launcher
        self._scheduler = scheduler
        self._progress = Progress(
            journal=journal,
            launcher=launcher,
            timers=timers,
            scheduler=scheduler,
            epoch=epoch,
            post=self._post,
        )
        self._inbox: deque[Callable[[], None]] = deque()
        self._asked: set[asyncio.Future[None]] = set()
        self._told: list[asyncio.Future[None]] = []
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()
        self._is_paused = False
        self._refusal = ""

    @property
    def runs(self) -> Mapping[str, Run]:
        """The runs that have not ended, by id."""
        return self._progress.runs

    @property
    def submitted(self) -> int:
        """How many tasks were taken up since the server started."""
        return self._progress.submitted

    @property
    def running(self) -> int:
        """How many attempts are running."""
        return self._scheduler.running

    @property
    def limit(self) -> int:
        """How many attempts may run at once."""
        return self._scheduler.limit

    async def submit(self, run: Run, audit: AuditEntry | None = None) -> None:
        """Take up a new run; returns when it is stored, and `audit` with it.

        Raises `UnavailableError`.
        """
        if self._is_paused:
            raise UnavailableError("the server is stopping and takes no new runs")
        self._check()
        await self._command(lambda: self._progress.take_up(run), audit)

    async def cancel(
        self, run_id: str, task_id: str | None, by: str, audit: AuditEntry | None = None
    ) -> None:
        """Stop a run or one of its tasks; returns when that is stored, and `audit` with it.

        Raises `NotFoundError` for a run that is not here, `ConflictError` if it is over.
        """
        self._check()
        await self._command(lambda: self._progress.cancel(run_id, task_id, by), audit)

    async def wait(self, run_id: str) -> Run | None:
        """Return the run when it has ended, and that is stored; None at once if it is not here.

        Raises `UnavailableError` if this server will not see its end.
        """
        run = self.runs.get(run_id)
        if run is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(run_id, set())
            waiters.add(future)
            try:
                await future
            finally:
                waiters.discard(future)
        return run

    def begin(self, epoch: int) -> None:
        """Be the server of this number from now on; for use before `adopt`."""
        self._progress.epoch = epoch
        self._journal.begin_tick()

    def adopt(self, run: Run) -> None:
        """Go on with a run of an earlier server; for use before `run`: recovery."""
        self._progress.adopt(run)
        self._wake.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._tick()
            if not self._journal.is_empty:
                await self._journal.commit()
            self._act()
            if self._inbox or not self._progress.is_settled:
                self._wake.set()
                await asyncio.sleep(0)

    async def stop(self, grace_s: float) -> None:
        """Start nothing more; wait for what runs, then end it; return when all is stored."""
        self._is_paused = True
        await self._store_all()  # with what is being stored now, the last attempts start
        await self._launcher.drain(grace_s)
        self._launcher.stop_all(SHUTDOWN)
        await self._launcher.drain(STOP_GRACE_MS / 1000 + 1)
        await self._store_all()

    async def _store_all(self) -> None:
        try:
            await asyncio.wait_for(self._command(lambda: None), STORE_GRACE_S)
        except TimeoutError:
            log.error("store does not answer, the next start recovers what it lacks")  # noqa: TRY400

    def abandon(self, reason: str) -> None:
        """Tell whoever waits that no more is stored here; for use once `run` has ended."""
        self._refusal = reason
        waiters = (future for waiting in self._waiters.values() for future in waiting)
        for future in (*self._asked, *waiters):
            if not future.done():
                future.set_exception(UnavailableError(reason))

    def _check(self) -> None:
        if self._refusal:
            raise UnavailableError(self._refusal)
        if self._journal.is_failing:
            raise UnavailableError("the store is not writing at present; try again")

    async def _command(self, call: Callable[[], None], audit: AuditEntry | None = None) -> None:
        """Make `call` in the next tick; return after its commit, or raise what it raised.

        `audit` is committed with what follows, unless it raised.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def run() -> None:
            try:
                call()
            except (NotFoundError, ConflictError) as exc:
                if not future.done():
                    future.set_exception(exc)
            else:
                if audit is not None:
                    self._journal.add_audit(audit)
                self._told.append(future)

        self._post(run)
        self._asked.add(future)
        try:
            await future
        finally:
            self._asked.discard(future)

    def _post(self, call: Callable[[], None]) -> None:
        self._inbox.append(call)
        self._wake.set()

    def _tick(self) -> None:
        self._journal.begin_tick()
        deadline = perf_counter() + TICK_SECONDS
        while self._inbox:
            self._inbox.popleft()()
            if perf_counter() > deadline:
                break
        self._progress.settle()
        if not self._is_paused and not self._progress.start_ready(deadline):
            self._wake.set()

    def _act(self) -> None:
        told, self._told = self._told, []
        for run in self._progress.act():
            told.extend(self._waiters.pop(run.id, ()))
        for future in told:
            if not future.done():
                future.set_result(None)
