"""Many rows in one statement: in by parameters, out as one JSON text."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from taskhub.domain.task import JSON

CHUNK: Final = 256
EXACT: Final = 32
encode_json: Final = msgspec.json.Encoder().encode
decode_json: Final = msgspec.json.Decoder().decode


class RowsStatement:
    """A statement over a table of parameters, `{rows}` in its text.

    A statement is compiled once for each number of rows and then kept by the connection, so there
    is one for every number up to `EXACT`, and one for `CHUNK`. `single` is for one row alone.
    """

    def __init__(self, width: int, text: str, single: str = "") -> None:
        row = f"({','.join('?' * width)})"
        sizes = (*range(1, EXACT + 1), CHUNK)
        self._texts = {n: text.replace("{rows}", ",".join([row] * n)) for n in sizes}
        if single:
            self._texts[1] = single

    def execute(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run the statement for all rows, up to `CHUNK` at once."""
        start, end = 0, len(rows)
        while start < end:
            left = end - start
            size = CHUNK if left >= CHUNK else min(left, EXACT)
            part = rows[start : start + size]
            connection.execute(self._texts[size], [*chain.from_iterable(part)])
            start += size


def insert(table: str, columns: str, on_conflict: str = "") -> RowsStatement:
    """Return `INSERT INTO` a table; columns are separated by commas."""
    text = f"INSERT INTO {table} ({columns}) VALUES {{rows}} {on_conflict}"  # noqa: S608  # constants
    return RowsStatement(columns.count(",") + 1, text)


def update(table: str, columns: str) -> RowsStatement:
    """Return `UPDATE` of a table by the first of the columns."""
    key, *others = columns.split(", ")
    changes = ", ".join(f"{name} = v.column{i}" for i, name in enumerate(others, 2))
    source = "FROM (VALUES {rows}) AS v"
    text = f"UPDATE {table} SET {changes} {source} WHERE {table}.{key} = v.column1"  # noqa: S608  # constants
    one = ", ".join(f"{name} = ?{i}" for i, name in enumerate(others, 2))
    single = f"UPDATE {table} SET {one} WHERE {key} = ?1"  # noqa: S608  # as above
    return RowsStatement(len(others) + 1, text, single)


def select(columns: str, source: str) -> str:
    """Return a query for all rows at once, for `fetch`; `source` is all from `FROM` on."""
    return f"SELECT json_group_array(json_array({columns})) FROM (SELECT {columns} {source})"  # noqa: S608  # constants


def fetch(
    connection: sqlite3.Connection, query: str, values: Mapping[str, Any] | Sequence[Any]
) -> list[list[Any]]:
    """Return the rows of a `select`, in no order that SQLite promises."""
    (text,) = connection.execute(query, values).fetchone()
    rows: list[list[Any]] = decode_json(text)
    return rows


def to_text(value: object) -> str:
    """Return a value as JSON text; empty for an empty object, which most are."""
    return encode_json(value).decode() if value else ""


def from_text(text: str) -> dict[str, JSON]:
    """Rebuild what was given to `to_text`."""
    return decode_json(text) if text else {}
