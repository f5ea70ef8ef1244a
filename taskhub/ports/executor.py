"""How a task is carried out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from taskhub.domain.log import Level, Stream
from taskhub.domain.result import Result
from taskhub.domain.task import JSON, TaskSpec
from taskhub.errors import Problem


class Context(Protocol):
    """One attempt at one task, as its executor sees it. All methods belong to the event loop."""

    @property
    def run_id(self) -> str:
        """The run the task belongs to."""
        ...

    @property
    def task(self) -> TaskSpec:
        """What is to be done."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        ...

    @property
    def attempt_key(self) -> str:
        """A name for this attempt that no other attempt ever has; safe as a file name."""
        ...

    @property
    def deadline_ms(self) -> int | None:
        """Epoch milliseconds at which the engine will cancel the attempt, or None."""
        ...

    def write(self, stream: Stream, data: bytes) -> None:
        """Take output as it came: any bytes, lines cut anywhere. Call `drain` now and then.

        Raises `TooLargeError` where a caller keeps writing far beyond what `drain` allows.
        """
        ...

    def log(
        self, message: str, level: Level = Level.INFO, fields: Mapping[str, JSON] | None = None
    ) -> None:
        """Add a line of the executor's own to the task's log."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more output; returns at once while there is."""
        ...


class Executor(ABC):
    """Carries out attempts of one exec_type; subclass it, implement `execute`.

    One instance serves all attempts of a server, many at once, on its event loop. Whatever it
    raises harms the attempt it was raised for only; it must not block the loop.
    """

    parameters: ClassVar[Mapping[str, Any]] = {}
    """JSON Schema (2020-12) of `exec_params`, checked when a DAG is submitted."""

    can_reattach: ClassVar[bool] = False
    """Whether `reattach` can find an attempt again that another server process started."""

    async def start(self, settings: Mapping[str, Any]) -> None:  # noqa: B027  # may stay empty
        """Get ready; called once before the first attempt, with `[executors.<name>]` settings."""

    async def close(self) -> None:  # noqa: B027  # may stay empty
        """Let go of everything; called once, when no attempt is running any more."""

    def check(self, task: TaskSpec) -> Iterable[Problem]:  # noqa: ARG002  # for those that override
        """Return what is wrong with a task beyond its schema; pointers are relative to the task.

        Called when a DAG is submitted, maybe in a thread; must be pure and quick.
        """
        return ()

    @abstractmethod
    async def execute(self, context: Context) -> Result:
        """Carry out one attempt and return how it ended; an exception is a failure with its text.

        The engine cancels this coroutine on cancel and on timeout: stop the work, all of it, then
        re-raise or return what is known (exit code); the engine knows why it cancelled.
        """

    async def reattach(self, context: Context) -> Result | None:  # noqa: ARG002  # as above
        """Go on with an attempt that an earlier server process started; None if it is gone."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One declared executor: `executor` is set, or `error` says why it cannot be used."""

    name: str
    source: str
    version: str
    executor: Executor | None = None
    error: str | None = None


Executors = Mapping[str, Installed]
"""What is installed, by exec_type in lower case."""
