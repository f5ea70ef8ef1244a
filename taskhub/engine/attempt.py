"""One attempt at one task, from its start to its outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from taskhub.domain.log import Level, Stream
from taskhub.domain.result import NO_EXIT_CODE, Output, Result
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.engine.output import AttemptLog
from taskhub.ports.executor import Context, Executor

log = logging.getLogger(__name__)

MESSAGE_LIMIT: Final = 4096
METADATA_LIMIT: Final = 64 * 1024


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
    ) -> None:
        self.run_id = run_id
        self.task = task
        self.attempt = attempt
        self.attempt_key = attempt_key
        self.deadline_ms = deadline_ms
        self.output = output
        self.started_ms = started_ms
        self.stop: Stop | None = None

    def write(self, stream: Stream, data: bytes) -> None:
        if self.task.capture_output:
            self.output.write(stream, data)

    def log(
        self, message: str, level: Level = Level.INFO, fields: Mapping[str, JSON] | None = None
    ) -> None:
        self.output.log(message, level, fields)

    async def drain(self) -> None:
        await self.output.drain()


async def carry_out(executor: Executor, attempt: Attempt) -> tuple[Result, Output]:
    """Let the executor do its work; whatever it does, the answer is an outcome and its output.

    Cancelling this coroutine after setting `attempt.stop` ends the attempt that way.
    """
    result = await _judge(executor.execute, attempt)
    output = await attempt.output.close()
    if attempt.stop is not None and result.status is not Status.SUCCESS:
        result = _stopped(attempt.stop, result)
    if cut := attempt.output.cut_bytes:
        result = Result(
            status=result.status,
            exit_code=result.exit_code,
            message=result.message,
            metadata={**result.metadata, "output_cut_bytes": cut},
        )
    return result, output


async def _judge(execute: Callable[[Context], Awaitable[Any]], attempt: Attempt) -> Result:
    try:
        returned = await execute(attempt)
    except asyncio.CancelledError:
        if attempt.stop is None:
            return Result.failed("the executor cancelled itself", NO_EXIT_CODE)
        return Result.failed("", NO_EXIT_CODE)
    except Exception as exc:  # noqa: BLE001  # a plugin may raise anything
        log.info(
            "executor raised",
            extra={"run_id": attempt.run_id, "task_id": attempt.task.id, "error": repr(exc)[:500]},
        )
        return _presentable(Result.failed(f"{type(exc).__name__}: {exc}"))
    if isinstance(returned, Result):
        return _presentable(returned)
    return Result.failed(f"executor returned {type(returned).__name__}, not a Result")


def _presentable(result: Result) -> Result:
    """Return the result as something that any store and any client can take."""
    message = result.message[:MESSAGE_LIMIT].encode("utf-8", "replace").decode()
    return Result(
        status=result.status if result.status.is_final else Status.FAILED,
        exit_code=max(-(2**31), min(2**31 - 1, result.exit_code)),
        message=message,
        metadata=_plain(result.metadata) if result.metadata else {},
    )


def _plain(metadata: Mapping[str, JSON]) -> Mapping[str, JSON]:
    try:
        encoded = msgspec.json.encode(dict(metadata))
    except (TypeError, ValueError, RecursionError) as exc:
        return {"metadata_error": f"not JSON: {exc}"[:200]}
    if len(encoded) > METADATA_LIMIT:
        return {"metadata_error": f"{len(encoded)} bytes, more than {METADATA_LIMIT}"}
    plain: dict[str, JSON] = msgspec.json.decode(encoded)
    return plain


def _stopped(stop: Stop, result: Result) -> Result:
    metadata = dict(result.metadata)
    if stop is SHUTDOWN:
        metadata["outcome"] = "unknown"
    return Result(
        status=stop.status, exit_code=result.exit_code, message=stop.message, metadata=metadata
    )
