"""How lines become chunks: large enough to be cheap, small enough to be handled in one go."""

from __future__ import annotations

from typing import Final

from taskhub.domain.log import LogSegment

CHUNK_BYTES: Final = 128 * 1024
CHUNK_LINES: Final = 4096


def size_of(segment: LogSegment) -> int:
    """Return the length of a segment's text in characters, a line end with each line."""
    return sum(map(len, segment.lines)) + len(segment.lines)


def merge(segments: list[LogSegment]) -> list[LogSegment]:
    """Join neighbours that differ in nothing but their text: the output of many small writes."""
    runs: list[list[LogSegment]] = []
    lines = 0
    for segment in segments:
        lines += len(segment.lines)
        if runs and lines <= CHUNK_LINES and _alike(runs[-1][-1], segment):
            runs[-1].append(segment)
        else:
            runs.append([segment])
            lines = len(segment.lines)
    return [run[0] if len(run) == 1 else _join(run) for run in runs]


def _join(run: list[LogSegment]) -> LogSegment:
    lines: list[str] = []
    continued: list[int] = []
    for segment in run:
        continued.extend(len(lines) + i for i in segment.continued)
        lines.extend(segment.lines)
    first = run[0]
    return LogSegment(
        attempt=first.attempt,
        stream=first.stream,
        level=first.level,
        ts_ms=first.ts_ms,
        duration_ms=first.duration_ms,
        lines=lines,
        continued=tuple(continued),
    )


def _alike(one: LogSegment, other: LogSegment) -> bool:
    return (
        one.stream is other.stream
        and one.ts_ms == other.ts_ms
        and one.level is other.level
        and not (one.fields or other.fields)
    )


def group(segments: list[LogSegment]) -> list[list[LogSegment]]:
    """Divide segments so that no group makes a chunk beyond the limits."""
    groups: list[list[LogSegment]] = []
    size = lines = 0
    for segment in (part for whole in segments for part in _cut(whole)):
        more = size_of(segment)
        full = size + more > CHUNK_BYTES or lines + len(segment.lines) > CHUNK_LINES
        if not groups or full:
            groups.append([])
            size = lines = 0
        groups[-1].append(segment)
        size += more
        lines += len(segment.lines)
    return groups


def _cut(segment: LogSegment) -> list[LogSegment]:
    count = len(segment.lines)
    per_part = min(CHUNK_LINES, max(1, CHUNK_BYTES * count // max(1, size_of(segment))))
    if count <= per_part:
        return [segment]
    return [
        LogSegment(
            attempt=segment.attempt,
            stream=segment.stream,
            level=segment.level,
            ts_ms=segment.ts_ms,
            duration_ms=segment.duration_ms,
            lines=segment.lines[start : start + per_part],
            continued=tuple(i - start for i in segment.continued if start <= i < start + per_part),
            fields=segment.fields,
        )
        for start in range(0, count, per_part)
    ]
