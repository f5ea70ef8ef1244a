"""Bytes as they come out of a pipe, cut into lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lines:
    """Complete lines without their ends; `continued` are indices that go on a line cut before."""

    text: list[str]
    continued: tuple[int, ...] = ()


NO_LINES = Lines([])


class LineSplitter:
    r"""Cuts at `\n` (a `\r` before it goes too) and after `limit` bytes, never inside a character.

    Bytes that are not UTF-8 become U+FFFD. Nothing is lost: what is not a whole line yet is kept
    for the next `feed` or for `finish`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._cut = False

    def feed(self, data: bytes) -> Lines:
        """Return the lines that `data` completes."""
        end = data.rfind(b"\n")
        if end < 0:
            self._rest += data
            return self._overlong() if len(self._rest) > self._limit else NO_LINES
        whole = self._rest + data[:end] if self._rest else data[:end]
        self._rest = data[end + 1 :]
        lines = self._cut_lines(whole)
        if len(self._rest) > self._limit:
            more = self._overlong()
            shift = len(lines.text)
            lines = Lines(
                lines.text + more.text,
                lines.continued + tuple(shift + i for i in more.continued),
            )
        return lines

    def finish(self) -> Lines:
        """Return what is left after the last line end, if anything."""
        rest, self._rest = self._rest, b""
        if not rest and not self._cut:
            return NO_LINES
        lines = self._cut_lines(rest) if rest else NO_LINES
        self._cut = False
        return lines

    def _cut_lines(self, whole: bytes) -> Lines:
        text = whole.decode("utf-8", "replace")
        if "\r" in text:
            text = text.replace("\r\n", "\n")
            text = text.removesuffix("\r")
        lines = text.split("\n")
        # one character is at most 4 bytes, so short lines need no closer look
        if not self._cut and max(map(len, lines)) * 4 <= self._limit:
            return Lines(lines)
        return self._cut_long_lines(whole)

    def _cut_long_lines(self, whole: bytes) -> Lines:
        out: list[str] = []
        continued: list[int] = []
        for raw in whole.split(b"\n"):
            rest = raw.removesuffix(b"\r")
            while len(rest) > self._limit:
                rest = self._emit(rest, out, continued)
            if not (self._cut and not rest):
                self._append(rest, out, continued)
            self._cut = False
        return Lines(out, tuple(continued))

    def _overlong(self) -> Lines:
        out: list[str] = []
        continued: list[int] = []
        while len(self._rest) > self._limit:
            self._rest = self._emit(self._rest, out, continued)
        return Lines(out, tuple(continued))

    def _emit(self, rest: bytes, out: list[str], continued: list[int]) -> bytes:
        end = self._limit
        while end > self._limit - 3 and rest[end] & 0xC0 == 0x80:  # noqa: PLR2004  # UTF-8 tail
            end -= 1
        self._append(rest[:end], out, continued)
        self._cut = True
        return rest[end:]

    def _append(self, raw: bytes, out: list[str], continued: list[int]) -> None:
        if self._cut:
            continued.append(len(out))
        out.append(raw.decode("utf-8", "replace"))
