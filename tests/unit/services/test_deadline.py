from __future__ import annotations

import asyncio

import pytest

from taskhub.errors import UnavailableError
from taskhub.services.deadline import in_time


async def test_what_takes_too_long_is_cancelled_and_called_unavailable():
    never = asyncio.Event()
    with pytest.raises(UnavailableError, match="too late"):
        async with in_time("too late", 0):
            await never.wait()


async def test_what_ends_in_time_is_left_alone():
    async with in_time("too late", 60):
        await asyncio.sleep(0)


async def test_a_timeout_of_something_else_stays_what_it_is():
    with pytest.raises(TimeoutError, match="theirs"):
        async with in_time("too late", 60):
            raise TimeoutError("theirs")
