"""All settings by name, and what text or TOML value each of them accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from taskhub.config.sections import Config

DEFAULTS: Final = Config()
SECTIONS: Final[Mapping[str, type]] = {
    f.name: type(section)
    for f in fields(Config)
    if is_dataclass(section := getattr(DEFAULTS, f.name))
}

NUMBER: Final = re.compile(r"-?\d{1,18}(\.\d{1,18})?", re.ASCII)
SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]i?B|B)?", re.ASCII)
UNITS: Final[Mapping[str | None, int]] = {
    None: 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One entry: `name` is `section.field`; numbers lie between `least` and `most`."""

    name: str
    default: Any
    help: str
    least: float
    most: float | None
    choices: tuple[str, ...]

    @property
    def is_size(self) -> bool:
        """Whether a unit may follow the number."""
        return self.name.endswith("_bytes")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"TASKHUB_{self.name.replace('.', '_').upper()}"

    def parse(self, raw: object, *, is_text: bool) -> Any:  # noqa: ANN401  # its type is data
        """Return the value of `raw`, which is text from outside or came typed from TOML.

        Raises `ValueError` whose message says what it must be.
        """
        match self.default:
            case Path():
                return _path(self._word(raw))
            case tuple():
                return _names(raw.split(",") if is_text and isinstance(raw, str) else raw)
            case str():
                return self._word(raw)
            case _:
                return self._number(raw, is_text=is_text)

    def _word(self, raw: object) -> str:
        if self.choices and raw not in self.choices:
            raise ValueError(f"one of {', '.join(self.choices)}")
        if not isinstance(raw, str) or not raw:
            raise ValueError("a text")
        return raw

    def _number(self, raw: object, *, is_text: bool) -> int | float:
        if self.is_size and isinstance(raw, str):
            raw = _bytes(raw)
        elif is_text and isinstance(raw, str) and NUMBER.fullmatch(raw):
            raw = float(raw) if "." in raw else int(raw)
        kind = type(self.default)
        if isinstance(raw, bool) or not isinstance(raw, int | kind):
            raise ValueError(self._wanted())  # noqa: TRY004  # as in _names
        if not self.least <= raw <= (self.most or float("1e18")):
            least = f"{self.least:g}"
            raise ValueError(f"{least} to {self.most:g}" if self.most else f"at least {least}")
        return kind(raw)  # type: ignore[no-any-return]

    def _wanted(self) -> str:
        if self.is_size:
            return 'bytes, or a text like "10 MiB"'
        return "a whole number" if isinstance(self.default, int) else "a number"


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except (RuntimeError, ValueError):  # ~nobody, or a NUL character
        raise ValueError("a path") from None


def _bytes(text: str) -> int | str:
    found = SIZE.fullmatch(text.strip())
    return int(float(found[1]) * UNITS[found[2]]) if found else text


def _names(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, Iterable) or isinstance(raw, str | Mapping):
        raise ValueError("a list of texts")  # noqa: TRY004  # one kind for the caller
    names = tuple(raw)
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError("a list of texts")
    return tuple(name.strip() for name in names)


SETTINGS: Final[Mapping[str, Setting]] = {
    f"{section}.{f.name}": Setting(name=f"{section}.{f.name}", default=f.default, **f.metadata)
    for section, make in SECTIONS.items()
    for f in fields(make)
}
