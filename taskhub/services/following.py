"""Subscriptions: what the bus publishes, handed to a peer that may be slower than its publisher."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from taskhub.engine.bus import Topic
from taskhub.errors import UnavailableError
from taskhub.ports.clock import Clock
from taskhub.services.cursors import Cursor

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

RETRY_S: Final = 1.0

log = logging.getLogger(__name__)


class Peer(Protocol):
    """What a subscription asks of the session it belongs to."""

    clock: Clock
    turns: asyncio.Semaphore

    def has_room(self) -> bool:
        """Whether little enough is pending to add something that could be fetched later."""
        ...

    async def room(self) -> None:
        """Return once there is room."""
        ...

    def fail(self) -> None:
        """End the session because of a bug or a broken store; the reason is already logged."""
        ...


class News(Protocol[T_co]):
    """The part of `Channel` that subscribers use."""

    def add(self, topic: Topic, receive: Callable[[T_co], None]) -> None: ...

    def remove(self, topic: Topic, receive: Callable[[T_co], None]) -> None: ...


class Subscription(ABC, Generic[T]):
    """Hears of a topic from `start` to `stop`; both return at once. Never raises into the bus."""

    def __init__(self, peer: Peer, channel: News[T], topic: Topic) -> None:
        self._peer = peer
        self._channel = channel
        self._topic = topic
        self._stopped = False

    def start(self) -> None:
        """Begin to listen."""
        self._channel.add(self._topic, self._hear)

    def stop(self) -> None:
        """Deliver nothing from now on."""
        self._stopped = True
        self._channel.remove(self._topic, self._hear)

    def _hear(self, item: T) -> None:
        if self._stopped:  # by somebody who heard of this very item before us
            return
        try:
            self._receive(item)
        except Exception:
            log.exception("a subscription broke", extra={"topic": str(self._topic)})
            self._peer.fail()

    @abstractmethod
    def _receive(self, item: T) -> None:
        """Take up what was published."""


class Listener(Subscription[T]):
    """Hands on what is published; it has no position to come back to."""

    def __init__(
        self, peer: Peer, channel: News[T], topic: Topic, send: Callable[[T], None]
    ) -> None:
        super().__init__(peer, channel, topic)
        self._send = send

    def _receive(self, item: T) -> None:
        self._send(item)


class Follower(Subscription[T]):
    """Hands on everything about one run from a position on: no gap, no repeat, whatever the speed.

    It is live (what is published is sent at once) or it catches up (what is published is only
    noted; pages of what is stored are sent, each once the peer has room). It falls back from live
    when the peer has no room or something is missing, and returns when a page is empty.

    No repeat: all that is sent goes through `Cursor.take`, which cuts off what was taken before.

    No gap: what is published is already stored, and the follower hears of all that is published
    from `start` to `stop`. Take an item that belongs to it. If it was stored before the read of the
    empty page began, that page or one before held it: it was sent. If it was stored later, it is
    published later still: either before the read returned, then it is noted, and a noted item means
    another page; or afterwards, and then the follower is already live, for between the return of
    the read and the change of state nothing else runs. Falling back loses nothing either: the item
    that found no room is new, so `Cursor.rewind` makes the pages reach it.
    """

    def __init__(
        self,
        peer: Peer,
        channel: News[T],
        topic: Topic,
        cursor: Cursor[T],
        send: Callable[[T, int], None],
        *,
        replay: bool,
    ) -> None:
        super().__init__(peer, channel, topic)
        self._cursor = cursor
        self._send = send
        self._replay = replay
        self._catching_up: asyncio.Task[None] | None = None
        self._noted = False

    def start(self) -> None:
        super().start()
        if self._replay:
            self._fall_back()

    def stop(self) -> None:
        super().stop()
        if self._catching_up is not None:
            self._catching_up.cancel()

    def _receive(self, item: T) -> None:
        if not self._cursor.is_new(item):
            return
        if self._catching_up is not None:
            self._noted = True
        elif self._cursor.is_next(item) and self._peer.has_room():
            self._deliver(item)
        else:
            self._cursor.rewind(item)
            self._fall_back()

    def _deliver(self, item: T) -> None:
        first = self._cursor.take(item)
        if first is not None:
            self._send(item, first)

    def _fall_back(self) -> None:
        name = f"catch up {self._topic.task_id} {self._topic.run_id}"
        self._catching_up = asyncio.create_task(self._catch_up(), name=name)

    async def _catch_up(self) -> None:
        try:
            while await self._send_page() or self._noted:
                pass
        except Exception:
            log.exception("a subscription cannot catch up", extra={"topic": str(self._topic)})
            self._peer.fail()
        else:
            self._catching_up = None

    async def _send_page(self) -> bool:
        """Send the next page; return False if there was none."""
        await self._peer.room()
        try:
            async with self._peer.turns:
                self._noted = False
                page = await self._cursor.page()
                for item in page:
                    self._deliver(item)
                if page:
                    await asyncio.sleep(0)  # with the turn kept, so that others come first
        except UnavailableError:
            await self._peer.clock.sleep(RETRY_S)
            return True
        return bool(page)
