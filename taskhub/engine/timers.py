"""Calls that are due at a time, on the clock of the program."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from taskhub.ports.clock import Clock

SWEEP_AT: Final = 256


class Timer:
    """A call that is due; `cancel` it when it is not wanted any more."""

    __slots__ = ("_owner", "call")

    def __init__(self, owner: Timers, call: Callable[[], None]) -> None:
        self._owner = owner
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Forget the call; harmless after it was made."""
        if self.call is not None:
            self.call = None
            self._owner.note_canceled()


class Timers:
    """Makes calls when their time has come; time is monotonic, so a clock set back delays none."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Timer]] = []
        self._tie = count()
        self._earlier = asyncio.Event()
        self._canceled = 0

    def after(self, delay_ms: int, call: Callable[[], None]) -> Timer:
        """Make `call` in `delay_ms` milliseconds."""
        timer = Timer(self, call)
        due = self._clock.monotonic_ms() + max(0, delay_ms)
        heapq.heappush(self._heap, (due, next(self._tie), timer))
        if self._heap[0][2] is timer:
            self._earlier.set()
        return timer

    def note_canceled(self) -> None:
        """Count a canceled timer; most are, long before they are due, and must not pile up."""
        self._canceled += 1
        if self._canceled > SWEEP_AT and self._canceled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._canceled = 0

    async def run(self) -> None:
        """Make calls until cancelled."""
        while True:
            self._earlier.clear()
            self._make_due_calls()
            await self._wait()

    def _make_due_calls(self) -> None:
        now = self._clock.monotonic_ms()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].call is None):
            timer = heapq.heappop(self._heap)[2]
            if timer.call is None:
                self._canceled -= 1
            else:
                call, timer.call = timer.call, None
                call()

    async def _wait(self) -> None:
        earlier = asyncio.create_task(self._earlier.wait(), name="timers: earlier")
        waits: set[asyncio.Task[Any]] = {earlier}
        if self._heap:
            seconds = (self._heap[0][0] - self._clock.monotonic_ms()) / 1000
            sleep = asyncio.create_task(self._sleep(seconds), name="timers: due")
            waits.add(sleep)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(max(0.0, seconds))
