"""Text frames of the WebSocket protocol (RFC 6455, from server to client, so not masked).

Everything in them is ASCII, for JSON can say any character in ASCII: then a line's length in bytes
is its length as a `str`, and thousands of frames are put together as one string of latin-1 code
points and encoded once. One loop over a chunk of short lines makes 2 to 3 million frames a second,
where `json.dumps` and a header for each make 0.15.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final, NamedTuple

from taskhub.domain.event import Event
from taskhub.domain.log import LogChunk, LogSegment
from taskhub.domain.secrets import Secrets
from taskhub.domain.task import JSON

BLOCK_BYTES: Final = 64 * 1024
_SEPARATOR: Final = "\x7f"  # the one control character that JSON leaves as it is
_TABLE_SIZE: Final = 2048
_TWO_BYTES: Final = 126  # in the place of a short length: the length follows in 2 bytes


class Block(NamedTuple):
    """Whole frames, joined: the unit that is queued, counted and handed to the kernel."""

    data: bytes
    messages: int


def _header(size: int) -> str:
    """Return the header of a text frame of `size` bytes as latin-1 code points."""
    if size < _TWO_BYTES:
        return f"\x81{chr(size)}"
    if size < 1 << 16:
        return f"\x81\x7e{chr(size >> 8)}{chr(size & 255)}"
    return f"\x81\x7f{size.to_bytes(8, 'big').decode('latin-1')}"


_HEADERS: Final = tuple(map(_header, range(_TABLE_SIZE)))


def frame(message: bytes) -> bytes:
    """Return one text frame; `message` is UTF-8."""
    return _header(len(message)).encode("latin-1") + message


def message_frame(message: Mapping[str, Any]) -> bytes:
    """Return the frame of one JSON object."""
    return frame(_json(message).encode("ascii"))


def event_frame(event: Event, *, numbered: bool) -> bytes:
    """Return the frame of one event; `numbered` adds its `seq`."""
    message = {
        "type": "event",
        "task_id": event.task_id,
        "run_id": event.run_id,
        "event": event.name,
        "ts_ms": event.ts_ms,
        "extra": event.extra,
    }
    return message_frame(message | {"seq": event.seq} if numbered else message)


def log_frames(chunk: LogChunk, from_seq: int = 1) -> bytes:
    """Return the frames of a chunk's lines numbered `from_seq` and above, one a line, joined."""
    prefix = (
        f'{{"type":"log","task_id":{encode_basestring_ascii(chunk.task_id)}'
        f',"run_id":{encode_basestring_ascii(chunk.run_id)},"seq":'
    )
    frames: list[str] = []
    seq = chunk.first_seq
    for segment in chunk.segments:
        skip = min(max(0, from_seq - seq), len(segment.lines))
        _add_segment(frames, prefix, segment, seq, skip)
        seq += len(segment.lines)
    return "".join(frames).encode("latin-1")


def _add_segment(
    frames: list[str], prefix: str, segment: LogSegment, first_seq: int, skip: int
) -> None:
    middle = (
        f',"ts_ms":{segment.ts_ms},"level":{int(segment.level)},"stream":{int(segment.stream)}'
        ',"message":"'
    )
    texts = _escaped(segment.lines[skip:] if skip else segment.lines)
    seq = first_seq + skip
    begin = len(frames)
    while texts:
        count = 10 ** len(str(seq)) - seq  # so many numbers have as many digits as this one
        _add_lines(frames, prefix, middle, _suffix(segment), seq, texts[:count])
        texts = texts[count:]
        seq += count
    for index in segment.continued:
        if index >= skip:
            suffix = _suffix(segment, continued=True)
            text = _escaped(segment.lines[index : index + 1])
            seq = first_seq + index
            one: list[str] = []
            _add_lines(one, prefix, middle, suffix, seq, text)
            frames[begin + index - skip] = one[0]


def _add_lines(
    frames: list[str], prefix: str, middle: str, suffix: str, seq: int, texts: Sequence[str]
) -> None:
    size = len(prefix) + len(str(seq)) + len(middle) + len(suffix)
    headers = _HEADERS
    if size + max(map(len, texts)) < _TABLE_SIZE:
        frames += [
            f"{headers[size + len(text)]}{prefix}{number}{middle}{text}{suffix}"
            for number, text in enumerate(texts, seq)
        ]
    else:
        frames += [
            f"{_header(size + len(text))}{prefix}{number}{middle}{text}{suffix}"
            for number, text in enumerate(texts, seq)
        ]


