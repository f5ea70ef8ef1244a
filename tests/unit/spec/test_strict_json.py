from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskhub.errors import MalformedError
from taskhub.spec.strict_json import parse, to_pointer, walk

MIB = 1 << 20


def refusal(data: bytes) -> str:
    with pytest.raises(MalformedError) as caught:
        parse(data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON: Expecting value at line 1 column 1"),
        (b"{} x", "not JSON: Extra data at line 1 column 4"),
        (b'{"a":\n1,}', "line 2"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b'"\x01"', "Invalid control character"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[0, 1e999]", "/1: the number is too large"),
        (b"[" + b"9" * 400 + b".5]", "/0: the number is too large"),
        (b'{"a": 9223372036854775808}', "/a: the integer is beyond 64 bits"),
        (b'{"a": -9223372036854775809}', "/a: the integer is beyond 64 bits"),
        (b"9" * 10_000, "an integer is beyond 64 bits"),
        (b'["\\ud83d"]', "/0: a string holds half of a surrogate pair"),
        (b'["\\ude00\\ud83d"]', "half of a surrogate pair"),
        (b'{"\\ud800": 1}', "a name holds half of a surrogate pair"),
        (b'{"a": {"b/c": 1, "b/c": 2}}', "/a/b~1c: the name 'b/c' is given twice"),
        (b'[{"x": [{"k": 1, "j": 2, "k": 1}]}]', "/0/x/0/k: the name 'k' is given twice"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 levels deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested more than 64 levels deep"),
        (b"[" * 900 + b"]" * 900, "nested more than 64 levels deep"),
    ],
)
def test_what_readers_would_guess_about_is_refused(data, message):
    assert message in refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 64 + b"]" * 64,
        b"[9223372036854775807, -9223372036854775808, 1e308, 1E-999, 12345678901234567890.5]",
        b'"\\ud83d\\ude00 1e999 \\\\ud800"',
        b' {"a": null}\n',
        b'"[[[["',
    ],
)
def test_what_is_unusual_but_exact_is_accepted(data):
    assert parse(data) == json.loads(data)


def test_every_name_given_twice_is_reported():
    assert refusal(b'{"a": {"x": 1, "x": 1}, "b": {"y": 1, "y": 1}}').count("given twice") == 2


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MIB,
        b'{"a":' * (MIB // 5),
        b"[" + b"1," * (MIB // 2) + b"1]",
        b"1" * MIB,
        b"[" + b"1e999," * (MIB // 6) + b"1]",
        b"[" + (b"[" * 63 + b"]" * 63 + b",") * (MIB // 127) + b"1]",
        b"[" + b'{"a":1,"a":2},' * (MIB // 14) + b"1]",
        b'"' + b"\\" * MIB,
        b'["' + b"\\\\" * (MIB // 2) + b'"]',
    ],
    ids=["deep", "deep objects", "ints", "long int", "inf", "wide", "twice", "open", "escapes"],
)
def test_a_hostile_mebibyte_is_read_or_refused_with_a_short_message(data):
    message = ""
    try:
        parse(data)
    except MalformedError as exc:
        message = str(exc)
    assert len(message) < 2000


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_that_others_write_is_read_as_they_meant_it(value):
    for ascii_only in (True, False):
        assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60) | st.text('[]{}:,"\\ue19.-0aNI ', max_size=60).map(str.encode))
def test_no_input_raises_anything_but_malformed(data):
    try:
        value = parse(data)
    except MalformedError:
        return
    assert value == json.loads(data)


def test_walk_gives_rfc_6901_pointers_in_document_order():
    found = [to_pointer(place) for place, _ in walk({"a/b": [1, {"~": 2}], "c": 3})]
    assert found == ["", "/a~1b", "/a~1b/0", "/a~1b/1", "/a~1b/1/~0", "/c"]
