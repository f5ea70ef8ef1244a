"""Writing down who did what."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.domain.event import NOTHING
from taskhub.domain.ids import IdSource
from taskhub.domain.task import JSON
from taskhub.errors import TooManyError
from taskhub.ports.accounts import AuditQuery, AuditStore
from taskhub.ports.clock import Clock
from taskhub.ports.store import Page
from taskhub.services.origin import Origin
from taskhub.services.throttle import Throttle

LONGEST: Final = 256
ONCE_MS: Final = 60_000
REFUSALS: Final = 30
REMEMBERED: Final = 10_000


class AuditLog:
    """Makes entries for what is stored with its change, and stores those that stand alone."""

    def __init__(self, store: AuditStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ids = IdSource()
        self._refused: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._refusals = Throttle(clock, failures=REFUSALS, window_ms=60_000)

    async def start(self) -> None:
        """Go on behind the newest entry, also with a clock that was set back.

        Raises `UnavailableError`.
        """
        newest = await self._store.entries(AuditQuery(), 1)
        self._ids.skip_to(max((entry.id for entry in newest.items), default=0))

    def entry(
        self,
        origin: Origin,
        action: str,
        target: str = "",
        *,
        outcome: Outcome = Outcome.OK,
        detail: Mapping[str, JSON] = NOTHING,
    ) -> AuditEntry:
        """Return an entry of this moment; texts from outside are cut at 256 characters."""
        now = self._clock.now_ms()
        if origin.token:
            detail = {**detail, "token": origin.token}
        return AuditEntry(
            self._ids.take(now),
            secrets.token_hex(8),
            now,
            origin.actor[:LONGEST],
            action,
            target[:LONGEST],
            origin.address[:LONGEST],
            outcome,
            detail,
        )

    async def note(
        self,
        origin: Origin,
        action: str,
        target: str = "",
        *,
        outcome: Outcome = Outcome.OK,
        detail: Mapping[str, JSON] = NOTHING,
    ) -> None:
        """Store an entry; returns once it is flushed. Raises `UnavailableError`."""
        await self._store.append(
            [self.entry(origin, action, target, outcome=outcome, detail=detail)]
        )

    async def note_refusal(self, origin: Origin, target: str, needed: str) -> None:
        """Store that somebody asked for what their role does not allow.

        Asking must not fill the store: the same again within a minute is not stored, and no more
        than 30 in a minute of one user.
        """
        now, what = self._clock.monotonic_ms(), (origin.actor, origin.address, target)
        if now - self._refused.get(what, now - ONCE_MS) < ONCE_MS:
            return
        try:
            self._refusals.check(origin.actor)
        except TooManyError:
            return
        self._refusals.failed(origin.actor)
        self._refused[what] = now
        self._refused.move_to_end(what)
        if len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)
        detail = {"needed": needed}
        await self.note(origin, "request", target, outcome=Outcome.DENIED, detail=detail)

    async def page(self, query: AuditQuery, limit: int, before: int | None) -> Page[AuditEntry]:
        """Return entries, newest first. Raises `UnavailableError`."""
        return await self._store.entries(query, limit, before)
