"""Simple tasks as clients see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskhub.domain.secrets import Secrets
from taskhub.services.system import iso
from taskhub.services.tasks import SHOWN_OUTPUT, SimpleTask
from taskhub.web.views import ROW_BYTES


def simple_task_item(task: SimpleTask, secrets: Secrets) -> dict[str, Any]:
    """Return a simple task as lists and sockets show it, values of `secrets` masked."""
    spec, state = task.row.spec, task.row.state
    kind, params = task.asked
    return {
        "id": task.number,
        "name": task.header.name,
        "type": kind,
        "status": state.status.word,
        "create_time": iso(task.header.created_ms),
        "update_time": iso(task.updated_ms),
        "params": dict(secrets.mask_object(params)),
        "exit_code": state.exit_code,
        "last_output": last_bytes(task.output.stdout, SHOWN_OUTPUT),
        "last_error": last_bytes(task.output.stderr or state.message, SHOWN_OUTPUT),
        "max_retries": spec.retry_count,
        "retry_count": max(0, state.attempt - 1),
        "timeout_sec": spec.timeout_ms // 1000,
        "cancel_flag": task.cancel_requested,
        "run_id": task.header.run_id,
    }


def last_bytes(text: str, most: int) -> str:
    """Return the end of a text, at most `most` bytes of UTF-8, cut at a character."""
    end = text[-most:]
    data = end.encode()
    return end if len(data) <= most else data[-most:].decode(errors="ignore")


def simple_tasks_size(tasks: Sequence[SimpleTask]) -> int:
    """Return about how many bytes these tasks take."""
    return sum(ROW_BYTES + task.size for task in tasks)
