from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskhub.adapters.memory import MemoryLogStore, MemoryRunStore
from taskhub.domain.event import Event, EventName
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.engine.bus import Bus
from taskhub.errors import InvalidError, TooManyError, UnavailableError
from taskhub.ports.store import Batch
from taskhub.services.live import Feed, Interest, LiveHub, LiveLimits
from taskhub.testing.clock import FakeClock

RUN = "r1"


class FakeSink:
    """Keeps what it is sent; `pending` grows until the test drains it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.pending = 0
        self.most = 0
        self.firm = 0
        self.lines: list[tuple[str, str, int]] = []
        self.events: list[tuple[str, int, bool]] = []
        self.messages: list[dict[str, object]] = []
        self.closed: tuple[int, str] | None = None
        self.session = None

    def has_room(self, *, firm: bool) -> bool:
        return (self.firm if firm else self.pending) <= self.room

    def send_lines(self, chunk, from_seq, *, firm):
        assert self.closed is None, "nothing is sent after the end"
        assert chunk.first_seq <= from_seq <= chunk.last_seq
        records = list(chunk.records(from_seq))
        self.lines += [(r.run_id, r.task_id, r.seq) for r in records]
        assert all(r.message == f"{r.task_id} {r.seq}" for r in records)
        self._add(len(records), firm=firm)

    def send_event(self, event, *, numbered, firm):
        assert self.closed is None
        self.events.append((event.task_id, event.seq, numbered))
        self._add(1, firm=firm)

    def send_message(self, message, *, firm=True):
        self.messages.append(dict(message))
        self._add(1, firm=firm)

    def close(self, code, reason):
        self.closed = self.closed or (code, reason)

    def drain(self) -> None:
        self.pending = self.firm = 0
        self.session.drained()

    def seqs(self, task_id: str) -> list[int]:
        return [seq for _, task, seq in self.lines if task == task_id]

    def _add(self, messages: int, *, firm: bool) -> None:
        self.pending += messages
        self.firm += messages * firm
        self.most = max(self.most, self.pending)


class Slowness:
    """Lets a store answer when told to, with what was stored when asked or when answering."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Event] = []
        self.late = False
        self.is_slow = False
        self.is_away = False
        self.reads = 0

    async def answer(self, read, *args):
        self.reads += 1
        early = await read(*args)
        if self.is_slow:
            released = asyncio.Event()
            self.waiting.append(released)
            await released.wait()
        if self.is_away:
            raise UnavailableError("away")
        return await read(*args) if self.late else early

    def release(self) -> None:
        while self.waiting:
            self.waiting.pop().set()


class SlowLogs(MemoryLogStore):
    def __init__(self, slowness: Slowness) -> None:
        super().__init__()
        self.slowness = slowness

    async def read(self, *args):
        return await self.slowness.answer(super().read, *args)

    async def chunks(self, *args):
        return await self.slowness.answer(super().chunks, *args)


class SlowRuns(MemoryRunStore):
    def __init__(self, slowness: Slowness) -> None:
        super().__init__()
        self.slowness = slowness

    async def history(self, *args):
        return await self.slowness.answer(super().history, *args)


class World:
    """A hub with one session, and a writer that stores first and publishes later."""

    def __init__(self, room: int = 5, **limits: int) -> None:
        self.bus = Bus()
        self.store_is = Slowness()
        self.logs = SlowLogs(self.store_is)
        self.runs = SlowRuns(self.store_is)
        self.clock = FakeClock()
        self.hub = LiveHub(self.bus, self.logs, self.runs, self.clock, LiveLimits(**limits))
        self.sink = FakeSink(room)
        self.session = self.connect(self.sink)
        self.last: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.stored: list[LogChunk] = []
        self.stored_events: list[Event] = []
        self.start: dict[tuple[str, str], int] = {}
        self.owners: dict[int, str] = {}
        self._ids = count(1)

    def connect(self, sink: FakeSink):
        sink.session = self.hub.connect(sink)
        sink.session.authenticated = True
        return sink.session

    async def store(self, task_id: str, *sizes: int, run_id: str = RUN) -> None:
        """Store one chunk whose segments have these sizes."""
        first = seq = self.last[task_id, run_id] + 1
        segments = []
        for size in sizes:
            lines = tuple(f"{task_id} {n}" for n in range(seq, seq + size))
            seq += size
            segments.append(
                LogSegment(
                    attempt=1,
                    stream=Stream.STDOUT,
                    level=Level.INFO,
                    ts_ms=1,
                    duration_ms=1,
                    lines=lines,
                    continued=[0],
                )
            )
        chunk = LogChunk(
            id=next(self._ids),
            run_id=run_id,
            task_id=task_id,
            first_seq=first,
            count=seq - first,
            size=10,
            ts_ms=1,
            segments=tuple(segments),
        )
        self.last[task_id, run_id] = seq - 1
        await self.logs.append([chunk])
        self.stored.append(chunk)

    def publish(self, how_many: int = 1_000_000) -> None:
        """Publish what was stored and not published yet, the oldest first."""
        for chunk in self.stored[:how_many]:
            self.bus.logs.publish(chunk)
        del self.stored[:how_many]

    async def print(self, task_id: str, *sizes: int, run_id: str = RUN) -> None:
        await self.store(task_id, *sizes, run_id=run_id)
        self.publish()

    async def happen(self, task_id: str, run_id: str = RUN) -> None:
        """Store and queue one event."""
        self.last["event", run_id] += 1
        seq = self.last["event", run_id]
        self.owners[seq] = task_id
        event = Event(next(self._ids), run_id, seq, 1, EventName.TASK_START, task_id)
        await self.runs.commit(Batch(events=[event]))
        self.stored_events.append(event)

    def publish_events(self, how_many: int = 1_000_000) -> None:
        for event in self.stored_events[:how_many]:
            self.bus.events.publish(event)
        del self.stored_events[:how_many]

    async def settle(self) -> None:
        """Let everything run, with a peer that takes all."""
        self.store_is.is_slow = False
        for _ in range(200):
            self.store_is.release()
            self.sink.drain()
            await asyncio.sleep(0)

    def watch(self, task_id: str, run_id: str = RUN, from_seq=None, feed=Feed.LOGS) -> None:
        self.session.subscribe([Interest(feed, task_id, run_id)], from_seq)


