"""One attempt at one task, from its start to its outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Final

from taskhub.domain.log import Level, Stream
from taskhub.domain.redaction import Redaction
from taskhub.domain.result import NO_EXIT_CODE, Output, Result
from taskhub.domain.secrets import Secrets
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.engine.output import AttemptLog
from taskhub.engine.plain import plain, presentable
from taskhub.ports.executor import Executor

log = logging.getLogger(__name__)


class Stop:
    """Why an attempt was told to stop, and how that reads in its result."""

    __slots__ = ("message", "status")

    def __init__(self, status: Status, message: str) -> None:
        self.status = status
        self.message = message


CANCEL: Final = Stop(Status.CANCELED, "canceled")
SHUTDOWN: Final = Stop(Status.FAILED, "lost: the server was stopped before the attempt ended")


class Attempt:
    """Implements `taskhub.ports.executor.Context`; the engine's handle on what runs."""

    def __init__(
        self,
        *,
        run_id: str,
        task: TaskSpec,
        attempt: int,
        attempt_key: str,
        deadline_ms: int | None,
        output: AttemptLog,
        started_ms: int,
        secrets: Secrets,
    ) -> None:
        self.run_id = run_id
        self.task = task
        self.attempt = attempt
        self.attempt_key = attempt_key
        self.deadline_ms = deadline_ms
        self.output = output
        self.started_ms = started_ms
        self._secrets = secrets
        self.stop: Stop | None = None
        self.is_executing = False
        self.ended_ms: int | None = None
        """When the executor had done its work, on the monotonic clock; its output may wait."""

    @cached_property
    def redaction(self) -> Redaction:
        """Takes this task's secrets out of whatever the executor says."""
        return Redaction(self._secrets, self.task.exec_params, self.task.metadata)

    def write(self, stream: Stream, data: bytes) -> None:
        if self.task.capture_output:
            self.output.write(stream, data)

    def log(
        self, message: str, level: Level = Level.INFO, fields: Mapping[str, JSON] | None = None
    ) -> None:
        if fields:
            fields = self.redaction.object(plain(fields))
        self.output.log(self.redaction.text(message), level, fields)

    async def drain(self) -> None:
        await self.output.drain()


async def carry_out(executor: Executor, attempt: Attempt) -> tuple[Result, Output]:
    """Let the executor do its work; whatever it does, the answer is an outcome and its output.

    While `attempt.is_executing`, cancelling this coroutine after setting `attempt.stop` ends the
    attempt that way. A stop before that keeps the executor from starting; one after it comes too
    late to change what is known.
    """
    result = Result.failed("", NO_EXIT_CODE) if attempt.stop else await _judge(executor, attempt)
    attempt.ended_ms = attempt.output.clock.monotonic_ms()
    if attempt.stop is not None and result.status is not Status.SUCCESS:
        result = _stopped(attempt.stop, result)
    output = await attempt.output.close()
    if cut := attempt.output.cut_bytes:
        result = replace(result, metadata={**result.metadata, "output_cut_bytes": cut})
    return result, output


async def _judge(executor: Executor, attempt: Attempt) -> Result:
    attempt.is_executing = True
    try:
        return _presentable(await executor.execute(attempt), attempt.redaction)
    except asyncio.CancelledError:
        if attempt.stop is None:
            return Result.failed("the executor cancelled itself", NO_EXIT_CODE)
        return Result.failed("", NO_EXIT_CODE)
    except Exception as exc:  # noqa: BLE001  # a plugin may raise anything
        error = presentable(attempt.redaction.text(f"{type(exc).__name__}: {exc}"))
        extra = {"run_id": attempt.run_id, "task_id": attempt.task.id, "error": error[:500]}
        log.info("executor raised", extra=extra)
        return Result.failed(error)
    finally:
        attempt.is_executing = False


def _presentable(returned: object, redaction: Redaction) -> Result:
    """Return what an executor returned as something that any store and any client may have."""
    if not isinstance(returned, Result):
        raise TypeError(f"the executor returned {type(returned).__name__}, not a Result")
    status = Status(returned.status)
    return Result(
        status=status if status.is_final else Status.FAILED,
        exit_code=max(-(2**31), min(2**31 - 1, int(returned.exit_code))),
        message=presentable(redaction.text(str(returned.message))),
        metadata=redaction.object(plain(returned.metadata)) if returned.metadata else {},
    )


def _stopped(stop: Stop, result: Result) -> Result:
    metadata = dict(result.metadata)
    if stop is SHUTDOWN:
        metadata["outcome"] = "unknown"
    return Result(
        status=stop.status, exit_code=result.exit_code, message=stop.message, metadata=metadata
    )
