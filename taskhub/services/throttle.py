"""How often something may fail."""

from __future__ import annotations

from collections import OrderedDict, deque

from taskhub.errors import TooManyError
from taskhub.ports.clock import Clock


class Throttle:
    """Counts failures by key over a sliding window; forgets the oldest key when it is full."""

    def __init__(
        self, clock: Clock, *, failures: int = 5, window_ms: int = 300_000, capacity: int = 10_000
    ) -> None:
        self._clock = clock
        self._limit = failures
        self._window_ms = window_ms
        self._capacity = capacity
        self._failures: OrderedDict[str, deque[int]] = OrderedDict()

    def check(self, *keys: str) -> None:
        """Raise `TooManyError` if one of the keys has failed too often."""
        wait_ms = max(map(self._wait_ms, keys))
        if wait_ms > 0:
            seconds = -(-wait_ms // 1000)
            message = f"too many failed attempts; try again in {seconds} s"
            raise TooManyError(message, retry_after_s=seconds)

    def failed(self, *keys: str) -> None:
        """Count one failure for each key."""
        now = self._clock.monotonic_ms()
        for key in keys:
            times = self._failures.setdefault(key, deque(maxlen=self._limit))
            times.append(now)
            self._failures.move_to_end(key)
        while len(self._failures) > self._capacity:
            self._failures.popitem(last=False)

    def forget(self, key: str) -> None:
        """Start over with a key."""
        self._failures.pop(key, None)

    def _wait_ms(self, key: str) -> int:
        times = self._failures.get(key)
        if times is None or len(times) < self._limit:
            return 0
        return times[0] + self._window_ms - self._clock.monotonic_ms()
