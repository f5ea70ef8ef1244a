"""The lease of a store that only one server can have open."""

from __future__ import annotations

import asyncio


class SoleLease:
    """Implements `taskhub.ports.lease.Lease`: nobody else is there, so it is always ours."""

    def __init__(self) -> None:
        self._url = ""

    async def acquire(self, url: str) -> bool:
        self._url = url
        return True

    async def hold(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        self._url = ""

    async def active_url(self) -> str:
        return self._url