@pytest.fixture
async def world():
    world = World()
    yield world
    world.session.close()


lines = st.integers(1, 4) | st.just(600)
store = st.tuples(st.just("store"), st.sampled_from("ab"), st.lists(lines, min_size=1, max_size=2))
happen = st.tuples(st.just("happen"), st.sampled_from(["a", "b", ""]))
publish = st.tuples(st.just("publish"), st.integers(1, 3))
others = st.sampled_from([("drain",), ("turn", 1), ("turn", 5), ("release",)])
slowness = st.tuples(st.just("slow"), st.booleans(), st.booleans())


async def take_all(world: World, steps: list[tuple]) -> None:
    for step in steps:
        await take(world, step)


async def take(world: World, step: tuple) -> None:
    match step:
        case "store", task, sizes:
            await world.store(task, *sizes)
        case "happen", task:
            await world.happen(task)
        case "publish", n:
            world.publish(n)
            world.publish_events(n)
        case ("drain",):
            world.sink.drain()
        case "turn", n:
            for _ in range(n):
                await asyncio.sleep(0)
        case "slow", is_slow, late:
            world.store_is.is_slow, world.store_is.late = is_slow, late
        case ("release",):
            world.store_is.release()


def follow(
    feed: Feed, task_id: str, from_seq: int | None, before: list, after: list, pending: int
) -> World:
    """Return the world after a follower came between these steps and all has settled."""

    async def live() -> World:
        world = World(room=5)
        await take_all(world, before)
        if from_seq is None:  # only when nothing is on its way is "from now on" exact
            await take_all(world, [("publish", 1_000_000)])
        world.sink.pending = pending
        world.start = dict(world.last)
        world.watch(task_id, from_seq=from_seq, feed=feed)
        await take_all(world, [*after, ("publish", 1_000_000)])
        await world.settle()
        world.session.close()
        await asyncio.sleep(0)
        return world

    return asyncio.run(live())


def wanted(world: World, key: str, from_seq: int | None) -> list[int]:
    first = world.start.get((key, RUN), 0) + 1 if from_seq is None else from_seq
    return list(range(first, world.last[key, RUN] + 1))


task_ids = st.sampled_from(["a", ""])
positions = st.none() | st.integers(1, 12)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(store | publish | slowness, max_size=6),
    st.lists(store | publish | others | slowness, min_size=4, max_size=30),
    task_ids,
    positions,
    st.sampled_from([0, 100]),
)
def test_lines_come_from_the_position_on_once_and_in_order(
    before, after, task_id, from_seq, pending
):
    """No interleaving of storing, publishing, draining and slow reads makes a gap or a repeat."""
    world = follow(Feed.LOGS, task_id, from_seq, before, after, pending)
    for task in [task_id] if task_id else "ab":
        assert world.sink.seqs(task) == wanted(world, task, from_seq)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(happen | publish | slowness, max_size=6),
    st.lists(happen | publish | others | slowness, min_size=4, max_size=30),
    task_ids,
    positions,
    st.sampled_from([0, 100]),
)
def test_events_come_from_the_position_on_once_and_in_order(
    before, after, task_id, from_seq, pending
):
    world = follow(Feed.EVENTS, task_id, from_seq, before, after, pending)
    assert world.sink.events == [
        (world.owners[seq], seq, from_seq is not None)
        for seq in wanted(world, "event", from_seq)
        if task_id in {"", world.owners[seq]}
    ]


