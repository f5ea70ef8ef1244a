"""In-process publish and subscribe: who wants to know of events and of lines, by topic.

A publisher never waits: subscribers are called, and must do no more than note what came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from taskhub.domain.event import Event
from taskhub.domain.log import LogChunk

T = TypeVar("T", Event, LogChunk)


@dataclass(frozen=True, slots=True)
class Topic:
    """Whose news: one task of one run, a task in every run, or (no task_id) a whole run."""

    task_id: str
    run_id: str

    def matches(self) -> tuple[tuple[str, str], ...]:
        """Return the subscriptions that news of this task and run belong to."""
        if not self.task_id:
            return (("", self.run_id),)
        return (self.task_id, self.run_id), (self.task_id, ""), ("", self.run_id)


class Channel(Generic[T]):
    """One kind of news. What is published here is already stored."""

    def __init__(self) -> None:
        self._subscribers: dict[tuple[str, str], dict[Callable[[T], None], None]] = {}

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody would hear of anything."""
        return bool(self._subscribers)

    def add(self, topic: Topic, receive: Callable[[T], None]) -> None:
        """Call `receive` with everything published on the topic from now on."""
        self._subscribers.setdefault((topic.task_id, topic.run_id), {})[receive] = None

    def remove(self, topic: Topic, receive: Callable[[T], None]) -> None:
        """End what `add` began; unknown subscribers are fine."""
        key = (topic.task_id, topic.run_id)
        receivers = self._subscribers.get(key)
        if receivers is not None:
            receivers.pop(receive, None)
            if not receivers:
                del self._subscribers[key]

    def publish(self, item: T) -> None:
        """Hand `item` to every subscription to its task, its run, or both."""
        if not self._subscribers:
            return
        for key in Topic(item.task_id, item.run_id).matches():
            for receive in tuple(self._subscribers.get(key, ())):
                receive(item)


class Bus:
    """All channels: what runs do, and what tasks print."""

    def __init__(self) -> None:
        self.events: Channel[Event] = Channel()
        self.logs: Channel[LogChunk] = Channel()
