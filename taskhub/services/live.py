"""Sessions that watch runs live, and the hub that knows them all; says nothing of sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, Protocol

from taskhub.domain.event import Event
from taskhub.domain.log import LogChunk
from taskhub.engine.bus import Bus, Topic
from taskhub.errors import InvalidError, TooManyError
from taskhub.ports.clock import Clock
from taskhub.ports.store import LogStore, RunStore
from taskhub.services.bulletin import Bulletin
from taskhub.services.cursors import EventCursor, LogCursor
from taskhub.services.following import Follower, Listener, Subscription
from taskhub.services.standing import Standing

TRY_AGAIN: Final = 1013  # close codes of RFC 6455 and its registry
INTERNAL_ERROR: Final = 1011
GOING_AWAY: Final = 1001
SLOW: Final = "too many pending messages"
TURNS: Final = 4  # pages read and rendered at once; bounds what catching up costs the loop


class Feed(StrEnum):
    """What can be subscribed to."""

    LOGS = "task_logs"
    EVENTS = "task_events"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLimits:
    """How much a session may have, and how much may be pending before it counts as slow."""

    sockets: int = 1000
    subscriptions: int = 200
    messages: int = 512
    bytes: int = 1024 * 1024
    stall_s: float = 5.0
    changes: int = 10_000


@dataclass(frozen=True, slots=True)
class Interest:
    """What a client names to subscribe or unsubscribe: a feed of a task, a run, or both."""

    feed: Feed
    task_id: str
    run_id: str


class Sink(Protocol):
    """The way out of a session, made by the web layer. No method waits or raises.

    What is sent is pending until the peer's host has taken it. It is sent as `firm` when it cannot
    be fetched again: firm and other messages are counted apart, so that lines, of which there are
    as many as there is room for, never crowd out an event.
    """

    def has_room(self, *, firm: bool) -> bool:
        """Whether what is pending of this kind is within `messages` and `bytes`.

        The sink calls `Session.drained` when it has become true for what is not firm.
        """
        ...

    def send_lines(self, chunk: LogChunk, from_seq: int, *, firm: bool) -> None:
        """Send the lines numbered `from_seq` and above, a message each."""
        ...

    def send_event(self, event: Event, *, numbered: bool, firm: bool) -> None:
        """Send an event; `numbered` shows its `seq`."""
        ...

    def send_message(self, message: Mapping[str, Any], *, firm: bool = True) -> None:
        """Send any other message."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close the connection; calls `Session.close`, now or soon."""
        ...


class LiveHub:
    """Knows every session; the one place where sessions meet the bus and the stores.

    `bus` must publish only what is stored, and everything that is. `bulletin` has what all
    sessions hear of at a speed of their own.
    """

    def __init__(
        self,
        bus: Bus,
        logs: LogStore,
        runs: RunStore,
        clock: Clock,
        limits: LiveLimits = LiveLimits(),
        standing: Standing | None = None,
    ) -> None:
        self.bus = bus
        self.logs = logs
        self.runs = runs
        self.clock = clock
        self.limits = limits
        self.turns = asyncio.Semaphore(TURNS)
        self.bulletin = Bulletin()
        self._standing = standing or Standing()
        self._sessions: dict[Session, None] = {}

    @property
    def has_news(self) -> bool:
        """Whether anything is published here; on a server that drives no runs nothing is."""
        return self._standing.is_active

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    def connect(self, sink: Sink) -> Session:
        """Open a session that nobody is behind yet; raise `TooManyError`."""
        if len(self._sessions) >= self.limits.sockets:
            raise TooManyError("too many sockets")
        session = Session(self, sink)
        self._sessions[session] = None
        return session

    def forget(self, session: Session) -> None:
        """Count a session no more; called by the session."""
        self._sessions.pop(session, None)

    def broadcast(self, message: Mapping[str, Any]) -> None:
        """Send a message to every authenticated session."""
        message = dict(message)
        for session in tuple(self._sessions):
            if session.authenticated:
                session.say(message)

    def behind(self) -> Sequence[Session]:
        """Return the sessions that have not heard all of the bulletin, and have room for more."""
        last = self.bulletin.last
        return [s for s in self._sessions if s.heard < last and s.authenticated and s.has_room()]

    def tidy(self) -> None:
        """Forget what all have heard of; end the sessions for which too much would be kept."""
        bulletin = self.bulletin
        bulletin.drop(min((s.heard for s in self._sessions), default=bulletin.last))
        if len(bulletin) > self.limits.changes:
            for session in tuple(self._sessions):
                if session.heard < bulletin.oldest and not session.has_room():
                    session.end(TRY_AGAIN, SLOW)

    def close(self) -> None:
        """Close every session, because the server stops."""
        for session in tuple(self._sessions):
            session.end(GOING_AWAY, "server stopping")