async def test_what_is_published_while_the_last_page_is_read_is_fetched(world):
    """Found by hand: random search comes here too rarely."""
    world.store_is.is_slow = True
    world.watch("a", from_seq=1)
    await take_all(world, [("turn", 5), ("store", "a", [2]), ("publish", 1)])
    await world.settle()
    assert world.sink.seqs("a") == [1, 2]


async def test_what_is_live_goes_out_at_once(world):
    world.watch("a")
    await world.print("a", 2)
    assert world.sink.seqs("a") == [1, 2]
    assert world.store_is.reads == 0


async def test_a_subscription_without_a_run_gets_every_run_of_the_task(world):
    world.watch("a", run_id="")
    await world.print("a", 1, run_id="r1")
    await world.print("b", 1, run_id="r1")
    await world.print("a", 2, run_id="r2")
    assert world.sink.lines == [("r1", "a", 1), ("r2", "a", 1), ("r2", "a", 2)]


async def test_a_whole_run_is_watched_with_an_empty_task_id(world):
    world.watch("")
    await world.print("a", 1)
    await world.print("b", 1)
    await world.print("b", 1, run_id="another")
    assert world.sink.lines == [(RUN, "a", 1), (RUN, "b", 1)]


async def test_a_whole_run_is_replayed_from_that_number_of_every_task(world):
    for task, lines in (("a", 5), ("b", 2), ("c", 3)):
        await world.print(task, lines)
    world.watch("", from_seq=3)
    await world.settle()
    await world.print("b", 2)
    assert [world.sink.seqs(task) for task in "abc"] == [[3, 4, 5], [3, 4], [3]]


async def test_a_peer_that_does_not_read_is_sent_no_more_than_a_page_over_its_room():
    world = World(room=512)
    world.watch("a")
    for _ in range(200):
        await world.print("a", 100)
        await asyncio.sleep(0)
    assert world.sink.most <= 513 + 100
    assert world.sink.closed is None
    await world.settle()
    assert world.sink.seqs("a") == list(range(1, 20_001))
    world.session.close()


async def test_a_page_is_bounded_in_weight_whatever_the_chunks_are():
    world = World(room=0)
    for _ in range(60):
        await world.store("a", 3000)
    world.watch("a", from_seq=1)
    biggest = before = 0
    for _ in range(400):
        world.sink.drain()
        await asyncio.sleep(0)
        biggest = max(biggest, len(world.sink.lines) - before)
        before = len(world.sink.lines)
    assert before == 180_000
    assert biggest <= 4 * 3000
    world.session.close()


async def test_one_slow_peer_changes_nothing_for_another(world):
    fast = FakeSink(room=10)
    world.connect(fast)
    for session in (world.session, fast.session):
        session.subscribe([Interest(Feed.LOGS, "a", RUN)])
    for _ in range(50):
        await world.print("a", 3)
        fast.drain()
        await asyncio.sleep(0)
    assert fast.seqs("a") == list(range(1, 151))
    assert world.sink.seqs("a") == [1, 2, 3, 4, 5, 6]
    fast.session.close()


async def test_a_listener_that_overflows_is_closed(world):
    world.watch("a", run_id="")
    for _ in range(4):
        await world.print("a", 2)
    assert world.sink.closed == (1013, "too many pending messages")
    assert world.sink.lines == [(RUN, "a", n) for n in range(1, 7)]
    assert world.hub.sessions == 0


async def test_broadcasts_that_overflow_close_the_session(world):
    for _ in range(8):
        world.hub.broadcast({"event": "debug"})
    assert world.sink.closed == (1013, "too many pending messages")
    assert len(world.sink.messages) == 6


async def test_lines_that_wait_do_not_crowd_out_a_broadcast(world):
    world.watch("a")
    await world.print("a", 1000)
    world.hub.broadcast({"event": "debug"})
    assert world.sink.closed is None
    assert world.sink.messages == [{"event": "debug"}]


async def test_only_authenticated_sessions_hear_a_broadcast(world):
    stranger = FakeSink(room=5)
    world.connect(stranger)
    stranger.session.authenticated = False
    world.hub.broadcast({"event": "debug"})
    assert (len(world.sink.messages), len(stranger.messages)) == (1, 0)
    stranger.session.close()


async def test_a_store_that_is_away_delays_and_loses_nothing(world):
    await world.print("a", 3)
    world.store_is.is_away = True
    world.watch("a", from_seq=1)
    await world.clock.advance(0.5)
    await world.print("a", 3)
    assert world.sink.lines == []
    world.store_is.is_away = False
    await world.clock.advance(1)
    assert world.sink.seqs("a") == [1, 2, 3, 4, 5, 6]


