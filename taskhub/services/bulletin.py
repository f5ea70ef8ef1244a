"""What changed lately, for readers that go at different speeds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from itertools import dropwhile, islice
from typing import NamedTuple


class Change(NamedTuple):
    """The last change of a simple task; `created` is the position at which it was new, or 0."""

    position: int
    number: int
    created: int


class Bulletin:
    """Holds every task that changed once, at its last change, in the order of these.

    A reader is at a position and reads what comes after it, so one that is slow skips what has
    changed again since, and costs the others nothing. `wake` is set when there is something new,
    and by readers that can take more.
    """

    def __init__(self) -> None:
        self.last = 0
        self.wake = asyncio.Event()
        self._changes: OrderedDict[int, Change] = OrderedDict()

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def oldest(self) -> int:
        """The position of the oldest change that is kept, or where the next will be."""
        return next(iter(self._changes.values())).position if self._changes else self.last + 1

    def note(self, number: int, *, is_new: bool = False) -> None:
        """Note that a task was made or has changed."""
        self.last += 1
        before = self._changes.pop(number, None)
        created = self.last if is_new else before.created if before else 0
        self._changes[number] = Change(self.last, number, created)
        self.wake.set()

    def after(self, position: int, limit: int) -> Sequence[Change]:
        """Return the first `limit` changes beyond a position."""
        rest = dropwhile(lambda change: change.position <= position, self._changes.values())
        return tuple(islice(rest, limit))

    def drop(self, position: int) -> None:
        """Forget what is not beyond a position, for everybody has read it."""
        while self._changes and self.oldest <= position:
            self._changes.popitem(last=False)