class Session:
    """One peer and its subscriptions, each delivered for itself: overlapping ones repeat."""

    def __init__(self, hub: LiveHub, sink: Sink) -> None:
        self.clock = hub.clock
        self.turns = hub.turns
        self.authenticated = False
        self.heard = hub.bulletin.last
        self._hub = hub
        self._sink = sink
        self._subscriptions: dict[Interest, Subscription[Any]] = {}
        self._drained = asyncio.Event()
        self._open = True

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    def subscribe(self, interests: Sequence[Interest], from_seq: int | None = None) -> None:
        """Deliver what is published from now on; with `from_seq`, what is stored from there first.

        `from_seq` restarts a subscription that is there already, which otherwise goes on as it is.
        Either all interests are subscribed to, or an error is raised: `InvalidError` if one names
        no run but needs it, `TooManyError`.
        """
        if not self._open:
            return
        self.check(interests, from_seq)
        for interest in interests:
            if from_seq is not None or interest not in self._subscriptions:
                self.unsubscribe(interest)
                subscription = self._follower(interest, from_seq) or self._listener(interest)
                self._subscriptions[interest] = subscription
                subscription.start()

    def check(self, interests: Sequence[Interest], from_seq: int | None = None) -> None:
        """Raise what `subscribe` would raise."""
        if any(not i.run_id and (from_seq or not i.task_id) for i in interests):
            raise InvalidError("needs a run_id")
        new = set(interests) - self._subscriptions.keys()
        if len(self._subscriptions) + len(new) > self._hub.limits.subscriptions:
            raise TooManyError("too many subscriptions")

    def unsubscribe(self, interest: Interest) -> None:
        """End a subscription; one that does not exist is fine."""
        subscription = self._subscriptions.pop(interest, None)
        if subscription is not None:
            subscription.stop()

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message of the server's own, or close the session if too many are pending."""
        if self._has_firm_room():
            self._sink.send_message(message)

    def tell(self, message: Mapping[str, Any], position: int) -> bool:
        """Send what stands at a position of the bulletin; say whether there was room for it."""
        if not self._open or not self.has_room():
            return False
        self._sink.send_message(message, firm=False)
        self.heard = position
        return True

    def has_room(self) -> bool:
        """Whether more may be added that could be fetched later."""
        return self._sink.has_room(firm=False)

    async def room(self) -> None:
        """Return once there is room."""
        while not self.has_room():
            self._drained.clear()
            await self._drained.wait()

    def drained(self) -> None:
        """Take note that there is room again; called by the sink."""
        self._drained.set()
        if self.heard < self._hub.bulletin.last:
            self._hub.bulletin.wake.set()

    def fail(self) -> None:
        """End the session because of a bug or a broken store."""
        self.end(INTERNAL_ERROR, "internal error")

    def end(self, code: int, reason: str) -> None:
        """Close the connection and everything that belongs to it."""
        self.close()
        self._sink.close(code, reason)

    def close(self) -> None:
        """Forget everything, because the connection is closed or closing. Idempotent."""
        if self._open:
            self._open = False
            self._hub.forget(self)
            for interest in tuple(self._subscriptions):
                self.unsubscribe(interest)

    def _follower(self, interest: Interest, from_seq: int | None) -> Subscription[Any] | None:
        """Return a subscription that can fall behind and catch up, which takes a run."""
        task_id, run_id = interest.task_id, interest.run_id
        if not run_id:
            return None
        hub, topic, replay = self._hub, Topic(task_id, run_id), from_seq is not None
        if interest.feed is Feed.LOGS:
            lines = LogCursor(hub.logs, task_id, run_id, from_seq)
            send_lines = partial(self._sink.send_lines, firm=False)
            return Follower(self, hub.bus.logs, topic, lines, send_lines, replay=replay)
        events = EventCursor(hub.runs, task_id, run_id, from_seq)

        def send_event(event: Event, _seq: int) -> None:
            self._sink.send_event(event, numbered=replay, firm=False)

        return Follower(self, hub.bus.events, topic, events, send_event, replay=replay)

    def _listener(self, interest: Interest) -> Subscription[Any]:
        topic = Topic(interest.task_id, interest.run_id)
        if interest.feed is Feed.LOGS:
            return Listener(self, self._hub.bus.logs, topic, self._send_chunk)
        return Listener(self, self._hub.bus.events, topic, self._send_event)

    def _send_chunk(self, chunk: LogChunk) -> None:
        if self._has_firm_room():
            self._sink.send_lines(chunk, chunk.first_seq, firm=True)

    def _send_event(self, event: Event) -> None:
        if self._has_firm_room():
            self._sink.send_event(event, numbered=False, firm=True)

    def _has_firm_room(self) -> bool:
        """End the session if too much is pending that cannot come later; say if it goes on."""
        if self._open and not self._sink.has_room(firm=True):
            self.end(TRY_AGAIN, SLOW)
        return self._open
