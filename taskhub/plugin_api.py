"""Everything a plugin may import from TaskHub; nothing else is stable."""

from __future__ import annotations

from typing import Final

from taskhub.domain.log import Level, Stream
from taskhub.domain.result import NO_EXIT_CODE, Result
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.errors import Problem, TooLargeError
from taskhub.ports.executor import Context, Executor

API_VERSION: Final = 1

__all__ = [
    "API_VERSION",
    "JSON",
    "NO_EXIT_CODE",
    "Context",
    "Executor",
    "Level",
    "Problem",
    "Result",
    "Status",
    "Stream",
    "TaskSpec",
    "TooLargeError",
]
