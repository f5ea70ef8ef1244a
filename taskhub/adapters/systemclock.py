"""The machine's own clock."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Implements `taskhub.ports.clock.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
