"""How an attempt ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from taskhub.domain.task import JSON, Status

NO_EXIT_CODE = -1
"""`exit_code` of what never ran, or whose exit nobody saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an executor says of one attempt.

    `status` is Success, Failed, Canceled or Timeout. `exit_code` is 0-255, or 128 + the signal;
    0 where the executor has no such thing and the attempt succeeded. `metadata` is a JSON object.
    """

    status: Status = Status.SUCCESS
    exit_code: int = 0
    message: str = ""
    metadata: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def failed(cls, message: str, exit_code: int = 1) -> Result:
        """Return a failure with a reason."""
        return cls(status=Status.FAILED, exit_code=exit_code, message=message)

    @classmethod
    def lost(cls, reason: str) -> Result:
        """Return the outcome of an attempt whose end nobody saw."""
        return cls(
            status=Status.FAILED,
            exit_code=NO_EXIT_CODE,
            message=f"lost: {reason}",
            metadata={"outcome": "unknown"},
        )

    @property
    def is_lost(self) -> bool:
        """Whether the outcome is unknown."""
        return self.metadata.get("outcome") == "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The end of what an attempt printed, as API answers carry it."""

    stdout: str = ""
    stderr: str = ""
