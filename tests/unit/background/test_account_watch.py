from __future__ import annotations

import asyncio
import logging

import pytest

from taskhub.background.account_watch import AccountWatch
from taskhub.errors import UnavailableError
from taskhub.testing.clock import FakeClock


class Auth:
    """Counts looks; fails as long as it is told to."""

    def __init__(self):
        self.looks = 0
        self.is_away = False

    async def refresh(self):
        self.looks += 1
        if self.is_away:
            raise UnavailableError("away")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def auth(clock):
    auth = Auth()
    task = asyncio.create_task(AccountWatch(auth, clock).run(), name="watch")
    yield auth
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_it_looks_twice_a_second(auth, clock):
    await clock.advance(10)
    assert auth.looks == 20


async def test_a_store_that_is_away_is_said_once_and_asked_again(auth, clock, caplog):
    with caplog.at_level(logging.WARNING):
        for is_away, seconds in ((True, 5), (False, 1), (True, 1)):
            auth.is_away = is_away
            await clock.advance(seconds)
    assert auth.looks == 14
    assert len(caplog.records) == 2
