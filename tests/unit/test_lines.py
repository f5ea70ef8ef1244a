from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskhub.domain.lines import LineSplitter


def split(parts, limit=16):
    """Feed all parts; return [(text, is continued)]."""
    splitter = LineSplitter(limit)
    out = []
    for lines in [*map(splitter.feed, parts), splitter.finish()]:
        marks = set(lines.continued)
        out += [(text, i in marks) for i, text in enumerate(lines.text)]
    return out


def oracle(data, limit):
    """The same by one pass over the whole, a byte at a time."""
    out = []
    whole = data.split(b"\n")
    if whole[-1] == b"":
        whole.pop()
        ended = True
    else:
        ended = False
    for number, raw in enumerate(whole):
        last = number == len(whole) - 1 and not ended
        rest = raw if last else raw.removesuffix(b"\r")
        first = True
        while len(rest) > limit:
            end = limit
            while end > limit - 3 and rest[end] & 0xC0 == 0x80:
                end -= 1
            out.append((rest[:end].decode("utf-8", "replace"), not first))
            rest, first = rest[end:], False
        out.append((rest.decode("utf-8", "replace"), not first))
    return out


def test_lines_come_out_whole_wherever_the_reads_were_cut():
    assert split([b"one\ntw", b"o\n", b"\nthree"]) == [
        ("one", False),
        ("two", False),
        ("", False),
        ("three", False),
    ]


def test_a_long_line_is_cut_and_continued():
    assert split([b"x" * 40 + b"\ny\n"]) == [
        ("x" * 16, False),
        ("x" * 16, True),
        ("x" * 8, True),
        ("y", False),
    ]


def test_a_character_is_never_cut():
    lines = split(["ä".encode() * 20])
    assert "".join(text for text, _ in lines) == "ä" * 20


def test_bytes_that_are_not_utf8_become_replacement_characters():
    assert split([b"a\xff\xfeb\n"]) == [("a\ufffd\ufffdb", False)]


def test_a_carriage_return_before_the_line_end_goes():
    assert split([b"one\r\ntwo\rthree\r", b"\n"]) == [("one", False), ("two\rthree", False)]


def test_nothing_in_gives_nothing_out():
    assert split([]) == split([b""]) == []


@given(st.lists(st.binary(max_size=60)), st.integers(4, 24))
def test_any_cutting_of_the_input_gives_the_same_text(parts, limit):
    data = b"".join(parts).replace(b"\r", b"")
    assert split([p.replace(b"\r", b"") for p in parts], limit) == oracle(data, limit)


@given(st.lists(st.text(alphabet="ab\n\rä", max_size=50)), st.integers(4, 24))
def test_no_text_is_lost(texts, limit):
    parts = [text.encode() for text in texts]
    together = "".join(text for text, _ in split(parts, limit))
    kept = "".join(texts).replace("\r\n", "").replace("\n", "")
    assert together.replace("\r", "") == kept.replace("\r", "")
