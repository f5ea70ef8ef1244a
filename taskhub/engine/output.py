"""What attempts print: cut into lines, numbered, stored in chunks, then published."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from taskhub.domain.chunks import group, merge, size_of
from taskhub.domain.ids import IdSource
from taskhub.domain.lines import Lines, LineSplitter
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.domain.result import Output
from taskhub.domain.task import JSON
from taskhub.engine.bus import Bus
from taskhub.engine.insistence import Insistence
from taskhub.engine.plain import plain
from taskhub.errors import ConflictError, TooLargeError
from taskhub.ports.clock import Clock
from taskhub.ports.store import LogStore

HIGH_WATER: Final = 512 * 1024
HARD_LIMIT: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLimits:
    """Bytes of a line, of what is stored of an attempt, and of the end kept for API answers."""

    line: int = 16 * 1024
    attempt: int = 64 * 1024 * 1024
    tail: int = 256 * 1024


class Tail:
    """The last bytes of a stream."""

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Append, and drop from the front what is no longer among the last."""
        if not self._limit:
            return
        self._parts.append(data)
        self._size += len(data)
        while self._size - len(self._parts[0]) >= self._limit:
            self._size -= len(self._parts.popleft())

    def text(self) -> str:
        """Return the tail as text, cut at a character."""
        data = b"".join(self._parts)[-self._limit :] if self._limit else b""
        start = 0
        while self._size > self._limit and start < min(3, len(data)) and data[start] & 0xC0 == 0x80:  # noqa: PLR2004
            start += 1
        return data[start:].decode("utf-8", "replace")


