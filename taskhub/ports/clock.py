"""Time, as the rest of the program sees it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Reads the time and waits for it to pass.

    `taskhub.adapters.systemclock` is the machine's; `taskhub.testing.clock` moves when told to.
    """

    def now_ms(self) -> int:
        """Return wall clock time in epoch milliseconds; it may jump, also backwards."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds from an arbitrary start; never goes backwards. For durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock's time."""
        ...
