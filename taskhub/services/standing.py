"""Whether this server is the one that drives runs; of several on one store, one does."""

from __future__ import annotations

from typing import Final

from taskhub.errors import UnavailableError

STANDS_BY: Final = "this server stands by"
TAKES_OVER: Final = "this server is taking over; try again"
SUPERSEDED: Final = "another server has taken over; ask that one"


class Standing:
    """What this server may do at the moment: active until it is told otherwise."""

    def __init__(self) -> None:
        self._refusal = ""

    @property
    def is_active(self) -> bool:
        """Whether it drives runs."""
        return not self._refusal

    @property
    def refusal(self) -> str:
        """Why it does not; empty if it does."""
        return self._refusal

    @property
    def is_superseded(self) -> bool:
        """Whether it did, and another server does now."""
        return self._refusal == SUPERSEDED

    def check(self) -> None:
        """Raise `UnavailableError`, which says where to go, unless this server is active."""
        if self._refusal:
            raise UnavailableError(self._refusal)

    def activate(self) -> None:
        """Take note that this server drives runs now."""
        self._refusal = ""

    def stand_by(self, active_url: str = "") -> None:
        """Take note that another server does, at `active_url` if that is known."""
        self._refusal = f"{STANDS_BY}; the active one is {active_url}" if active_url else STANDS_BY

    def take_over(self) -> None:
        """Take note that this server will, as soon as it has what the other one left."""
        self._refusal = TAKES_OVER

    def lose(self) -> None:
        """Take note that another server has taken over."""
        self._refusal = SUPERSEDED