class AttemptLog:
    """The output of one attempt on its way to the store. Lines are numbered as they are taken."""

    def __init__(
        self,
        writer: LogWriter,
        *,
        run_id: str,
        task_id: str,
        attempt: int,
        limits: OutputLimits,
    ) -> None:
        self._writer = writer
        self.run_id = run_id
        self.task_id = task_id
        self._attempt = attempt
        self._next_seq = 1
        self._limits = limits
        self._started = writer.clock.monotonic_ms()
        self._splitters: dict[Stream, LineSplitter] = {}
        self._tails: dict[Stream, Tail] = {}
        self._segments: list[LogSegment] = []
        self._room = limits.attempt
        self._cut_bytes = 0
        self._backlog = 0
        self._backlog_taken = 0
        self._unstored = 0
        self._progress: asyncio.Event | None = None
        self._ended = False

    @property
    def cut_bytes(self) -> int:
        """How much was printed beyond the cap, and is not stored."""
        return self._cut_bytes

    @property
    def clock(self) -> Clock:
        """The clock by which lines are timed."""
        return self._writer.clock

    async def continue_numbering(self) -> None:
        """Go on with the numbers of the attempt before; to be called before any write."""
        self._next_seq = 1 + await self._writer.last_seq(self.task_id, self.run_id)

    def write(self, stream: Stream, data: bytes) -> None:
        """Take output as it came; see `taskhub.ports.executor.Context.write`."""
        self._check_open()
        if stream not in self._splitters:
            self._splitters[stream] = LineSplitter(self._limits.line)
            self._tails[stream] = Tail(self._limits.tail)
        self._tails[stream].add(data)
        if len(data) > self._room:
            self._cut_bytes += len(data) - self._room
            data = data[: self._room]
        self._room -= len(data)
        if data:
            self._add(stream, Level.INFO, self._splitters[stream].feed(data), len(data))

    def log(
        self, message: str, level: Level = Level.INFO, fields: Mapping[str, JSON] | None = None
    ) -> None:
        """Add a line of the executor's or the engine's own."""
        self._check_open()
        raw = message.encode("utf-8", "replace")
        if len(raw) > self._room:
            self._cut_bytes += len(raw)
            return
        self._room -= len(raw)
        self._note(raw, Level(level), plain(fields) if fields else {})

    def _check_open(self) -> None:
        if self._ended:
            raise ConflictError("the attempt is over; its output is closed")
        if self._backlog > HARD_LIMIT:
            raise TooLargeError("output is written without waiting for drain()")

    def _note(self, raw: bytes, level: Level, fields: Mapping[str, JSON]) -> None:
        lines = LineSplitter(self._limits.line).feed(raw + b"\n")
        self._add(Stream.NONE, level, lines, len(raw), fields)

    def end(self) -> None:
        """Take no more; what an abandoned attempt still writes must not mix with the next one."""
        self._ended = True
        self._unstored -= sum(len(segment.lines) for segment in self._segments)
        self._segments.clear()

    def drop(self) -> None:
        """Wait no more for what is not stored; for use when nothing stores it any more."""
        self.end()
        self._unstored = self._backlog = 0
        if self._progress is not None:
            self._progress.set()

    async def drain(self) -> None:
        """Wait until there is room for more."""
        while self._backlog > HIGH_WATER:
            await self._wait_for_progress()

    async def close(self) -> Output:
        """Store everything there is, and return the ends of the two streams."""
        for stream, splitter in self._splitters.items() if not self._ended else ():
            self._add(stream, Level.INFO, splitter.finish(), 0)
        if self._cut_bytes and not self._ended:
            text = f"output cut: {self._cut_bytes} bytes beyond the limit are not stored"
            self._note(text.encode(), Level.WARN, {"cut_bytes": self._cut_bytes})
        while self._unstored:
            await self._wait_for_progress()
        tails = {stream: tail.text() for stream, tail in self._tails.items()}
        return Output(stdout=tails.get(Stream.STDOUT, ""), stderr=tails.get(Stream.STDERR, ""))

    async def _wait_for_progress(self) -> None:
        if self._progress is None:
            self._progress = asyncio.Event()
        self._progress.clear()
        await self._progress.wait()

    def _add(
        self,
        stream: Stream,
        level: Level,
        lines: Lines,
        size: int,
        fields: Mapping[str, JSON] | None = None,
    ) -> None:
        self._backlog += size
        if not lines.text:
            return
        clock = self._writer.clock
        self._segments.append(
            LogSegment(
                attempt=self._attempt,
                stream=stream,
                level=level,
                ts_ms=clock.now_ms(),
                duration_ms=clock.monotonic_ms() - self._started,
                lines=lines.text,
                continued=lines.continued,
                fields=fields or {},
            )
        )
        self._unstored += len(lines.text)
        self._writer.wake(self)

    def take(self, ids: IdSource) -> list[LogChunk]:
        """Give numbers to what came since the last call, and return it in chunks."""
        segments, self._segments = merge(self._segments), []
        chunks: list[LogChunk] = []
        for part in group(segments):
            count = sum(len(segment.lines) for segment in part)
            chunks.append(
                LogChunk(
                    id=ids.take(part[-1].ts_ms),
                    run_id=self.run_id,
                    task_id=self.task_id,
                    first_seq=self._next_seq,
                    count=count,
                    size=sum(size_of(segment) for segment in part),
                    ts_ms=part[-1].ts_ms,
                    segments=tuple(part),
                )
            )
            self._next_seq += count
        self._backlog_taken = self._backlog
        return chunks

    def stored(self, lines: int) -> None:
        """Note that lines are safe; whoever waits may go on."""
        self._unstored -= lines
        self._backlog -= min(self._backlog, self._backlog_taken)
        self._backlog_taken = 0
        if self._progress is not None:
            self._progress.set()


class LogWriter:
    """Stores what attempts print, many attempts in one commit, and publishes what is stored."""

    def __init__(self, store: LogStore, bus: Bus, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._bus = bus
        self.clock = clock
        self._ids = ids
        self._waiting: dict[AttemptLog, None] = {}
        self._wake = asyncio.Event()
        self._storing = asyncio.Lock()
        self._insist = Insistence(clock, "log store")

    @property
    def is_failing(self) -> bool:
        """Whether the store does not take lines at present."""
        return self._insist.is_failing

    def wake(self, attempt_log: AttemptLog) -> None:
        """Note that an attempt has something to store."""
        self._waiting[attempt_log] = None
        self._wake.set()

    async def run(self) -> None:
        """Store until cancelled; attempts that wait for room hold their children back meanwhile."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            taken = [(source, source.take(self._ids)) for source in waiting]
            chunks = [chunk for _, part in taken for chunk in part]
            async with self._storing:
                await self._insist(partial(self._store.append, chunks))
            for source, part in taken:
                source.stored(sum(chunk.count for chunk in part))
            await self._publish(chunks)

    async def last_seq(self, task_id: str, run_id: str) -> int:
        """Return the number of the last line stored, or 0."""
        async with self._storing:
            return await self._insist(partial(self._store.last_seq, task_id, run_id))

    async def _publish(self, chunks: list[LogChunk]) -> None:
        for index, chunk in enumerate(chunks):
            if index:
                await asyncio.sleep(0)  # thousands of lines become messages in each call
            self._bus.logs.publish(chunk)
