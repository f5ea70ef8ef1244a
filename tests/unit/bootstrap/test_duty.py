"""Who drives runs, and when: the lease comes late, is lost, or its store is away."""

from __future__ import annotations

import asyncio

import pytest

from taskhub.bootstrap.duty import Duty
from taskhub.engine.loops import Loops
from taskhub.errors import ConfigError, SupersededError, UnavailableError
from taskhub.services.standing import STANDS_BY, TAKES_OVER, Standing
from taskhub.testing.clock import FakeClock
from tests.leases import FakeLease, Leases

URL = "http://b.example:1"


class Engine:
    """Counts how often it was activated, and fails as told."""

    def __init__(self):
        self.loops = Loops()
        self.activated = 0
        self.errors = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def activate(self):
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.activated += 1


class Post:
    """A server's duty with everything around it."""

    def __init__(self):
        self.leases = Leases()
        self.other = FakeLease(self.leases)
        self.lease = FakeLease(self.leases)
        self.standing = Standing()
        self.clock = FakeClock()
        self.engine = Engine()
        self.duty = Duty(self.lease, self.standing, self.clock)

    async def begin(self):
        await self.duty.begin(self.engine, URL)


@pytest.fixture
async def post():
    post = Post()
    yield post
    await post.engine.loops.close()


@pytest.fixture
async def standby(post):
    """One whose lease another server has."""
    await post.other.acquire("http://a.example:1")
    await post.begin()
    return post


async def test_the_only_server_is_active_at_once(post):
    await post.begin()
    assert post.standing.is_active
    assert post.engine.activated == 1
    assert await post.lease.active_url() == URL


async def test_a_second_server_stands_by_and_names_the_first(standby):
    assert standby.standing.refusal == f"{STANDS_BY}; the active one is http://a.example:1"
    assert standby.engine.activated == 0
    await standby.clock.advance(60)
    assert standby.engine.activated == 0
    assert not standby.engine.loops.is_dead


async def test_it_names_whoever_is_active_by_now(standby):
    third = FakeLease(standby.leases)
    third.url = "http://c.example:1"
    third.seize()
    await standby.clock.advance(3)
    assert standby.standing.refusal == f"{STANDS_BY}; the active one is http://c.example:1"


async def test_it_takes_over_within_seconds_and_only_once(standby, caplog):
    await standby.other.release()
    await standby.clock.advance(3)
    assert standby.standing.is_active
    await standby.clock.advance(60)
    assert standby.engine.activated == 1
    assert not standby.engine.loops.is_dead
    assert [r.message for r in caplog.records] == ["this server has taken over and is active"]


async def test_nothing_is_changed_before_what_was_left_is_taken_up(standby):
    standby.engine.gate.clear()
    await standby.other.release()
    await standby.clock.advance(3)
    with pytest.raises(UnavailableError, match=TAKES_OVER):
        standby.standing.check()
    standby.engine.gate.set()
    await standby.clock.advance(1)
    standby.standing.check()


async def test_a_store_that_is_away_is_logged_once_and_asked_again(standby, caplog):
    standby.lease.is_away = True
    await standby.other.release()
    await standby.clock.advance(20)
    assert standby.lease.acquired > 5
    assert not standby.standing.is_active
    standby.lease.is_away = False
    await standby.clock.advance(3)
    assert standby.standing.is_active
    assert [r.message for r in caplog.records] == [
        "store unavailable while standing by",
        "store available again",
        "this server has taken over and is active",
    ]


async def test_a_store_that_goes_away_during_the_recovery_makes_it_start_again(standby):
    standby.engine.errors = [UnavailableError("no"), UnavailableError("no")]
    await standby.other.release()
    await standby.clock.advance(10)
    assert standby.engine.activated == 1
    assert standby.standing.is_active
    assert not standby.engine.loops.is_dead


async def test_a_server_that_loses_the_lease_stops_and_says_so_once(post, caplog):
    await post.begin()
    post.other.seize()
    post.lease.noticed.set()
    await post.engine.loops.wait_for_death()
    assert post.engine.loops.is_superseded
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert record.message == "another server has taken over, this one stops"
    assert record.exc_info is None


async def test_a_lease_that_is_lost_during_a_takeover_stops_the_server(standby):
    standby.engine.errors = [SupersededError("epoch 3 is over")]
    await standby.other.release()
    await standby.clock.advance(3)
    assert standby.engine.loops.is_superseded
    assert not standby.standing.is_active


async def test_a_lease_that_is_lost_during_the_start_is_a_start_that_failed(post):
    post.engine.errors = [SupersededError("epoch 3 is over")]
    with pytest.raises(ConfigError, match="epoch 3 is over"):
        await post.begin()


async def test_a_start_whose_store_goes_away_half_way_can_be_repeated(post):
    post.engine.errors = [UnavailableError("no")]
    with pytest.raises(UnavailableError):
        await post.begin()
    await post.begin()
    assert post.engine.activated == 1
    assert post.lease.acquired == 1


async def test_the_lease_is_given_back_by_who_has_it(post):
    await post.begin()
    await post.duty.end()
    assert post.leases.holder is None


async def test_no_lease_is_given_back_by_a_server_on_standby_or_a_superseded_one(post, standby):
    await standby.duty.end()
    assert standby.lease.released == 0
    await standby.other.release()
    await standby.clock.advance(3)
    standby.standing.lose()
    await standby.duty.end()
    assert post.lease.released == 0
