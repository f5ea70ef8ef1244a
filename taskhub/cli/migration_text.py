"""What a migration looks like on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from taskhub.ports.clock import Clock
from taskhub.services.migration import KindReport, Phase

EVERY_MS: Final = 5000
NOTHING: Final = {Phase.COMPARE: "the target is empty"}
WIDTHS: Final = (11, 13, 15)


class Printer:
    """Implements `taskhub.services.migration.Listener`: a line a phase, and one every 5 seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = self._shown = clock.monotonic_ms()

    def progress(self, phase: Phase, counts: Mapping[str, int], *, over: bool) -> None:
        now = self._clock.monotonic_ms()
        if not over and now - self._shown < EVERY_MS:
            return
        done = _counted(counts) or NOTHING.get(phase, "nothing that was missing")
        state = "" if over else " so far"
        print(f"{phase}{state}: {done}{_pace(counts, now - self._start)}", flush=True)
        self._shown = now
        if over:
            self._start = now

    def waiting(self, store: str, reason: str, seconds: float) -> None:
        print(f"the {store} does not answer, next try in {seconds:g} s: {reason}", flush=True)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)


def _pace(counts: Mapping[str, int], elapsed_ms: int) -> str:
    first = next((kind for kind, count in counts.items() if count), None)
    if first is None or elapsed_ms <= 0:
        return ""
    rate = counts[first] * 1000 // elapsed_ms
    return f" in {elapsed_ms / 1000:.1f} s ({rate:,} {first}/s)"


def table(reports: Sequence[KindReport]) -> Iterator[str]:
    """Yield a row for each kind: both counts, the sum, and whether the two are the same."""
    yield _row("kind", "source", "target", "checksum", "same")
    for report in reports:
        one, other = report.source, report.target
        sums = one.shown if one.total == other.total else f"{one.shown} / {other.shown}"
        same = "yes" if report.is_same else "NO"
        yield _row(str(report.kind), f"{one.count:,}", f"{other.count:,}", sums, same)


def _row(kind: str, source: str, target: str, sums: str, same: str) -> str:
    kind_width, *widths = WIDTHS
    counts = "".join(
        text.rjust(width) for text, width in zip((source, target), widths, strict=True)
    )
    return f"{kind.ljust(kind_width)}{counts}   {sums.ljust(12)}   {same}"
