"""Lines that tasks print, in chunks, because a line a row is what makes log stores slow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from taskhub.domain.task import JSON


class Level(IntEnum):
    """How grave a line is."""

    DEBUG = 0
    INFO = 1
    WARN = 2
    ERROR = 3


class Stream(IntEnum):
    """Where a line came from; NONE is the task's own log, not its process's output."""

    NONE = 0
    STDOUT = 1
    STDERR = 2
    EVENT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSegment:
    """Consecutive lines of one attempt that share everything but their text.

    `continued` are the indices of lines that go on where the line before was cut.
    """

    attempt: int
    stream: Stream
    level: Level
    ts_ms: int
    duration_ms: int
    lines: Sequence[str]
    continued: Sequence[int] = ()
    fields: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Consecutive lines of one (task, run), numbered from `first_seq`, stored as one row.

    `id` grows over all chunks in the order of storing; `size` is the text's length in characters,
    line ends included.
    """

    id: int
    run_id: str
    task_id: str
    first_seq: int
    count: int
    size: int
    ts_ms: int
    segments: tuple[LogSegment, ...]

    @property
    def last_seq(self) -> int:
        """The number of the last line."""
        return self.first_seq + self.count - 1

    def records(self, from_seq: int = 1) -> Iterator[LogRecord]:
        """Yield the lines numbered `from_seq` and above."""
        seq = self.first_seq
        for segment in self.segments:
            skip = max(0, from_seq - seq)
            for i in range(skip, len(segment.lines)):
                yield LogRecord(seq + i, self.run_id, self.task_id, segment, i)
            seq += len(segment.lines)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line: its number, whose it is, and its place in a segment."""

    seq: int
    run_id: str
    task_id: str
    segment: LogSegment
    index: int

    @property
    def message(self) -> str:
        """The text, without its line end."""
        return self.segment.lines[self.index]

    @property
    def fields(self) -> Mapping[str, JSON]:
        """What else is known of the line."""
        if self.index in self.segment.continued:
            return {**self.segment.fields, "continued": True}
        return self.segment.fields
