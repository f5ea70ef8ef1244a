"""Copying everything from one store to another, and proving that it is the same.

Nothing is remembered between two calls but the target itself: every write is found by its key, and
a repeated call compares first and copies what is missing.
"""

from __future__ import annotations

from taskhub.errors import ConflictError
from taskhub.ports.clock import Clock
from taskhub.ports.stores import Stores
from taskhub.services.migration.checksums import Kind, Tally
from taskhub.services.migration.copying import Copy
from taskhub.services.migration.listening import Listener, Phase
from taskhub.services.migration.side import Side
from taskhub.services.migration.survey import survey
from taskhub.services.migration.verification import KindReport, verify

__all__ = ["Kind", "KindReport", "Listener", "Phase", "Tally", "migrate"]


async def migrate(
    source: Stores, target: Stores, clock: Clock, listener: Listener
) -> tuple[KindReport, ...]:
    """Copy all that the source holds, read the target again, and return a report of every kind.

    Nobody else may write to either store meanwhile; the source is only read. Raises `ConflictError`
    before anything is written if the target holds what the source does not, `UnavailableError` if a
    store stays away, and `SupersededError` if a server took one over: the same call then goes on.
    """
    now_ms = clock.now_ms()
    here = Side("source", source, clock, listener)
    there = Side("target", target, clock, listener)
    found = await survey(here, there, listener, now_ms)
    if found.foreign.count:
        reason = f"the target holds what the source does not: {found.foreign}"
        raise ConflictError(f"{reason}; nothing was written")
    await Copy(here, there, found, listener).everything(now_ms)
    return await verify(here, there, listener, clock.now_ms())
