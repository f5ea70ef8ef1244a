"""JSON at the door: what other readers would guess about is refused here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, NoReturn

from taskhub.domain.task import JSON
from taskhub.errors import MalformedError, Problem

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
SHOWN: Final = 10

SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
SHAPE: Final = bytes.maketrans(b"123456789E", b"000000000e")
NESTS: Final = frozenset({dict, list})


def parse(data: bytes, *, max_depth: int = 64) -> JSON:
    """Return the JSON value in `data`, or raise `MalformedError`, with position or pointer.

    Refused beyond what RFC 8259 refuses: bytes that are not UTF-8, NaN and Infinity, names given
    twice in one object, halves of surrogate pairs, nesting beyond `max_depth`, integers beyond
    int64, numbers too large for a float. The C scanner does the work: 1 MiB takes 10 to 40 ms.
    """
    twice: list[tuple[dict[str, Any], str]] = []
    value = _scan(data, twice, max_depth)
    if data.count(b"[") + data.count(b"{") > max_depth and _is_deeper(value, max_depth):
        raise _too_deep(max_depth)
    problems: list[Problem] = []
    if twice:
        problems += _duplicates(value, twice)
    if _is_suspect(data):
        problems += _unfit(value)
    if problems:
        raise MalformedError(problems)
    return value


def _scan(data: bytes, twice: list[tuple[dict[str, Any], str]], max_depth: int) -> JSON:
    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            twice.append((value, _repeated(pairs)))
        return value

    try:
        decoder = json.JSONDecoder(object_pairs_hook=to_object, parse_constant=_refuse_constant)
        value: JSON = decoder.decode(data.decode())
    except UnicodeDecodeError as exc:
        raise MalformedError(f"not UTF-8 at byte {exc.start}") from None
    except json.JSONDecodeError as exc:
        place = f"line {exc.lineno} column {exc.colno}"
        raise MalformedError(f"not JSON: {exc.msg} at {place}") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError:  # int() refuses more digits than sys.get_int_max_str_digits()
        raise MalformedError("an integer is beyond 64 bits") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"not JSON: {name} is not a JSON number")


def _too_deep(max_depth: int) -> MalformedError:
    return MalformedError(f"nested more than {max_depth} levels deep")


def _repeated(pairs: Iterable[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError(pairs)


def _is_deeper(value: JSON, max_depth: int) -> bool:
    level: list[JSON] = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        if not level:
            return False
        level = [child for node in level for child in _children(node) if type(child) in NESTS]
    return bool(level)


def _children(node: JSON) -> Iterable[JSON]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _duplicates(value: JSON, twice: list[tuple[dict[str, Any], str]]) -> Iterator[Problem]:
    names = {id(found): name for found, name in twice[:SHOWN]}
    for place, node in walk(value):
        if isinstance(node, dict) and id(node) in names:
            name = names[id(node)]
            message = f"the name {name[:80]!r} is given twice"
            yield Problem(f"{to_pointer(place)}/{escape(name)}", message)


def _is_suspect(data: bytes) -> bool:
    """Say whether there may be an int beyond int64, an infinite float or half a character."""
    shape = data.translate(SHAPE)
    hints = b"0" * 19, b"e000", b"e+000"
    return any(hint in shape for hint in hints) or SURROGATE.search(data) is not None


def _unfit(value: JSON) -> Iterator[Problem]:
    left = SHOWN
    for place, node in walk(value):
        if message := _unfit_leaf(node):
            left -= 1
            yield Problem(to_pointer(place), message)
            if not left:
                return


def _unfit_leaf(node: JSON) -> str:
    match node:
        case int() if not INT64_MIN <= node <= INT64_MAX:
            return "the integer is beyond 64 bits"
        case float() if math.isinf(node):
            return "the number is too large"
        case str() if not _is_text(node):
            return "a string holds half of a surrogate pair"
        case dict() if not all(map(_is_text, node)):
            return "a name holds half of a surrogate pair"
        case _:
            return ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class Place(NamedTuple):
    """Where a value stands: the place of what holds it, and the name or index within."""

    holder: Place | None
    step: str | int


def walk(value: JSON) -> Iterator[tuple[Place | None, JSON]]:
    """Yield every value within `value`, itself first, with its place.

    A place costs the same at any depth; its pointer is made of it only where one is asked for.
    """
    stack: list[tuple[Place | None, JSON]] = [(None, value)]
    while stack:
        place, node = stack.pop()
        yield place, node
        if isinstance(node, dict):
            stack.extend((Place(place, name), node[name]) for name in reversed(node))
        elif isinstance(node, list):
            stack.extend((Place(place, i), node[i]) for i in range(len(node) - 1, -1, -1))


def to_pointer(place: Place | None) -> str:
    """Return the JSON pointer (RFC 6901) of a place."""
    steps: list[str] = []
    while place is not None:
        steps.append(escape(place.step) if isinstance(place.step, str) else str(place.step))
        place = place.holder
    return "".join(f"/{step}" for step in reversed(steps))


def escape(name: str) -> str:
    """Return a name as a step of a JSON pointer, cut, and safe to send."""
    name = name[:128].encode(errors="replace").decode()
    return name.replace("~", "~0").replace("/", "~1")
