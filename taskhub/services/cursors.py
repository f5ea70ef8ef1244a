"""Where a reader of one run stands in what is stored, and how it comes to the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, Protocol, TypeVar

from taskhub.domain.event import Event
from taskhub.domain.log import LogChunk, LogRecord, LogSegment
from taskhub.ports.store import LogStore, RunStore

T = TypeVar("T")

PAGE_WEIGHT: Final = 256 * 1024  # a page is rendered in one go: about 2 ms of the loop's time
LINE_WEIGHT: Final = 128  # what a line costs beside its text
PAGE_LINES: Final = 500
PAGE_EVENTS: Final = 1000
FIRST_CHUNKS: Final = 4
MAX_CHUNKS: Final = 256


class Cursor(Protocol[T]):
    """The position of one reader; it only moves on, and `take` moves it."""

    def is_next(self, item: T) -> bool:
        """Whether nothing is missing between the position and this item."""
        ...

    def is_new(self, item: T) -> bool:
        """Whether any of the item lies beyond the position."""
        ...

    def rewind(self, item: T) -> None:
        """Make sure that the pages to come hold this new item and what is missing before it."""
        ...

    def take(self, item: T) -> int | None:
        """Move behind the item; return the number from which on it was new, None if nowhere."""
        ...

    async def page(self) -> Sequence[T]:
        """Return the next part of what is stored beyond the position; empty if there is nothing.

        The caller takes all of it before it asks for the next. Some of it may not be new.
        """
        ...


class LogCursor:
    """A position in the lines of one task of a run, or (no task_id) of each of its tasks.

    `from_seq` None means: from wherever the first chunk begins that comes along. The position is a
    line number per task. A store finds chunks by their ids, which grow in the order of storing, so
    ids are kept beside it; while none is known and the position is not the beginning, lines are
    read by number instead.
    """

    def __init__(self, logs: LogStore, task_id: str, run_id: str, from_seq: int | None) -> None:
        self._logs = logs
        self._task_id = task_id
        self._run_id = run_id
        self._floor = from_seq or 0
        self._after: int | None = None if from_seq is None else 0
        self._last: dict[str, tuple[int, int]] = {}  # by task: the next seq, the last chunk's id
        self._limit = FIRST_CHUNKS

    def is_next(self, item: LogChunk) -> bool:
        return item.first_seq <= self._next(item.task_id) or not self._next(item.task_id)

    def is_new(self, item: LogChunk) -> bool:
        return item.last_seq >= self._next(item.task_id)

    def rewind(self, item: LogChunk) -> None:
        before = item.id - 1
        if not self.is_next(item):
            before = min(before, self._last.get(item.task_id, (0, 0))[1])
        self._after = before if self._after is None else min(self._after, before)

    def take(self, item: LogChunk) -> int | None:
        start = max(self._next(item.task_id), item.first_seq)
        self._last[item.task_id] = (max(start, item.last_seq + 1), item.id)
        self._after = max(self._after or 0, item.id)
        return start if start <= item.last_seq else None

    async def page(self) -> Sequence[LogChunk]:
        after = self._after or 0
        position = self._next(self._task_id)
        if self._task_id and not after and position > 1:
            records = await self._logs.read(self._task_id, self._run_id, position, PAGE_LINES)
            return tuple(_to_chunks(records))
        task_id = self._task_id or None
        chunks = await self._logs.chunks(self._run_id, after, self._limit, task_id)
        if chunks:
            weight = sum(chunk.size + LINE_WEIGHT * chunk.count for chunk in chunks)
            fitting = PAGE_WEIGHT * len(chunks) // max(1, weight)
            self._limit = min(max(1, fitting), MAX_CHUNKS, 4 * self._limit)
        return chunks

    def _next(self, task_id: str) -> int:
        return self._last[task_id][0] if task_id in self._last else self._floor


def _to_chunks(records: Sequence[LogRecord]) -> Iterator[LogChunk]:
    """Yield consecutive lines as chunks without an id, one for each segment they come from."""
    for _, group in groupby(records, key=lambda record: id(record.segment)):
        part = list(group)
        first, source = part[0], part[0].segment
        end = first.index + len(part)
        segment = LogSegment(
            attempt=source.attempt,
            stream=source.stream,
            level=source.level,
            ts_ms=source.ts_ms,
            duration_ms=source.duration_ms,
            lines=source.lines[first.index : end],
            continued=[i - first.index for i in source.continued if first.index <= i < end],
            fields=source.fields,
        )
        yield LogChunk(
            id=0,
            run_id=first.run_id,
            task_id=first.task_id,
            first_seq=first.seq,
            count=len(part),
            size=0,
            ts_ms=source.ts_ms,
            segments=(segment,),
        )


class EventCursor:
    """A position in the events of a run, those of one task or (no task_id) all of them."""

    def __init__(self, runs: RunStore, task_id: str, run_id: str, from_seq: int | None) -> None:
        self._runs = runs
        self._task_id = task_id
        self._run_id = run_id
        self._after = None if from_seq is None else from_seq - 1

    def is_next(self, item: Event) -> bool:
        # Between two events of one task lie those of others: only of a whole run can one tell.
        return bool(self._task_id) or self._after is None or item.seq <= self._after + 1

    def is_new(self, item: Event) -> bool:
        return item.seq > (self._after or 0)

    def rewind(self, item: Event) -> None:
        if self._after is None:
            self._after = item.seq - 1

    def take(self, item: Event) -> int | None:
        if not self.is_new(item):
            return None
        self._after = item.seq
        return item.seq

    async def page(self) -> Sequence[Event]:
        while events := await self._runs.history(self._run_id, self._after or 0, PAGE_EVENTS):
            wanted = [e for e in events if not self._task_id or e.task_id == self._task_id]
            if wanted:
                return wanted
            self._after = events[-1].seq
        return ()
