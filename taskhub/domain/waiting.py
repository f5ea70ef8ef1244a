"""Why a task is not running, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskhub.domain.run import Phase, Run, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """Why a task is not running: one of `upstream`, `slot`, `queue`, `backoff`."""

    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


def waiting_on(run: Run, task: TaskState) -> Blocker | None:
    """Return why a task does not run, or None if it runs or is over."""
    match task.phase:
        case Phase.RUNNING | Phase.DONE:
            return None
        case Phase.BACKOFF:
            detail = {"until_ts_ms": task.retry_at_ms, "attempt": task.attempt + 1}
            return Blocker(reason="backoff", detail=detail)
        case Phase.WAITING if task.deps_left:
            open_deps = [d for d in task.spec.deps if run.tasks[d].phase is not Phase.DONE]
            return Blocker(reason="upstream", detail={"tasks": open_deps})
        case _ if not run.has_room:
            return Blocker(reason="slot", detail={"max_parallel": run.spec.max_parallel})
        case _:
            return Blocker(reason="queue", detail={"queue": task.spec.queue})
