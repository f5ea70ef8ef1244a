"""Answers come in time, also while the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from taskhub.errors import UnavailableError

ANSWER_S: Final = 4.5
"""Within which the store has to answer, so that a client gets a 503 in five seconds."""


@asynccontextmanager
async def in_time(message: str, seconds: float = ANSWER_S) -> AsyncIterator[None]:
    """Cancel the block, and raise `UnavailableError` with this message, when it takes longer."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise UnavailableError(message) from None
