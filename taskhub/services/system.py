"""How the server is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from taskhub import __version__
from taskhub.ports.clock import Clock
from taskhub.services.standing import Standing

NAME: Final = "TaskHub Server"
COMMIT: Final = "dev-local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """`status` is healthy, degraded while the store fails, or standby; `time` is ISO 8601."""

    status: str
    time: str
    uptime_sec: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What is running."""

    name: str
    version: str
    build_time: str
    commit: str


class SystemService:
    """Says how the server is, and what it is. `is_failing` tells whether the store fails now."""

    def __init__(
        self,
        clock: Clock,
        *,
        is_failing: Callable[[], bool] = lambda: False,
        standing: Standing | None = None,
        commit: str = COMMIT,
    ) -> None:
        self._clock = clock
        self._is_failing = is_failing
        self._standing = standing or Standing()
        self._started_ms = clock.monotonic_ms()
        self._info = Info(name=NAME, version=__version__, build_time=_build_time(), commit=commit)

    def health(self) -> Health:
        """Return how it is at this moment."""
        return Health(
            status=self._status(),
            time=iso(self._clock.now_ms()),
            uptime_sec=(self._clock.monotonic_ms() - self._started_ms) // 1000,
        )

    def _status(self) -> str:
        if not self._standing.is_active:
            return "standby"
        return "degraded" if self._is_failing() else "healthy"

    def info(self) -> Info:
        """Return name, version, and when it was built."""
        return self._info


def iso(ts_ms: int) -> str:
    """Return epoch milliseconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _build_time() -> str:
    """Return when the package was put where it is, which is the build of an installed one."""
    built = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    return built.strftime("%Y-%m-%d %H:%M:%S")
