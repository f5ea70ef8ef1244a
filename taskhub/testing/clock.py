"""A clock that moves only when told to."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count


class FakeClock:
    """Implements `taskhub.ports.clock.Clock` without waiting."""

    def __init__(self, start_ms: int = 1_893_456_000_000) -> None:
        self._now = float(start_ms)
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._tie = count()

    def now_ms(self) -> int:
        return int(self._now)

    def monotonic_ms(self) -> int:
        return int(self._elapsed)

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        heapq.heappush(self._sleepers, (self._elapsed + seconds * 1000, next(self._tie), event))
        await event.wait()

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock, as an operator or NTP does; sleepers do not notice."""
        self._now = float(now_ms)

    async def advance(self, seconds: float) -> None:
        """Move time on, waking each sleeper at its own moment."""
        end = self._elapsed + seconds * 1000
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, event = heapq.heappop(self._sleepers)
            self._move_to(due)
            event.set()
            await _settle()
        self._move_to(end)

    def _move_to(self, elapsed: float) -> None:
        self._now += elapsed - self._elapsed
        self._elapsed = elapsed


async def _settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)
