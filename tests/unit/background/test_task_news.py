from __future__ import annotations

import asyncio

import pytest

from taskhub.background.task_news import TaskNews
from taskhub.plugin_api import Result
from taskhub.testing.faults import Fault
from tests.unit.services.simple_tasks import World, spec

PENDING, RUNNING, SUCCESS = "pending", "running", "success"


class Sink:
    """Takes messages while it has room; `drain` makes all of it free again."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.pending = 0
        self.messages: list[tuple[str, int, str]] = []
        self.closed: tuple[int, str] | None = None
        self.session = None

    def has_room(self, *, firm):
        return firm or self.pending < self.room

    def send_message(self, message, *, firm=True):
        assert self.closed is None
        assert not firm, "news can be told later"
        self.pending += 1
        self.messages.append((message["event"], message["data"]["id"], message["data"]["status"]))

    def close(self, code, reason):
        self.closed = (code, reason)

    def drain(self):
        self.pending = 0
        self.session.drained()

    def last(self):
        """Return the last state heard of each task."""
        return {number: status for _, number, status in self.messages}


def item(task):
    return {"id": task.number, "status": task.row.state.status.word}


class NewsWorld(World):
    async def start(self):
        await super().start()
        self.news = TaskNews(self.tasks, self.hub, self.clock, item)
        self.loop = asyncio.create_task(self.news.run(), name="task news")
        return self

    async def kill(self):
        self.loop.cancel()
        await asyncio.gather(self.loop, return_exceptions=True)
        self.hub.close()
        await self.engine.kill()

    async def make(self, count):
        """Make tasks and wait until they have ended."""
        for _ in range(count):
            await self.ended(await self.tasks.submit(spec()))

    def connect(self, room=1000, *, authenticated=True):
        sink = Sink(room)
        sink.session = self.hub.connect(sink)
        sink.session.authenticated = authenticated
        return sink

    async def quiet(self):
        """Let everything happen that can."""
        for _ in range(500):
            await asyncio.sleep(0)


@pytest.fixture
async def world():
    world = await NewsWorld().start()
    yield world
    await world.kill()


async def test_a_task_is_told_from_its_creation_to_its_end(world):
    one, two = world.connect(), world.connect()
    await world.tasks.submit(spec())
    await world.engine.until_started("1#1")
    await world.quiet()
    world.script.end("1#1")
    await world.quiet()
    assert one.messages == two.messages
    assert one.messages[0][:2] == ("task_created", 1)
    assert one.messages[-1] == ("task_updated", 1, SUCCESS)
    states = [status for _, _, status in one.messages if status != PENDING]
    assert list(dict.fromkeys(states)) == [RUNNING, SUCCESS]


async def test_nothing_is_told_before_it_is_stored(world):
    sink = world.connect()
    world.store.pause()
    submission = asyncio.create_task(world.tasks.submit(spec()))
    await world.quiet()
    assert sink.messages == []
    world.store.resume()
    await submission
    await world.quiet()
    assert sink.messages[0][0] == "task_created"


async def test_a_session_without_a_token_hears_nothing(world):
    sink = world.connect(authenticated=False)
    await world.tasks.submit(spec())
    await world.quiet()
    assert sink.messages == []


async def test_a_session_hears_of_what_changes_after_it_came_and_not_of_before(world):
    early = world.connect()
    await world.tasks.submit(spec())
    await world.engine.until_started("1#1")
    await world.quiet()
    late = world.connect()
    await world.quiet()
    assert late.messages == []
    world.script.end("1#1")
    await world.quiet()
    assert late.messages == [("task_updated", 1, SUCCESS)]
    assert early.messages[-1] == late.messages[-1]


async def test_a_burst_closes_nobody_and_the_end_of_every_task_is_told(world):
    fast, stuck = world.connect(), world.connect(3)
    world.script.instant = Result()
    count = 200
    await world.make(count)
    await world.quiet()
    everything = dict.fromkeys(range(1, count + 1), SUCCESS)
    assert fast.last() == everything, "nobody waits for another"
    assert len(stuck.messages) == 3, "no more than there is room for"
    for _ in range(count):
        stuck.drain()
        await world.quiet()
        if stuck.last() == everything:
            break
    assert stuck.last() == everything
    assert len(stuck.messages) <= count + 3, "each task once, as it is by then"
    assert (fast.closed, stuck.closed) == (None, None)
    assert len(world.hub.bulletin) == 0, "what all have heard is forgotten"


async def test_a_slow_session_hears_that_a_task_is_new_even_if_it_is_over(world):
    sink = world.connect(1)
    world.script.instant = Result()
    for _ in range(2):
        await world.tasks.submit(spec())
    await world.ended(2)
    await world.quiet()
    while sink.last() != {1: SUCCESS, 2: SUCCESS}:
        sink.drain()
        await world.quiet()
    assert ("task_created", 2, SUCCESS) in sink.messages


async def test_who_takes_nothing_is_closed_before_too_much_is_kept():
    world = await NewsWorld(changes=20).start()
    stuck, well = world.connect(0), world.connect()
    world.script.instant = Result()
    await world.make(40)
    await world.quiet()
    assert stuck.closed == (1013, "too many pending messages")
    assert well.closed is None
    assert well.last() == dict.fromkeys(range(1, 41), SUCCESS)
    assert len(world.hub.bulletin) == 0
    await world.kill()


async def test_a_task_that_expired_meanwhile_is_passed_over(world):
    sink = world.connect(0)
    world.script.instant = Result()
    await world.ended(await world.tasks.submit(spec()))
    await world.stores.runs.expire(world.clock.now_ms() + 1)
    await world.tasks.submit(spec())
    sink.room = 10
    sink.drain()
    await world.quiet()
    assert sink.last() == {2: SUCCESS}


async def test_a_store_that_is_away_is_asked_again(world):
    sink = world.connect()
    world.store.fail("numbered", Fault.REFUSED)
    await world.tasks.submit(spec())
    await world.quiet()
    assert sink.messages == []
    await world.clock.advance(1)
    assert sink.messages == [("task_created", 1, RUNNING)]


async def test_without_sessions_the_store_is_not_asked(world):
    sink = world.connect()
    sink.session.close()
    world.script.instant = Result()
    await world.tasks.submit(spec())
    await world.quiet()
    assert "numbered" not in world.store.calls


async def test_tasks_of_an_earlier_server_are_told_of_too(world):
    await world.tasks.submit(spec(idempotent=True))
    await world.engine.until_started("1#1")
    world.loop.cancel()
    await asyncio.gather(world.loop, return_exceptions=True)
    await world.restart()
    sink = world.connect()
    await world.clock.advance(2)
    await world.engine.until_started("1#2")
    await world.quiet()
    world.script.end("1#2")
    await world.quiet()
    assert sink.messages[-1] == ("task_updated", 1, SUCCESS)
