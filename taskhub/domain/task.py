"""What one task is: the words and numbers of the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

ID_PATTERN: Final = re.compile(r"\w[\w.:@+-]{0,127}")  # for fullmatch: `$` would let a newline in
ID_RULE: Final = "1 to 128 letters, digits or . : @ + - _, the first a letter, digit or _"


class Status(IntEnum):
    """The state of a task, as results and task_runs carry it."""

    PENDING = 0
    RUNNING = 1
    SUCCESS = 2
    FAILED = 3
    SKIPPED = 4
    CANCELED = 5
    TIMEOUT = 6

    @property
    def word(self) -> str:
        """The `status_name` beside the number."""
        return STATUS_WORDS[self]

    @property
    def is_final(self) -> bool:
        """Whether the task is over."""
        return self >= Status.SUCCESS

    @property
    def is_failure(self) -> bool:
        """Whether it counts as failed in a run's summary."""
        return self in FAILURES


STATUS_WORDS: Final = {status: status.name.lower() for status in Status}
FAILURES: Final = frozenset({Status.FAILED, Status.CANCELED, Status.TIMEOUT})


class Priority(IntEnum):
    """Which of two ready tasks starts first; any int64 is allowed between and beyond."""

    LOW = -1
    NORMAL = 0
    HIGH = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One node of a DAG as its author wrote it, checked and with defaults filled in."""

    id: str
    name: str
    exec_type: str
    exec_command: str = ""
    exec_params: Mapping[str, JSON] = field(default_factory=dict)
    deps: tuple[str, ...] = ()
    timeout_ms: int = 0
    retry_count: int = 0
    retry_delay_ms: int = 1000
    retry_exp_backoff: bool = True
    priority: int = Priority.NORMAL
    queue: str = "default"
    capture_output: bool = True
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    idempotent: bool = False

    @property
    def max_attempts(self) -> int:
        """How many attempts there may be, the first included."""
        return self.retry_count + 1

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON, `deps` as a list."""
        return {name: getattr(self, name) for name in self.__slots__} | {"deps": list(self.deps)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TaskSpec:
        """Rebuild what `to_json` returned; trusts it."""
        return cls(**{**value, "deps": tuple(value["deps"])})
