"""Asking a store until it answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from taskhub.errors import UnavailableError
from taskhub.ports.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Insistence:
    """Repeats a call while the store is unavailable; store calls are made to be repeated."""

    def __init__(self, clock: Clock, store: str) -> None:
        self._clock = clock
        self._store = store
        self.is_failing = False

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what the call returns, however long that takes."""
        tries = 0
        while True:
            try:
                answer = await call()
            except UnavailableError as exc:
                self.is_failing = True
                extra = {"store": self._store, "tries": tries, "error": str(exc)}
                log.error("store unavailable, what it should hold waits", extra=extra)  # noqa: TRY400
                await self._clock.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
                tries += 1
            else:
                if self.is_failing:
                    self.is_failing = False
                    log.warning("store available again", extra={"store": self._store})
                return answer
