"""What follows from what: decisions about a run, each written down as an event at once.

Every function takes `record`, which makes the event, folds it into the run and keeps it for the
journal; so a decision always sees the state that the one before it left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from taskhub.domain.event import NOTHING, EventName
from taskhub.domain.result import NO_EXIT_CODE, Result
from taskhub.domain.retry import LOSS_LIMIT, may_retry, retry_delay_ms
from taskhub.domain.run import Phase, Run, RunStatus, TaskState
from taskhub.domain.task import JSON, Status

Record = Callable[[Run, EventName, str, Mapping[str, JSON]], None]

WHOLE_RUN: Final = ""


def start_run(run: Run, record: Record) -> None:
    """Begin the run; its first tasks are on the agenda afterwards."""
    header = run.header
    extra: dict[str, JSON] = {
        "name": header.name,
        "source": header.source.value,
        "total": len(run.tasks),
    }
    if header.parent_run_id:
        extra["parent_run_id"] = header.parent_run_id
    record(run, EventName.RUN_START, WHOLE_RUN, extra)


def settle(run: Run, record: Record, budget: int) -> int:
    """Write down up to `budget` consequences of what happened; return what is left of it.

    When nothing is left to do at all, the run ends. With the budget used up, the agenda keeps the
    rest: call again.
    """
    while run.agenda and budget > 0:
        task = run.agenda.popleft()
        if task.phase is not Phase.DONE and task.phase is not Phase.RUNNING:
            budget -= _settle_task(run, task, record)
    if not run.left and not run.agenda and run.status is RunStatus.RUNNING:
        _end_run(run, record)
    return budget


def _settle_task(run: Run, task: TaskState, record: Record) -> int:
    if run.cancel_requested or task.cancel_requested:
        return _close_canceled(run, task, record)
    if run.fail_fast:
        return _close_fast(run, task, record)
    if task.phase is not Phase.WAITING:
        return 0
    if culprit := _failed_dep(run, task):
        word = culprit.status.word
        return _skip(run, task, f"upstream task {culprit.spec.id} {word}", record)
    if not task.deps_left:
        record(run, EventName.NODE_READY, task.spec.id, NOTHING)
        return 1
    return 0


def _failed_dep(run: Run, task: TaskState) -> TaskState | None:
    deps = (run.tasks[dep] for dep in task.spec.deps)
    return next((d for d in deps if d.phase is Phase.DONE and d.status is not Status.SUCCESS), None)


def _skip(run: Run, task: TaskState, reason: str, record: Record) -> int:
    record(run, EventName.NODE_SKIPPED, task.spec.id, {"reason": reason})
    return 1


def _close_fast(run: Run, task: TaskState, record: Record) -> int:
    """Skip a task that never started; end one that waits to be retried with what it had."""
    if not task.attempt:
        return _skip(run, task, "another task failed, and fail_policy is FailFast", record)
    message = f"{task.message}; no retry, for another task failed"
    last = Result(status=task.outcome, exit_code=task.exit_code, message=message)
    _end_task(run, task, last, record)
    return 2


def _close_canceled(run: Run, task: TaskState, record: Record) -> int:
    if not task.cancel_requested:
        record(run, EventName.TASK_CANCELED, task.spec.id, {"by": run.canceled_by})
    canceled = Result(status=Status.CANCELED, exit_code=NO_EXIT_CODE, message="canceled")
    _end_task(run, task, canceled, record)
    return 3


def _end_task(run: Run, task: TaskState, result: Result, record: Record) -> None:
    extra: dict[str, JSON] = {
        "status": (status := int(result.status)),
        "status_name": result.status.word,
        "exit_code": result.exit_code,
        "message": result.message,
        "attempt": task.attempt,
    }
    record(run, EventName.TASK_END, task.spec.id, extra)
    record(run, EventName.NODE_END, task.spec.id, {"status": status})


def _end_run(run: Run, record: Record) -> None:
    if run.cancel_requested:
        status, message = RunStatus.CANCELED, "canceled"
    elif run.counts[Status.FAILED]:
        status, message = RunStatus.FAILED, "dag failed"
    else:
        status, message = RunStatus.SUCCESS, ""
    extra: dict[str, JSON] = {
        "status": status.value,
        "status_name": status.word,
        "message": message,
        "total": len(run.tasks),
        "success": run.counts[Status.SUCCESS],
        "failed": run.counts[Status.FAILED],
        "skipped": run.counts[Status.SKIPPED],
    }
    record(run, EventName.RUN_END, WHOLE_RUN, extra)


def start_attempt(
    run: Run, task: TaskState, record: Record, *, attempt_key: str, epoch: int
) -> None:
    """Write down the intent to start an attempt of a ready task; the start itself comes later."""
    if task.attempt == 0:
        record(run, EventName.NODE_START, task.spec.id, NOTHING)
        record(run, EventName.TASK_START, task.spec.id, NOTHING)
    extra: dict[str, JSON] = {
        "attempt": task.attempt + 1,
        "attempt_key": attempt_key,
        "epoch": epoch,
    }
    record(run, EventName.ATTEMPT_START, task.spec.id, extra)


def end_attempt(
    run: Run, task: TaskState, result: Result, record: Record, *, duration_ms: int, now_ms: int
) -> None:
    """Write down how the running attempt of a task ended, and whether another follows."""
    retries = (
        not (run.is_stopping or task.cancel_requested)
        and result.status is not Status.SUCCESS
        and may_retry(task.spec, task.attempt, run.losses_with(task), result)
    )
    if result.is_lost and task.spec.idempotent and run.losses_with(task) >= LOSS_LIMIT:
        result = replace(result, message=f"{result.message}; recovery limit reached")
    extra: dict[str, JSON] = {
        "attempt": task.attempt,
        "attempt_key": task.attempt_key,
        "status": int(result.status),
        "status_name": result.status.word,
        "exit_code": result.exit_code,
        "duration_ms": duration_ms,
        "message": result.message,
    }
    if result.metadata:
        extra["metadata"] = dict(result.metadata)
    if retries:
        extra["retry_at_ms"] = now_ms + retry_delay_ms(task.spec, task.attempt)
    record(run, EventName.ATTEMPT_END, task.spec.id, extra)
    if not retries:
        _end_task(run, task, result, record)


def retry_now(run: Run, task: TaskState, record: Record) -> None:
    """End the back-off of a task; a task that is in none stays as it is."""
    if task.phase is Phase.BACKOFF and not run.is_stopping:
        record(run, EventName.NODE_READY, task.spec.id, {"attempt": task.attempt + 1})


def cancel_run(run: Run, record: Record, by: str) -> None:
    """Write down that the run is to stop; repeated calls change nothing."""
    if not run.cancel_requested:
        record(run, EventName.TASK_CANCELED, WHOLE_RUN, {"by": by})


def cancel_task(run: Run, task: TaskState, record: Record, by: str) -> None:
    """Write down that one task is to stop; repeated calls change nothing."""
    if not task.cancel_requested:
        record(run, EventName.TASK_CANCELED, task.spec.id, {"by": by})
