"""Names and numbers that the server gives."""

from __future__ import annotations

import string
from random import Random
from typing import Final

ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_SHIFT: Final = 12


def new_run_id(now_ms: int, random: Random) -> str:
    """Return `<epoch ms>_<6 of 0-9A-Za-z>`."""
    return f"{now_ms}_{''.join(random.choices(ALPHABET, k=6))}"


def attempt_key(run_id: str, index: int, attempt: int) -> str:
    """Return the name of one attempt, the same for ever and safe as a file name."""
    return f"{run_id}_{index}_{attempt}"


class IdSource:
    """Gives integers that only grow, also over a restart with the clock set back.

    An id is the millisecond shifted left by 12 bits, or the last id plus one; it fits the 53 bits
    that every JSON reader can hold until 2039.
    """

    def __init__(self, last: int = 0) -> None:
        self._last = last

    def take(self, now_ms: int, count: int = 1) -> int:
        """Return the first of `count` consecutive ids."""
        first, floor = self._last + 1, now_ms << ID_SHIFT
        if first < floor:  # noqa: PLR1730  # max() costs twice as much, for every event
            first = floor
        self._last = first + count - 1
        return first

    def skip_to(self, last: int) -> None:
        """Give only ids above `last` from now on."""
        self._last = max(self._last, last)
