"""Every error TaskHub raises on purpose.

TaskHubError
├── InvalidError        the input was understood and refused; carries `problems`
│   ├── MalformedError  the bytes are not the JSON, query or header they should be
│   └── GraphError      every task is well formed, but together they make no DAG
├── NotFoundError       the thing named in the request does not exist
├── ConflictError       it exists, but its state forbids the operation
├── UnauthorizedError   nobody is known to be asking
├── ForbiddenError      somebody is, and may not
├── TooLargeError       more than a limit of `docs/limits.md` allows
├── TooManyError        more often, or more at once, than a limit allows
├── UnavailableError    the store cannot be reached or cannot write; try again
├── SupersededError     another server is active; what this one would write is refused
└── ConfigError         a setting or the machine makes a start impossible
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: a JSON pointer to it and a sentence."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.message}" if self.pointer else self.message


class TaskHubError(Exception):
    """Base class; `code` is stable and machine-readable."""

    code = "internal"


class InvalidError(TaskHubError):
    """The input was understood and refused; says everything that is wrong with it."""

    code = "invalid"

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = (Problem("", problems),)
        self.problems = tuple(problems)
        shown = "; ".join(str(problem) for problem in self.problems[:5])
        more = len(self.problems) - 5
        super().__init__(f"{shown}; and {more} more" if more > 0 else shown)


class MalformedError(InvalidError):
    """The input is not even the format it should be."""

    code = "malformed"


class MissingNameError(InvalidError):
    """What was to be made has no name; there may be more that is wrong with it."""

    code = "missing_name"


class GraphError(InvalidError):
    """The tasks are well formed, but the graph they make cannot be run."""

    code = "bad_graph"


class NotFoundError(TaskHubError):
    """The thing named in the request does not exist."""

    code = "not_found"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} not found: {name[:128]}")
        self.kind = kind
        self.name = name


class ConflictError(TaskHubError):
    """The thing exists, but its state forbids the operation."""

    code = "conflict"


class UnauthorizedError(TaskHubError):
    """The request carries no valid token or credentials."""

    code = "unauthorized"


class ForbiddenError(TaskHubError):
    """The caller is known and may not do this."""

    code = "forbidden"


class TooLargeError(TaskHubError):
    """The input is larger than a limit allows."""

    code = "too_large"


class TooManyError(TaskHubError):
    """More requests, runs or logins than a limit allows; `retry_after_s` says when to return."""

    code = "too_many"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(TaskHubError):
    """The store did not take or give what was asked; the same call may succeed later."""

    code = "unavailable"


class SupersededError(TaskHubError):
    """Another server has taken over; this one must stop writing."""

    code = "superseded"


class ConfigError(TaskHubError):
    """A setting, or the machine, makes it impossible to start."""

    code = "config"
