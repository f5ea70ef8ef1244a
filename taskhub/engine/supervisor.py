"""Drives all runs: takes in what happened, decides, stores, and only then acts."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

from taskhub.domain import rules
from taskhub.domain.ids import attempt_key
from taskhub.domain.result import Output, Result
from taskhub.domain.retry import retry_delay_ms
from taskhub.domain.run import Phase, Run, RunStatus, TaskState
from taskhub.engine.attempt import CANCEL, SHUTDOWN, Attempt
from taskhub.engine.journal import Journal
from taskhub.engine.launcher import STOP_GRACE_MS, Ended, Launcher
from taskhub.engine.scheduler import Scheduler
from taskhub.engine.timers import Timer, Timers
from taskhub.errors import ConflictError, NotFoundError, UnavailableError

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.007
SETTLE_BUDGET: Final = 500
STORE_GRACE_S: Final = 5.0
"""How long an orderly stop waits for a store that does not answer."""


LOST: Final = Ended(Result.lost("the server stopped while the attempt was running"), Output(), 0)


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
        epoch: int,
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.submitted = 0
        self._journal = journal
        self._launcher = launcher
        self._timers = timers
        self._scheduler = scheduler
        self._epoch = epoch
        self._inbox: deque[Callable[[], None]] = deque()
        self._unsettled: dict[str, Run] = {}
        self._to_start: list[tuple[Run, TaskState]] = []
        self._to_stop: list[Attempt] = []
        self._told: list[asyncio.Future[None]] = []
        self._ended: list[Run] = []
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._retries: dict[str, dict[str, Timer]] = {}
        self._wake = asyncio.Event()
        self._is_paused = False

    @property
    def running(self) -> int:
        """How many attempts are running."""
        return self._scheduler.running

    @property
    def limit(self) -> int:
        """How many attempts may run at once."""
        return self._scheduler.limit

    async def submit(self, run: Run) -> None:
        """Take up a new run; returns when it is stored. Raises `UnavailableError`."""
        if self._is_paused:
            raise UnavailableError("the server is stopping and takes no new runs")
        self._refuse_while_failing()
        await self._command(lambda: self._take_up(run))

    async def cancel(self, run_id: str, task_id: str | None, by: str) -> None:
        """Stop a run or one of its tasks; returns when that is stored.

        Raises `NotFoundError` for a run that is not here, `ConflictError` if it is over.
        """
        self._refuse_while_failing()
        await self._command(lambda: self._cancel(run_id, task_id, by))

    async def wait(self, run_id: str) -> Run | None:
        """Return the run when it has ended, and that is stored; None at once if it is not here."""
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

    def adopt(self, run: Run) -> None:
        """Go on with a run of an earlier server; every running attempt of it is lost.

        For use before `run`: recovery.
        """
        self.runs[run.id] = run
        self.submitted += run.left
        for task in run.tasks.values():
            if task.phase is Phase.RUNNING:
                self._scheduler.running += 1
                self._inbox.append(partial(self._outcome, run, task, task.attempt, LOST))
            elif task.phase is Phase.BACKOFF:
                self._await_retry(run, task)
        self._touch(run)
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
            if self._inbox or self._unsettled:
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

    def _refuse_while_failing(self) -> None:
        if self._journal.is_failing:
            raise UnavailableError("the store is not writing at present; try again")

    async def _command(self, call: Callable[[], None]) -> None:
        """Make `call` in the next tick; return after its commit, or raise what it raised."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def run() -> None:
            try:
                call()
            except (NotFoundError, ConflictError) as exc:
                if not future.done():
                    future.set_exception(exc)
            else:
                self._told.append(future)

        self._inbox.append(run)
        self._wake.set()
        await future

    def _tick(self) -> None:
        self._journal.begin_tick()
        deadline = perf_counter() + TICK_SECONDS
        while self._inbox:
            self._inbox.popleft()()
            if perf_counter() > deadline:
                break
        self._settle()
        if not self._is_paused:
            self._start_ready(deadline)

    def _touch(self, run: Run) -> None:
        self._unsettled[run.id] = run

    def _settle(self) -> None:
        budget = SETTLE_BUDGET
        touched, self._unsettled = self._unsettled, {}
        for run in touched.values():
            budget = rules.settle(run, self._journal.record, budget)
            if run.agenda:
                self._touch(run)
            if run.is_stopping:
                self._stop_attempts(run)
            if run.status is not RunStatus.RUNNING:
                self._ended.append(run)
                self._scheduler.forget(run)
            else:
                self._scheduler.offer(run)

    def _start_ready(self, deadline: float) -> None:
        while pick := self._scheduler.next():
            run, task = pick
            key = attempt_key(run.id, task.index, task.attempt + 1)
            rules.start_attempt(run, task, self._journal.record, attempt_key=key, epoch=self._epoch)
            self._scheduler.running += 1
            self._scheduler.offer(run)
            self._to_start.append(pick)
            if perf_counter() > deadline:
                self._wake.set()
                return

    def _act(self) -> None:
        """Do what the commit allows: nothing before it, all of it after."""
        starts, self._to_start = self._to_start, []
        for run, task in starts:
            self._launch(run, task)
        stops, self._to_stop = self._to_stop, []
        for attempt in stops:
            self._launcher.stop(attempt, CANCEL)
        told, self._told = self._told, []
        ended, self._ended = self._ended, []
        for run in ended:
            self.runs.pop(run.id, None)
            for timer in self._retries.pop(run.id, {}).values():
                timer.cancel()
            told.extend(self._waiters.pop(run.id, ()))
            log.info("run ended", extra={"run_id": run.id, "status": run.status.word})
        for future in told:
            if not future.done():
                future.set_result(None)

    def _launch(self, run: Run, task: TaskState) -> None:
        number = task.attempt

        def ended(end: Ended) -> None:
            self._inbox.append(lambda: self._outcome(run, task, number, end))
            self._wake.set()

        self._launcher.launch(run.id, task, ended)

    def _outcome(self, run: Run, task: TaskState, number: int, end: Ended) -> None:
        if task.phase is not Phase.RUNNING or task.attempt != number:
            extra = {"run_id": run.id, "task_id": task.spec.id, "attempt": number}
            log.warning("late outcome dropped", extra=extra)
            return
        self._scheduler.running -= 1
        rules.end_attempt(
            run,
            task,
            end.result,
            self._journal.record,
            duration_ms=end.duration_ms,
            now_ms=self._journal.now_ms,
        )
        self._journal.add_output(run, task, end.output)
        if task.retry_at_ms:
            self._await_retry(run, task)
        self._touch(run)

    def _await_retry(self, run: Run, task: TaskState) -> None:
        def due() -> None:
            self._inbox.append(lambda: self._retry(run, task))
            self._wake.set()

        # a clock that was ahead and has been set right must not make the pause longer
        left = task.retry_at_ms - self._journal.now_ms
        pause = min(left, retry_delay_ms(task.spec, task.attempt))
        self._retries.setdefault(run.id, {})[task.spec.id] = self._timers.after(pause, due)

    def _retry(self, run: Run, task: TaskState) -> None:
        if run.id in self.runs:
            self._retries[run.id].pop(task.spec.id, None)
            rules.retry_now(run, task, self._journal.record)
            self._touch(run)

    def _take_up(self, run: Run) -> None:
        self._journal.add_run(run)
        self.runs[run.id] = run
        self.submitted += len(run.tasks)
        rules.start_run(run, self._journal.record)
        self._touch(run)

    def _cancel(self, run_id: str, task_id: str | None, by: str) -> None:
        run = self.runs.get(run_id)
        if run is None:
            raise NotFoundError("run", run_id)
        if run.status is not RunStatus.RUNNING:
            raise ConflictError(f"run {run_id} has already ended: {run.status.word}")
        if task_id is None:
            rules.cancel_run(run, self._journal.record, by)
        else:
            task = run.tasks.get(task_id)
            if task is None:
                raise NotFoundError("task", task_id)
            if task.phase is Phase.DONE:
                raise ConflictError(f"task {task_id} has already ended: {task.status.word}")
            rules.cancel_task(run, task, self._journal.record, by)
            if attempt := self._launcher.find(run.id, task_id):
                self._to_stop.append(attempt)
        self._touch(run)

    def _stop_attempts(self, run: Run) -> None:
        by = "fail_fast" if run.fail_fast else "run"
        for attempt in self._launcher.running(run.id):
            if attempt.stop is None:
                rules.cancel_task(run, run.tasks[attempt.task.id], self._journal.record, by)
                self._to_stop.append(attempt)
