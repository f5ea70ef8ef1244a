"""Starts attempts, stops them, and hears of their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from taskhub.domain.result import NO_EXIT_CODE, Output, Result
from taskhub.domain.run import TaskState
from taskhub.domain.secrets import Secrets
from taskhub.domain.task import Status, TaskSpec
from taskhub.engine.attempt import Attempt, Stop, carry_out
from taskhub.engine.output import AttemptLog, LogWriter, OutputLimits
from taskhub.engine.timers import Timer, Timers
from taskhub.ports.executor import Context, Executor, Executors

log = logging.getLogger(__name__)

STOP_GRACE_MS: Final = 30_000
"""How long an executor may take to stop before it is given up; above any kill grace of its own."""
CLOSE_S: Final = 1.0
"""How long it may take to stop when the server ends without waiting, before it is told again."""


class Ended(NamedTuple):
    """How an attempt ended, the end of its output, and how long it took."""

    result: Result
    output: Output
    duration_ms: int


class Missing(Executor):
    """Stands in for an executor that was installed when the run was made and is not any more."""

    async def execute(self, context: Context) -> Result:
        name = context.task.exec_type
        return Result.failed(f"executor {name} is not installed on this server", NO_EXIT_CODE)


class Live(NamedTuple):
    """An attempt under way: its asyncio task, whom to tell of its end, timers that end with it."""

    task: asyncio.Task[None]
    ended: Callable[[Ended], None]
    timers: list[Timer]


class Launcher:
    """Runs each attempt in an asyncio task of its own, named after the attempt."""

    def __init__(
        self,
        executors: Executors,
        writer: LogWriter,
        timers: Timers,
        limits: OutputLimits | None = None,
        stop_grace_ms: int = STOP_GRACE_MS,
        secrets: Secrets | None = None,
    ) -> None:
        self._executors = {
            name: found.executor for name, found in executors.items() if found.executor
        }
        self._missing = Missing()
        self._writer = writer
        self._clock = writer.clock
        self._timers = timers
        self._limits = limits or OutputLimits()
        self._stop_grace_ms = stop_grace_ms
        self._secrets = secrets or Secrets()
        self._live: dict[Attempt, Live] = {}
        self._by_run: dict[str, dict[str, Attempt]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()

    def running(self, run_id: str) -> Collection[Attempt]:
        """Return the attempts of a run that are under way."""
        return tuple(self._by_run.get(run_id, {}).values())

    def find(self, run_id: str, task_id: str) -> Attempt | None:
        """Return the attempt of a task that is under way."""
        return self._by_run.get(run_id, {}).get(task_id)

    def launch(self, run_id: str, task: TaskState, ended: Callable[[Ended], None]) -> None:
        """Start the current attempt of a task; `ended` is called once, with how it ended."""
        spec = task.spec
        attempt = Attempt(
            run_id=run_id,
            task=spec,
            attempt=task.attempt,
            attempt_key=task.attempt_key,
            deadline_ms=self._clock.now_ms() + spec.timeout_ms if spec.timeout_ms else None,
            output=self._open_log(run_id, spec, task.attempt),
            started_ms=self._clock.monotonic_ms(),
            secrets=self._secrets,
        )
        live = asyncio.create_task(self._carry_out(attempt), name=f"attempt {task.attempt_key}")
        self._live[attempt] = Live(live, ended, [])
        if spec.timeout_ms:
            self._live[attempt].timers.append(self._limit_time(attempt))
        self._by_run.setdefault(run_id, {})[spec.id] = attempt

    def _limit_time(self, attempt: Attempt) -> Timer:
        limit = attempt.task.timeout_ms
        stop = Stop(Status.TIMEOUT, f"timed out after {limit} ms")
        return self._timers.after(limit, lambda: self.stop(attempt, stop))

    def _open_log(self, run_id: str, spec: TaskSpec, number: int) -> AttemptLog:
        return AttemptLog(
            self._writer, run_id=run_id, task_id=spec.id, attempt=number, limits=self._limits
        )

    async def _carry_out(self, attempt: Attempt) -> None:
        executor = self._executors.get(attempt.task.exec_type.lower(), self._missing)
        if attempt.attempt > 1:
            await attempt.output.continue_numbering()
        result, output = await carry_out(executor, attempt)
        attempt.output.end()
        live = self._forget(attempt)
        if live is None:
            extra = {"run_id": attempt.run_id, "task_id": attempt.task.id}
            log.warning("abandoned attempt has stopped after all", extra=extra)
        else:
            live.ended(Ended(result, output, self._elapsed_ms(attempt)))

    def stop(self, attempt: Attempt, stop: Stop) -> None:
        """Tell an attempt to stop; one that is over or was told before goes on as it is."""
        live = self._live.get(attempt)
        if live is not None and attempt.stop is None:
            attempt.stop = stop
            if attempt.is_executing:
                live.task.cancel()
                grace = self._timers.after(self._stop_grace_ms, lambda: self._abandon(attempt))
                live.timers.append(grace)

    def _abandon(self, attempt: Attempt) -> None:
        """Give up on an attempt whose executor does not stop; its end is not awaited any more."""
        live = self._forget(attempt)
        if live is None or attempt.stop is None:
            return
        attempt.output.end()
        self._abandoned.add(live.task)
        live.task.add_done_callback(self._abandoned.discard)
        extra = {"run_id": attempt.run_id, "task_id": attempt.task.id}
        log.error("executor does not stop, attempt abandoned", extra=extra)
        message = f"{attempt.stop.message}; the executor did not stop"
        result = Result(status=attempt.stop.status, exit_code=NO_EXIT_CODE, message=message)
        live.ended(Ended(result, Output(), self._elapsed_ms(attempt)))

    def _forget(self, attempt: Attempt) -> Live | None:
        live = self._live.pop(attempt, None)
        if live is None:
            return None
        for timer in live.timers:
            timer.cancel()
        of_run = self._by_run[attempt.run_id]
        del of_run[attempt.task.id]
        if not of_run:
            del self._by_run[attempt.run_id]
        return live

    def _elapsed_ms(self, attempt: Attempt) -> int:
        ended_ms = self._clock.monotonic_ms() if attempt.ended_ms is None else attempt.ended_ms
        return ended_ms - attempt.started_ms

    def stop_all(self, stop: Stop) -> None:
        """Tell every attempt to stop."""
        for attempt in tuple(self._live):
            self.stop(attempt, stop)

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is running, at most so long."""
        deadline = self._clock.monotonic_ms() + seconds * 1000
        while self._live:
            left = deadline - self._clock.monotonic_ms()
            if left <= 0:
                return
            await asyncio.wait({live.task for live in self._live.values()}, timeout=left / 1000)

    async def close(self) -> None:
        """End what was abandoned or is still running; wait a moment for it.

        Nothing of it is stored any more. What does not end when it is told is told again: Shell
        then kills at once.
        """
        for attempt in self._live:
            attempt.output.drop()
        tasks = {*self._abandoned, *(live.task for live in self._live.values())}
        for _ in range(2):
            for task in tasks:
                task.cancel()
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=CLOSE_S)