def broken(*_, **__):
    raise ZeroDivisionError


async def test_a_bug_ends_the_session_and_never_reaches_the_publisher(world, caplog):
    others = FakeSink(room=5)
    world.connect(others)
    world.sink.send_lines = broken
    for session in (world.session, others.session):
        session.subscribe([Interest(Feed.LOGS, "a", RUN)])
    await world.print("a", 1)
    assert world.sink.closed == (1011, "internal error")
    assert others.seqs("a") == [1]
    assert "a subscription broke" in caplog.text
    others.session.close()


async def test_a_bug_while_catching_up_ends_the_session(world, caplog):
    await world.print("a", 1)
    world.sink.send_lines = broken
    world.watch("a", from_seq=1)
    await world.settle()
    assert world.sink.closed == (1011, "internal error")
    assert "cannot catch up" in caplog.text


async def test_nothing_is_delivered_after_unsubscribe(world):
    world.watch("a")
    await world.print("a", 1)
    world.session.unsubscribe(Interest(Feed.LOGS, "a", RUN))
    world.session.unsubscribe(Interest(Feed.LOGS, "never", ""))
    await world.print("a", 1)
    assert world.sink.seqs("a") == [1]


async def test_unsubscribe_ends_a_replay(world):
    await world.print("a", 1)
    world.store_is.is_slow = True
    world.watch("a", from_seq=1)
    await asyncio.sleep(0)
    world.session.unsubscribe(Interest(Feed.LOGS, "a", RUN))
    await world.settle()
    assert world.sink.lines == []


async def test_a_closed_session_leaves_nothing_behind(world):
    await world.print("a", 1)
    world.store_is.is_slow = True
    world.watch("a", from_seq=1)
    world.watch("a", run_id="")
    world.watch("", feed=Feed.EVENTS)
    await asyncio.sleep(0)
    assert "catch up a r1" in {task.get_name() for task in asyncio.all_tasks()}
    world.session.close()
    world.session.close()
    await asyncio.sleep(0)
    assert (world.hub.sessions, world.session.subscriptions) == (0, 0)
    assert not world.bus.logs._subscribers
    assert not world.bus.events._subscribers
    assert "catch up a r1" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_closed_session_subscribes_to_nothing(world):
    world.session.close()
    world.watch("a", from_seq=1)
    assert world.session.subscriptions == 0
    assert not world.bus.logs._subscribers


async def test_who_is_stopped_by_another_hearer_of_the_same_news_gets_nothing(world):
    other = FakeSink(room=5)
    world.connect(other)

    def stop_the_other(*_, **__):
        other.session.close()

    world.sink.send_lines = stop_the_other
    for session in (world.session, other.session):
        session.subscribe([Interest(Feed.LOGS, "a", RUN)])
    await world.print("a", 1)
    assert other.lines == []


async def test_subscribing_again_changes_nothing_but_from_starts_again(world):
    world.watch("a")
    world.watch("a")
    await world.print("a", 2)
    assert world.sink.seqs("a") == [1, 2]
    world.watch("a", from_seq=2)
    await world.settle()
    await world.print("a", 1)
    assert world.sink.seqs("a") == [1, 2, 2, 3]
    assert world.session.subscriptions == 1


async def test_replay_without_a_run_is_refused(world):
    with pytest.raises(InvalidError, match="run_id"):
        world.watch("a", run_id="", from_seq=1)
    with pytest.raises(InvalidError, match="run_id"):
        world.watch("", run_id="")


async def test_too_many_subscriptions_are_refused_whole():
    world = World(subscriptions=3)
    world.session.subscribe([Interest(Feed.LOGS, task, "") for task in "ab"])
    with pytest.raises(TooManyError):
        world.session.subscribe([Interest(Feed.LOGS, task, "") for task in "cd"])
    assert world.session.subscriptions == 2
    world.session.subscribe([Interest(Feed.LOGS, task, "") for task in "abc"])
    assert world.session.subscriptions == 3
    world.session.close()


async def test_too_many_sessions_are_refused():
    world = World(sockets=1)
    with pytest.raises(TooManyError):
        world.connect(FakeSink(1))
    world.session.close()
    world.connect(FakeSink(1))
    assert world.hub.sessions == 1


async def test_when_the_server_stops_every_session_is_told(world):
    world.hub.close()
    assert world.sink.closed == (1001, "server stopping")
    assert world.hub.sessions == 0


async def test_a_missing_chunk_is_fetched_from_the_store(world):
    world.watch("a")
    await world.print("a", 1)
    await world.store("a", 2)
    world.stored.clear()  # stored, and never published
    await world.print("a", 1)
    await world.settle()
    assert world.sink.seqs("a") == [1, 2, 3, 4]
