from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from taskhub.domain.event import Event, EventName
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.domain.secrets import Secrets
from taskhub.web.frames import (
    BLOCK_BYTES,
    Frames,
    event_frame,
    frame,
    frame_ends,
    log_frames,
    message_frame,
    to_blocks,
)


def read_frames(data: bytes) -> list[bytes]:
    """The slow and obvious reader, straight from RFC 6455, section 5.2."""
    messages = []
    at = 0
    while at < len(data):
        assert data[at] == 0b1000_0001, "FIN and text, no extension"
        assert data[at + 1] & 0x80 == 0, "a server does not mask"
        size, at = data[at + 1], at + 2
        for marker, width, least in ((126, 2, 126), (127, 8, 65536)):
            if size == marker:
                size, at = int.from_bytes(data[at : at + width], "big"), at + width
                assert size >= least, "the shortest form must be used"
                break
        assert len(data) >= at + size
        messages.append(data[at : at + size])
        at += size
    return messages


def expected(chunk: LogChunk, from_seq: int = 1) -> list[dict[str, object]]:
    return [
        {
            "type": "log",
            "task_id": r.task_id,
            "run_id": r.run_id,
            "seq": r.seq,
            "ts_ms": r.segment.ts_ms,
            "level": int(r.segment.level),
            "stream": int(r.segment.stream),
            "message": r.message,
            "duration_ms": r.segment.duration_ms,
            "attempt": r.segment.attempt,
            "fields": dict(r.fields),
        }
        for r in chunk.records(from_seq)
    ]


def segment(*lines: str, **changes) -> LogSegment:
    values = {
        "attempt": 1,
        "stream": Stream.STDOUT,
        "level": Level.INFO,
        "ts_ms": 1_893_456_000_000,
        "duration_ms": 12,
        "lines": lines,
    }
    return LogSegment(**values | changes)


def chunk_of(*segments: LogSegment, first_seq: int = 1, **changes) -> LogChunk:
    values = {
        "id": 7,
        "run_id": "1893456000000_abcDEF",
        "task_id": "t1",
        "first_seq": first_seq,
        "count": sum(len(s.lines) for s in segments),
        "size": 0,
        "ts_ms": 1,
        "segments": segments,
    }
    return LogChunk(**values | changes)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
texts = st.one_of(
    st.text(st.characters(max_codepoint=127), max_size=40),
    st.text(max_size=40),
    st.text('\\"\n\x7f\x00', max_size=5),
    st.sampled_from(["", "plain", "x" * 3000, "é" * 70_000, "y" * 65_400, "\\n"]),
)


@st.composite
def segments(draw) -> LogSegment:
    lines = draw(st.lists(texts, max_size=8))
    indices = st.integers(0, len(lines) - 1) if lines else st.nothing()
    return segment(
        *lines,
        attempt=draw(st.integers(1, 100)),
        stream=draw(st.sampled_from(Stream)),
        level=draw(st.sampled_from(Level)),
        duration_ms=draw(st.integers(0, 10**9)),
        continued=sorted(draw(st.sets(indices))) if lines else (),
        fields=draw(st.dictionaries(st.text(), json_values, max_size=2)),
    )


chunks = st.builds(
    lambda parts, first_seq, task_id: chunk_of(*parts, first_seq=first_seq, task_id=task_id),
    st.lists(segments(), min_size=1, max_size=4),
    st.integers(1, 12) | st.sampled_from([96, 99, 100, 998, 99_999, 10**12 - 3]),
    st.text(min_size=1, max_size=10),
)


@settings(max_examples=100, deadline=None)
@given(chunks, st.integers(-1, 40))
def test_a_chunk_becomes_one_frame_a_line_from_any_number_on(chunk, offset):
    from_seq = chunk.first_seq + offset
    data = log_frames(chunk, from_seq)
    assert [json.loads(m) for m in read_frames(data)] == expected(chunk, from_seq)


@settings(max_examples=100, deadline=None)
@given(chunks, st.integers(1, 3000))
def test_blocks_are_whole_frames_and_join_to_the_buffer(chunk, size):
    data = log_frames(chunk)
    blocks = to_blocks(data, chunk.count, size)
    assert b"".join(b.data for b in blocks) == data
    assert [len(read_frames(b.data)) for b in blocks] == [b.messages for b in blocks]
    for block in blocks:
        ends = list(frame_ends(block.data))
        assert len(ends) == 1 or ends[-2] < size, "at most one frame over the size"


