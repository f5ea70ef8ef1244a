"""Reading a JSON object whose author made mistakes, and telling all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from taskhub.domain.task import JSON
from taskhub.errors import GraphError, InvalidError, Problem
from taskhub.spec.strict_json import INT64_MAX, INT64_MIN, escape

MOST: Final = 1000
HINTS: Final = 20  # a hint costs a walk over all names; a thousand typos need no thousand hints
LONGEST_ECHO: Final = 80
KINDS: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class Findings:
    """What is wrong so far: with single fields, with the graph, with what executors are given."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._more = 0
        self._hints = HINTS
        self._is_about_fields = False
        self._is_about_graph = False

    def field(self, pointer: str, message: str) -> None:
        """Note a field that is wrong by itself."""
        self._is_about_fields = True
        self._add(Problem(pointer, message))

    def graph(self, problem: Problem) -> None:
        """Note something that keeps well-formed tasks from being a DAG."""
        self._is_about_graph = True
        self._add(problem)

    def parameter(self, problem: Problem) -> None:
        """Note something an executor cannot work with."""
        self._add(problem)

    def hint(self, name: str, known: Iterable[str]) -> str:
        """Return `; did you mean ...?` if something known is near."""
        if self._hints <= 0:
            return ""
        self._hints -= 1
        near = difflib.get_close_matches(name[:LONGEST_ECHO], known, n=1)
        return f"; did you mean {near[0]!r}?" if near else ""

    def raise_any(self) -> None:
        """Raise `GraphError` if the graph is wrong and no field, `InvalidError` otherwise."""
        if not self.problems:
            return
        if self._more:
            self.problems.append(Problem("", f"and {self._more} more problems"))
        if self._is_about_graph and not self._is_about_fields:
            raise GraphError(self.problems)
        raise InvalidError(self.problems)

    def _add(self, problem: Problem) -> None:
        if len(self.problems) < MOST:
            self.problems.append(problem)
        else:
            self._more += 1


class Fields:
    """One JSON object at a pointer; every method returns a usable value, whatever is wrong."""

    __slots__ = ("findings", "pointer", "value")

    def __init__(self, value: Mapping[str, JSON], pointer: str, findings: Findings) -> None:
        self.value = value
        self.pointer = pointer
        self.findings = findings

    @classmethod
    def of(cls, value: JSON, pointer: str, findings: Findings) -> Fields:
        """Read `value`, which should be an object, and as an empty one if it is not."""
        if isinstance(value, dict):
            return cls(value, pointer, findings)
        findings.field(pointer, f"must be an object, not {kind(value)}")
        return cls({}, pointer, findings)

    def wrong(self, name: str, message: str) -> None:
        """Note that a field is wrong."""
        self.findings.field(f"{self.pointer}/{escape(name)}", message)

    def only(self, known: frozenset[str]) -> None:
        """Note every field that is not known."""
        for name in sorted(self.value.keys() - known):
            hint = self.findings.hint(name, known)
            self.wrong(name, f"unknown field {name[:LONGEST_ECHO]!r}{hint}")

    def text(self, name: str, default: str = "", *, most: int = 0) -> str:
        """Return a string of at most `most` bytes of UTF-8."""
        value = self.value.get(name, default)
        if not isinstance(value, str):
            self.wrong(name, f"must be a string, not {kind(value)}")
            return default
        if most and len(value) * 4 > most and len(value.encode()) > most:
            self.wrong(name, f"is longer than {most} bytes")
            return default
        return value

    def integer(
        self, name: str, default: int, *, least: int = INT64_MIN, most: int = INT64_MAX
    ) -> int:
        """Return an integer from `least` to `most`; 1.0 and true are none."""
        value = self.value.get(name, default)
        if type(value) is not int:
            self.wrong(name, f"must be an integer, not {kind(value)}")
            return default
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most}"
            self.wrong(name, f"must be {bound}")
            return default
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.value.get(name, default)
        if not isinstance(value, bool):
            self.wrong(name, f"must be true or false, not {kind(value)}")
            return default
        return value

    def object(self, name: str) -> dict[str, JSON]:
        """Return an object, empty if it is not given."""
        value = self.value.get(name)
        if isinstance(value, dict):
            return value
        if name in self.value:
            self.wrong(name, f"must be an object, not {kind(value)}")
        return {}


def kind(value: JSON) -> str:
    """Return what JSON calls the type of a value."""
    return KINDS.get(type(value), "a number")
