"""Starts attempts, stops them, and hears of their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from taskhub.domain.result import NO_EXIT_CODE, Output, Result
from taskhub.domain.run import TaskState
from taskhub.domain.task import TaskSpec
from taskhub.engine.attempt import Attempt, Stop, carry_out
from taskhub.engine.output import AttemptLog, LogWriter, OutputLimits
from taskhub.ports.executor import Context, Executor, Executors

log = logging.getLogger(__name__)

FIRST_SEQ: Final = 1


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


class Launcher:
    """Runs each attempt in an asyncio task of its own, named after the attempt."""

    def __init__(
        self, executors: Executors, writer: LogWriter, limits: OutputLimits | None = None
    ) -> None:
        self._executors = {
            name: found.executor for name, found in executors.items() if found.executor
        }
        self._missing = Missing()
        self._writer = writer
        self._clock = writer.clock
        self._limits = limits or OutputLimits()
        self._live: dict[Attempt, tuple[asyncio.Task[None], Callable[[Ended], None]]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The attempts that are running."""
        return {task for task, _ in self._live.values()}

    def launch(self, run_id: str, task: TaskState, ended: Callable[[Ended], None]) -> Attempt:
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
        )
        live = asyncio.create_task(self._carry_out(attempt), name=f"attempt {task.attempt_key}")
        self._live[attempt] = live, ended
        return attempt

    def _open_log(self, run_id: str, spec: TaskSpec, number: int) -> AttemptLog:
        return AttemptLog(
            self._writer, run_id=run_id, task_id=spec.id, attempt=number, limits=self._limits
        )

    async def _carry_out(self, attempt: Attempt) -> None:
        executor = self._executors.get(attempt.task.exec_type.lower(), self._missing)
        if attempt.attempt > 1:
            await attempt.output.continue_numbering()
        result, output = await carry_out(executor, attempt)
        self._finish(attempt, result, output)

    def _finish(self, attempt: Attempt, result: Result, output: Output) -> None:
        live = self._live.pop(attempt, None)
        if live is None:
            extra = {"run_id": attempt.run_id, "task_id": attempt.task.id}
            log.warning("abandoned attempt has stopped after all", extra=extra)
            return
        live[1](Ended(result, output, self._clock.monotonic_ms() - attempt.started_ms))

    def stop(self, attempt: Attempt, stop: Stop) -> bool:
        """Tell an attempt to stop; False if it is over or was told before."""
        live = self._live.get(attempt)
        if live is None or attempt.stop is not None:
            return False
        attempt.stop = stop
        live[0].cancel()
        return True

    def abandon(self, attempt: Attempt) -> None:
        """Give up on an attempt whose executor does not stop; its end is not awaited any more."""
        live = self._live.pop(attempt, None)
        if live is None or attempt.stop is None:
            return
        task, ended = live
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        extra = {"run_id": attempt.run_id, "task_id": attempt.task.id}
        log.error("executor does not stop, attempt abandoned", extra=extra)
        message = f"{attempt.stop.message}; the executor did not stop"
        result = Result(status=attempt.stop.status, exit_code=NO_EXIT_CODE, message=message)
        ended(Ended(result, Output(), self._clock.monotonic_ms() - attempt.started_ms))

    async def close(self) -> None:
        """Cancel what was abandoned and wait for it, a moment."""
        for task in self._abandoned:
            task.cancel()
        if self._abandoned:
            await asyncio.wait(set(self._abandoned), timeout=1)