def test_every_length_has_its_header():
    sizes = [*range(300), *range(2040, 2060), *range(65_530, 65_540), 70_000]
    messages = [b"x" * size for size in sizes]
    assert read_frames(b"".join(map(frame, messages))) == messages


def test_lines_around_every_change_of_header_are_whole():
    lines = ["x" * n for n in (*range(1700, 2100), *range(65_200, 65_600), 0)]
    chunk = chunk_of(segment(*lines), first_seq=5)
    got = [json.loads(m) for m in read_frames(log_frames(chunk))]
    assert [m["message"] for m in got] == lines


def test_an_ascii_chunk_and_one_of_other_letters_are_both_ascii_on_the_wire():
    chunk = chunk_of(segment("plain", 'quo"te'), segment("žluťoučký 🐴"), task_id="úkol")
    assert all(m.isascii() for m in read_frames(log_frames(chunk)))


def test_a_half_surrogate_is_still_valid_json():
    (message,) = read_frames(log_frames(chunk_of(segment("\ud800"))))
    assert json.loads(message)["message"] == "\ud800"


def test_fields_that_json_does_not_have_are_made_fit():
    fields = {"nan": float("nan"), "deep": [float("inf")], "object": Stream}
    (message,) = read_frames(log_frames(chunk_of(segment("x", fields=fields))))
    got = json.loads(message, parse_constant=lambda name: 1 / 0)["fields"]
    assert got == {"nan": None, "deep": [None], "object": str(Stream)}


def test_an_event_shows_its_number_only_when_asked_to():
    event = Event(9, "r1", 3, 1000, EventName.TASK_START, "t1", {"attempt": 1})
    plain = {
        "type": "event",
        "task_id": "t1",
        "run_id": "r1",
        "event": "task_start",
        "ts_ms": 1000,
        "extra": {"attempt": 1},
    }
    assert [json.loads(m) for m in read_frames(event_frame(event, numbered=False))] == [plain]
    (numbered,) = read_frames(event_frame(event, numbered=True))
    assert json.loads(numbered) == plain | {"seq": 3}


def test_a_message_is_one_frame():
    assert read_frames(message_frame({"type": "pong"})) == [b'{"type":"pong"}']


def test_all_subscribers_of_a_chunk_share_one_buffer():
    frames, chunk = Frames(), chunk_of(segment("a", "b"))
    first = frames.lines(chunk, 1)
    assert frames.lines(chunk, 0) is first
    assert frames.lines(chunk, 2) != first
    assert frames.lines(chunk, 1) is first


def test_a_chunk_that_looks_the_same_is_another_chunk():
    frames = Frames()
    one, other = chunk_of(segment("a")), chunk_of(segment("b"))
    assert frames.lines(one, 1) != frames.lines(other, 1)


def test_a_large_chunk_is_counted_block_by_block():
    chunk = chunk_of(segment(*["x" * 100] * 2000))
    blocks = Frames().lines(chunk, 11)
    assert sum(b.messages for b in blocks) == 1990
    assert all(len(b.data) < BLOCK_BYTES + 300 for b in blocks)


def test_what_older_versions_stored_is_masked_on_its_way_out():
    frames = Frames(Secrets(["pin"]))
    (block,) = frames.lines(chunk_of(segment("a", fields={"pin": 1, "n": 2}), segment("b")), 1)
    first, second = (json.loads(message)["fields"] for message in read_frames(block.data))
    assert (first, second) == ({"pin": "***", "n": 2}, {})
    extra = {"attempt_key": "k", "metadata": {"token": "x"}}
    event = Event(9, "r1", 3, 1000, EventName.ATTEMPT_END, "t1", extra)
    (block,) = frames.event(event, numbered=False)
    (message,) = read_frames(block.data)
    assert json.loads(message)["extra"] == {"attempt_key": "k", "metadata": {"token": "***"}}


def test_what_is_behind_the_end_is_nothing():
    assert list(Frames().lines(chunk_of(segment("a")), 2)) == []
