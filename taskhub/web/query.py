"""What stands behind the `?`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from tornado.httputil import HTTPServerRequest

from taskhub.errors import InvalidError, Problem
from taskhub.spec.strict_json import INT64_MAX, INT64_MIN

T = TypeVar("T")

UINT64_MAX: Final = 2**64 - 1
LONGEST: Final = 1024
"""Bytes of a value: four for each character that the longest name may have."""
INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
CURSOR: Final = re.compile(r"c([0-9a-f]{1,16})")


class Query:
    """The parameters of one request; `check` raises for all that were wrong."""

    def __init__(self, request: HTTPServerRequest) -> None:
        self._values = request.query_arguments
        self._problems: list[Problem] = []

    def text(self, name: str, most: int = LONGEST) -> str | None:
        """Return the last value given, or None for none or an empty one."""
        values = self._values.get(name)
        if not values or not values[-1]:
            return None
        if len(values[-1]) > most:
            self._wrong(name, f"is longer than {most} bytes")
            return None
        try:
            return values[-1].decode()
        except UnicodeDecodeError:
            self._wrong(name, "must be UTF-8")
            return None

    def required(self, name: str) -> str:
        """Return a value that must be there."""
        value = self.text(name)
        if value is None:
            self._wrong(name, "is missing")
        return value or ""

    def integer(self, name: str) -> int | None:
        """Return an integer within 64 bits, or None for none."""
        value = self.text(name)
        if value is None:
            return None
        if INTEGER.fullmatch(value) and INT64_MIN <= (number := int(value)) <= UINT64_MAX:
            return min(number, INT64_MAX)  # the seed has unsigned numbers; none is that large
        self._wrong(name, "must be an integer")
        return None

    def word(self, name: str, words: Mapping[str, T]) -> T | None:
        """Return what one of these words stands for, or None for none."""
        value = self.text(name)
        if value is not None and value not in words:
            self._wrong(name, f"must be one of {', '.join(words)}")
        return None if value is None else words.get(value)

    def limit(self, default: int, most: int) -> int:
        """Return how many items are wanted, at most `most`."""
        limit = self.integer("limit")
        if limit is not None and limit < 1:
            self._wrong("limit", "must be at least 1")
        return min(default if limit is None else limit, most)

    def time_range(self) -> tuple[int | None, int | None]:
        """Return `start_ts_ms` and `end_ts_ms`, in order."""
        start, end = self.integer("start_ts_ms"), self.integer("end_ts_ms")
        if start is not None and end is not None and start > end:
            self._wrong("end_ts_ms", "is before start_ts_ms")
        return start, end

    def cursor(self) -> int | None:
        """Return where the page before ended."""
        value = self.text("cursor")
        if value is None:
            return None
        found = CURSOR.fullmatch(value)
        if found and (before := int(found[1], 16)) <= INT64_MAX:
            return before
        self._wrong("cursor", "is not a next_cursor of this server")
        return None

    def check(self) -> None:
        """Raise `InvalidError` if anything was wrong; its pointers name the parameters."""
        if self._problems:
            raise InvalidError(self._problems)

    def _wrong(self, name: str, message: str) -> None:
        self._problems.append(Problem(f"?{name}", message))


def to_cursor(before: int | None) -> str | None:
    """Return `next_cursor` for the page that follows, None at the end."""
    return None if before is None else f"c{before:x}"
