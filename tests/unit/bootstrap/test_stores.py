"""A store that is away at the start is waited for, so long and no longer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from taskhub.bootstrap.stores import Patience, open_stores
from taskhub.config import Config
from taskhub.errors import ConfigError, UnavailableError
from taskhub.testing.clock import FakeClock

URL = "mongodb://me:secret@db.example:27017/taskhub"


class Store:
    """Cannot be opened the first few times."""

    def __init__(self, failures):
        self.failures = failures
        self.tries = 0

    async def open(self):
        self.tries += 1
        if self.tries <= self.failures:
            raise UnavailableError("connection refused")
        return self


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def patiently(clock):
    store = replace(Config().store, url=URL, start_timeout_s=10)
    return Patience(replace(Config(), store=store), clock)


async def test_a_store_that_is_there_is_not_waited_for(patiently, caplog):
    store = Store(failures=0)
    assert await patiently(store.open) is store
    assert caplog.records == []


async def test_a_store_that_is_away_is_asked_until_it_is_there(patiently, clock, caplog):
    store = Store(failures=3)
    opening = asyncio.create_task(patiently(store.open), name="open")
    await clock.advance(5)
    assert not opening.done()
    await clock.advance(2)
    assert await opening is store
    assert [(r.message, r.reason) for r in caplog.records] == [
        ("waiting for the store", "connection refused")
    ] * 3


async def test_a_store_that_stays_away_ends_the_start_in_one_line(patiently, clock):
    store = Store(failures=100)
    opening = asyncio.create_task(patiently(store.open), name="open")
    await clock.advance(9)
    assert not opening.done()
    await clock.advance(1)
    with pytest.raises(ConfigError) as caught:
        await opening
    assert str(caught.value) == (
        "the store at mongodb://me:***@db.example:27017/taskhub cannot be used: connection refused"
    )


async def test_the_password_of_a_store_is_not_logged(patiently, clock, caplog):
    opening = asyncio.create_task(patiently(Store(failures=1).open), name="open")
    await clock.advance(3)
    await opening
    assert caplog.records[0].store == "mongodb://me:***@db.example:27017/taskhub"


async def test_without_patience_the_first_failure_is_the_last(clock):
    store = replace(Config().store, start_timeout_s=0)
    with pytest.raises(ConfigError, match="connection refused"):
        await Patience(replace(Config(), store=store), clock)(Store(failures=1).open)


@pytest.mark.parametrize("url", ["memory:", "sqlite:"])
async def test_one_server_uses_a_data_directory_whatever_its_store(tmp_path, url):
    config = replace(Config(), store=replace(Config().store, url=url))
    async with open_stores(config, tmp_path):
        with pytest.raises(ConfigError, match="in use by another TaskHub server"):
            async with open_stores(config, tmp_path):
                pass
    async with open_stores(config, tmp_path):
        pass