def _suffix(segment: LogSegment, *, continued: bool = False) -> str:
    fields = {**segment.fields, "continued": True} if continued else segment.fields
    return (
        f'","duration_ms":{segment.duration_ms},"attempt":{segment.attempt}'
        f',"fields":{_json(fields) if fields else "{}"}}}'
    )


def _escaped(lines: Sequence[str]) -> Sequence[str]:
    """Return the lines as they stand between the quotes of a JSON string.

    All in one call where they are ASCII; most often nothing needs escaping at all.
    """
    text = _SEPARATOR.join(lines)
    if not text.isascii() or text.count(_SEPARATOR) != len(lines) - 1:
        return [encode_basestring_ascii(line)[1:-1] for line in lines]
    escaped = encode_basestring(text)
    if len(escaped) == len(text) + 2:
        return lines
    return escaped[1:-1].split(_SEPARATOR)


def _json(value: Mapping[str, JSON]) -> str:
    """Return `value` as ASCII JSON; what JSON does not have becomes null (NaN) or text."""
    try:
        return _STRICT.encode(value)
    except (ValueError, TypeError):
        loose = json.dumps(value, default=str, skipkeys=True)
        return _STRICT.encode(json.loads(loose, parse_constant=lambda _: None))


_STRICT: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def frame_ends(data: bytes) -> Iterator[int]:
    """Yield the offset behind each frame of a buffer of whole, unmasked frames."""
    end = 0
    while end < len(data):
        size = data[end + 1]
        if size < _TWO_BYTES:
            end += 2 + size
        elif size == _TWO_BYTES:
            end += 4 + (data[end + 2] << 8 | data[end + 3])
        else:
            end += 10 + int.from_bytes(data[end + 2 : end + 10], "big")
        yield end


def to_blocks(data: bytes, messages: int, size: int = BLOCK_BYTES) -> Sequence[Block]:
    """Cut a buffer of `messages` frames into blocks of `size` bytes plus at most one frame."""
    if len(data) <= size:
        return (Block(data, messages),) if data else ()
    blocks: list[Block] = []
    begin = count = 0
    for end in frame_ends(data):
        count += 1
        if end - begin >= size or end == len(data):
            blocks.append(Block(data[begin:end], count))
            begin, count = end, 0
    return blocks


class Frames:
    """Turns news into blocks and remembers the last, so that 1,000 subscribers share one buffer.

    One is enough: the bus hands a piece of news to all its subscribers before the next. What is
    stored is masked already, but older versions did not, and the names in the settings change.
    """

    def __init__(self, secrets: Secrets | None = None) -> None:
        self._secrets = secrets or Secrets()
        self._news: object = None
        self._blocks: dict[object, Sequence[Block]] = {}

    def lines(self, chunk: LogChunk, from_seq: int) -> Sequence[Block]:
        """Return the lines of a chunk numbered `from_seq` and above."""
        first = max(from_seq, chunk.first_seq)
        known = self._known(chunk)
        if first not in known:
            frames = log_frames(self._masked(chunk), first)
            known[first] = to_blocks(frames, chunk.last_seq - first + 1)
        return known[first]

    def event(self, event: Event, *, numbered: bool) -> Sequence[Block]:
        """Return an event."""
        known = self._known(event)
        if numbered not in known:
            shown = event._replace(extra=self._secrets.mask_object(event.extra))
            known[numbered] = (Block(event_frame(shown, numbered=numbered), 1),)
        return known[numbered]

    def message(self, message: Mapping[str, Any]) -> Sequence[Block]:
        """Return any other message."""
        known = self._known(message)
        if "" not in known:
            known[""] = (Block(message_frame(message), 1),)
        return known[""]

    def _masked(self, chunk: LogChunk) -> LogChunk:
        if not any(segment.fields for segment in chunk.segments):
            return chunk
        mask = self._secrets.mask_object
        segments = (replace(part, fields=mask(part.fields)) for part in chunk.segments)
        return replace(chunk, segments=tuple(segments))

    def _known(self, news: object) -> dict[object, Sequence[Block]]:
        if self._news is not news:
            self._news = news
            self._blocks = {}
        return self._blocks
