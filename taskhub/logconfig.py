"""What the server says of itself: a constant sentence a line, and the facts beside it.

JSON lines for machines, text for people. What tasks print is data, and never comes here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

SECRET: Final = re.compile(
    r"password|passwd|secret|token|credential|authorization|cookie|(^|_)key$", re.IGNORECASE
)
PLAIN: Final = re.compile(r"[\w.:/@+,%#-]+", re.ASCII)
BUILT_IN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (stderr); `form` is json, text, or auto: text on a terminal."""
    stream = stream or sys.stderr
    is_text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if is_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel("WARNING")
    logging.captureWarnings(capture=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, the extras, and `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in extras(record).items() if key not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ...`, and a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        facts = "".join(f" {key}={_word(value)}" for key, value in extras(record).items())
        name = record.name.removeprefix("taskhub.")
        line = f"{clock} {record.levelname:<7} {name}: {record.getMessage()}{facts}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def is_secret(name: str) -> bool:
    """Whether what goes by this name must not be shown."""
    return SECRET.search(name) is not None


def extras(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return what a call passed as `extra`, values of telling names masked."""
    return {
        key: "***" if is_secret(key) else value
        for key, value in vars(record).items()
        if key not in BUILT_IN
    }


def _iso(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _word(value: object) -> str:
    """Return a value that cannot be mistaken for two, nor for a line of its own."""
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
