"""What a tick decides about runs, and what is to be done once that is stored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Final

from taskhub.domain import rules
from taskhub.domain.ids import attempt_key
from taskhub.domain.result import Output, Result
from taskhub.domain.retry import retry_delay_ms
from taskhub.domain.run import Phase, Run, RunStatus, TaskState
from taskhub.engine.attempt import CANCEL, Attempt
from taskhub.engine.journal import Journal
from taskhub.engine.launcher import Ended, Launcher
from taskhub.engine.scheduler import Scheduler
from taskhub.engine.timers import Timer, Timers
from taskhub.errors import ConflictError, NotFoundError

log = logging.getLogger(__name__)

SETTLE_BUDGET: Final = 500
FAIL_FAST: Final = "fail_fast"
"""Stands in `by` where a failed task, and nobody, stopped the others."""
LOST: Final = Ended(Result.lost("the server stopped while the attempt was running"), Output(), 0)


class Progress:
    """Every run that has not ended, and what happens to it within a tick.

    Methods record events and remember what follows from them; `act` does it, after the commit.
    What happens outside of a tick (an attempt ends, a pause is over) comes in through `post`,
    which makes a call within the next one.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        launcher: Launcher,
        timers: Timers,
        scheduler: Scheduler,
        epoch: int,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.submitted = 0
        self._journal = journal
        self._launcher = launcher
        self._timers = timers
        self._scheduler = scheduler
        self.epoch = epoch
        self._post = post
        self._unsettled: dict[str, Run] = {}
        self._to_start: list[tuple[Run, TaskState]] = []
        self._to_stop: list[Attempt] = []
        self._ended: list[Run] = []
        self._retries: dict[str, dict[str, Timer]] = {}

    @property
    def is_settled(self) -> bool:
        """Whether all that follows from what happened is recorded."""
        return not self._unsettled

    def take_up(self, run: Run) -> None:
        """Begin a new run."""
        self._journal.add_run(run)
        self.runs[run.id] = run
        self.submitted += len(run.tasks)
        rules.start_run(run, self._journal.record)
        self._touch(run)

    def adopt(self, run: Run) -> None:
        """Go on with a run of an earlier server; every running attempt of it is lost."""
        if run.id in self.runs:
            raise ConflictError(f"run {run.id} is here already")
        self.runs[run.id] = run
        self.submitted += run.left
        for task in run.tasks.values():
            if task.phase is Phase.RUNNING:
                self._scheduler.running += 1
                self._post(partial(self._outcome, run, task, task.attempt, LOST))
            elif task.phase is Phase.BACKOFF:
                self._await_retry(run, task)
        self._touch(run)

    def cancel(self, run_id: str, task_id: str | None, by: str) -> None:
        """Stop a run or one of its tasks; raise `NotFoundError` or `ConflictError`."""
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

    def settle(self) -> None:
        """Record what follows from what happened, or as much of it as fits in a tick."""
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

    def start_ready(self, deadline: float) -> bool:
        """Record the start of ready tasks while slots last; False if time ran out first."""
        while pick := self._scheduler.next():
            run, task = pick
            key = attempt_key(run.id, task.index, task.attempt + 1)
            rules.start_attempt(run, task, self._journal.record, attempt_key=key, epoch=self.epoch)
            self._scheduler.running += 1
            self._scheduler.offer(run)
            self._to_start.append(pick)
            if perf_counter() > deadline:
                return False
        return True

    def act(self) -> Sequence[Run]:
        """Do what the commit allows: nothing before it, all of it after; return who has ended."""
        starts, self._to_start = self._to_start, []
        for run, task in starts:
            self._launch(run, task)
        stops, self._to_stop = self._to_stop, []
        for attempt in stops:
            self._launcher.stop(attempt, CANCEL)
        ended, self._ended = self._ended, []
        for run in ended:
            self.runs.pop(run.id, None)
            for timer in self._retries.pop(run.id, {}).values():
                timer.cancel()
            log.info("run ended", extra={"run_id": run.id, "status": run.status.word})
        return ended

    def _touch(self, run: Run) -> None:
        self._unsettled[run.id] = run

    def _launch(self, run: Run, task: TaskState) -> None:
        number = task.attempt

        def ended(end: Ended) -> None:
            self._post(lambda: self._outcome(run, task, number, end))

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
        task.printed = bool(end.output.stdout or end.output.stderr)
        self._journal.add_output(run, task, end.output)
        if task.retry_at_ms:
            self._await_retry(run, task)
        self._touch(run)

    def _await_retry(self, run: Run, task: TaskState) -> None:
        def due() -> None:
            self._post(lambda: self._retry(run, task))

        # a clock that was ahead and has been set right must not make the pause longer
        left = task.retry_at_ms - self._journal.now_ms
        pause = min(left, retry_delay_ms(task.spec, task.attempt))
        self._retries.setdefault(run.id, {})[task.spec.id] = self._timers.after(pause, due)

    def _retry(self, run: Run, task: TaskState) -> None:
        if run.id in self.runs:
            self._retries[run.id].pop(task.spec.id, None)
            rules.retry_now(run, task, self._journal.record)
            self._touch(run)

    def _stop_attempts(self, run: Run) -> None:
        by = run.canceled_by or FAIL_FAST
        for attempt in self._launcher.running(run.id):
            if attempt.stop is None:
                rules.cancel_task(run, run.tasks[attempt.task.id], self._journal.record, by)
                self._to_stop.append(attempt)
