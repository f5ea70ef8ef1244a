"""Two sorted lists, side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from taskhub.domain.audit import AuditEntry
from taskhub.domain.event import Event
from taskhub.ports.store import LogHead, RunRow
from taskhub.services.migration.side import Side

T = TypeVar("T")
Pairs = AsyncIterator[tuple[T | None, T | None]]


async def _pair_up(
    source: AsyncIterator[T], target: AsyncIterator[T], key: Callable[[T], Any]
) -> Pairs[T]:
    """Yield what has the same key together, None for what one of the two lacks.

    Both must come by ascending key.
    """
    one, other = await anext(source, None), await anext(target, None)
    while one is not None or other is not None:
        if other is None or (one is not None and key(one) < key(other)):
            yield one, None
            one = await anext(source, None)
        elif one is None or key(other) < key(one):
            yield None, other
            other = await anext(target, None)
        else:
            yield one, other
            one, other = await anext(source, None), await anext(target, None)


def pair_runs(source: Side, target: Side) -> Pairs[RunRow]:
    """Yield all runs of two stores, newest first."""
    return _pair_up(source.runs(), target.runs(), lambda row: (-row.header.ord, row.header.run_id))


def pair_events(source: Side, target: Side, run_id: str) -> Pairs[Event]:
    """Yield all events of a run in two stores, in order."""
    return _pair_up(source.events(run_id), target.events(run_id), lambda event: event.seq)


def pair_heads(source: Side, target: Side) -> Pairs[LogHead]:
    """Yield all tasks of runs that have lines in two stores, oldest first."""
    return _pair_up(source.heads(), target.heads(), lambda head: head[:3])


def pair_entries(source: Side, target: Side) -> Pairs[AuditEntry]:
    """Yield the audits of two stores, newest first."""
    return _pair_up(source.entries(), target.entries(), lambda entry: (-entry.id, entry.key))
