"""What a migration tells while it is under way."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Phase(StrEnum):
    """What is being done, in this order."""

    COMPARE = "compared"
    RUNS = "runs copied"
    LINES = "lines copied"
    PEOPLE = "accounts and audit copied"
    VERIFY = "verified"


class Listener(Protocol):
    """Hears of progress; called often, so it has to choose what it shows."""

    def progress(self, phase: Phase, counts: Mapping[str, int], *, over: bool) -> None:
        """Take how much was done of a phase so far, by kind; `over` at its end."""
        ...

    def waiting(self, store: str, reason: str, seconds: float) -> None:
        """Take that a store did not answer, and is asked again after so many seconds."""
        ...
