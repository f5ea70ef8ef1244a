"""Domain values as clients see them: every field name of the answers is here.

What users and executors fill themselves passes `Secrets` on its way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from taskhub.domain.event import Event
from taskhub.domain.log import LogRecord
from taskhub.domain.secrets import Secrets
from taskhub.domain.task import Status, TaskSpec
from taskhub.domain.waiting import Blocker
from taskhub.ports.executor import Installed
from taskhub.ports.store import Page, RunRow
from taskhub.services.history import RunView, TaskView
from taskhub.web.offload import encoded
from taskhub.web.query import to_cursor

DAG_FAILED: Final = "dag failed"
ROW_BYTES: Final = 1024  # about what a row takes beside its texts


def run_item(row: RunRow) -> dict[str, Any]:
    """Return a run as lists show it."""
    header, state = row.header, row.state
    return {
        "run_id": header.run_id,
        "name": header.name,
        "source": header.source.value,
        "status": int(state.status),
        "status_name": state.status.word,
        "start_ts_ms": state.start_ts_ms,
        "end_ts_ms": state.end_ts_ms,
        "total": row.total,
        "success_count": state.success_count,
        "failed_count": state.failed_count,
        "skipped_count": state.skipped_count,
        "message": state.message,
        "created_ts_ms": header.created_ms,
        "owner": header.owner,
        "parent_run_id": header.parent_run_id,
    }


def task_item(task: TaskView, secrets: Secrets) -> dict[str, Any]:
    """Return a task_run as lists show it."""
    spec, state = task.row.spec, task.row.state
    return {
        "id": state.id,
        "run_id": state.run_id,
        "logical_id": spec.id,
        "task_id": spec.id,
        "name": spec.name,
        "exec_type": spec.exec_type,
        "exec_command": spec.exec_command,
        "exec_params": secrets.mask_object(spec.exec_params),
        "deps": list(spec.deps),
        "status": int(state.status),
        "status_name": state.status.word,
        "exit_code": state.exit_code,
        "duration_ms": state.duration_ms,
        "message": state.message,
        "stdout": task.output.stdout,
        "stderr": task.output.stderr,
        "attempt": state.attempt,
        "max_attempts": max(spec.max_attempts, state.attempt),
        "start_ts_ms": state.start_ts_ms,
        "end_ts_ms": state.end_ts_ms,
        "metadata": secrets.mask_object(state.metadata),
        "waiting_on": blocker(task.waiting_on),
    }


def blocker(found: Blocker | None) -> dict[str, Any] | None:
    """Return why a task is not running."""
    return None if found is None else {"reason": found.reason, **found.detail}


def node(task: TaskView, secrets: Secrets) -> dict[str, Any]:
    """Return a task of an ended run with its result."""
    state = task.row.state
    return {
        "id": task.row.spec.id,
        "run_id": state.run_id,
        "result": {
            "status": int(state.status),
            "status_name": state.status.word,
            "message": state.message,
            "exit_code": state.exit_code,
            "duration_ms": state.duration_ms,
            "stdout": task.output.stdout,
            "stderr": task.output.stderr,
            "attempt": state.attempt,
            "max_attempts": max(task.row.spec.max_attempts, task.row.state.attempt),
            "metadata": secrets.mask_object(state.metadata),
        },
    }


def run_result(view: RunView, secrets: Secrets) -> dict[str, Any]:
    """Return an ended run as `POST /api/dag/run` answers."""
    summary = _summary(view.tasks)
    return {
        "ok": not summary["failed"],
        "message": DAG_FAILED if summary["failed"] else "",
        "nodes": encoded(partial(node, secrets=secrets), view.tasks),
        "run_id": view.row.header.run_id,
        "summary": {"total": len(view.tasks), **summary},
    }


def _summary(tasks: Sequence[TaskView]) -> dict[str, list[str]]:
    summary: dict[str, list[str]] = {"success": [], "failed": [], "skipped": []}
    for task in tasks:
        status = task.row.state.status
        if status is Status.SUCCESS:
            summary["success"].append(task.row.spec.id)
        elif status.is_failure:
            summary["failed"].append(task.row.spec.id)
        elif status is Status.SKIPPED:
            summary["skipped"].append(task.row.spec.id)
    return summary


def run_detail(view: RunView, secrets: Secrets) -> dict[str, Any]:
    """Return a run with its spec and its task_runs."""
    spec = view.spec.to_json()
    return {
        "run": run_item(view.row),
        "spec": {**spec, "tasks": encoded(partial(spec_item, secrets=secrets), view.spec.tasks)},
        "task_runs": encoded(partial(task_item, secrets=secrets), view.tasks),
    }


def spec_item(spec: TaskSpec, secrets: Secrets) -> dict[str, Any]:
    """Return a task as its author wrote it."""
    return {
        **spec.to_json(),
        "exec_params": secrets.mask_object(spec.exec_params),
        "metadata": secrets.mask_object(spec.metadata),
    }


def task_ids(ids: Sequence[str]) -> list[dict[str, str]]:
    """Return under which task_id the logs and events of each task are found."""
    return [{"logical": task_id, "task_id": task_id} for task_id in ids]


def event_item(event: Event, secrets: Secrets) -> dict[str, Any]:
    """Return an event; what its `extra` holds also stands beside it, as the original sent it."""
    extra = secrets.mask_object(event.extra)
    return {
        **extra,
        "id": event.id,
        "task_id": event.task_id,
        "run_id": event.run_id,
        "type": "event",
        "event": event.name.value,
        "ts_ms": event.ts_ms,
        "seq": event.seq,
        "extra": extra,
    }


def log_item(numbered: tuple[int, LogRecord], secrets: Secrets) -> dict[str, Any]:
    """Return a line under the number it is shown with."""
    seq, record = numbered
    segment = record.segment
    return {
        "seq": seq,
        "task_id": record.task_id,
        "run_id": record.run_id,
        "dag_run_id": record.run_id,
        "cron_job_id": None,
        "worker_id": None,
        "level": int(segment.level),
        "stream": int(segment.stream),
        "message": record.message,
        "ts_ms": segment.ts_ms,
        "duration_ms": segment.duration_ms,
        "attempt": segment.attempt,
        "fields": secrets.mask_object(record.fields),
    }


def executor_item(installed: Installed) -> dict[str, Any]:
    """Return an installed executor, or why it cannot be used."""
    executor = installed.executor
    return {
        "name": installed.name,
        "source": installed.source,
        "version": installed.version,
        "parameters": None if executor is None else dict(executor.parameters),
        "can_reattach": executor is not None and executor.can_reattach,
        "error": installed.error,
    }


def page(items: object, source: Page[Any]) -> dict[str, Any]:
    """Return the data of a list."""
    return {"items": items, "next_cursor": to_cursor(source.next_before)}


def tasks_size(tasks: Sequence[TaskView]) -> int:
    """Return about how many bytes these task_runs take; the exact number would cost too much."""
    return sum(ROW_BYTES + task.size for task in tasks)
