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
async def in_time(message: str, deadline: float | None = None) -> AsyncIterator[None]:
    """Cancel the block, and raise `UnavailableError` with this message, when it takes too long.

    `deadline` is a time of the event loop's clock, by default `ANSWER_S` from now.
    """
    when = asyncio.get_running_loop().time() + ANSWER_S if deadline is None else deadline
    try:
        async with asyncio.timeout_at(when) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise UnavailableError(message) from None
