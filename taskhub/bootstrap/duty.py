"""Becoming the active server, staying it, and ceasing to be."""

from __future__ import annotations

import logging
from typing import Final

from taskhub.bootstrap.engine import Engine
from taskhub.errors import ConfigError, SupersededError, UnavailableError
from taskhub.ports.clock import Clock
from taskhub.ports.lease import Lease
from taskhub.services.standing import Standing

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Between two looks at whether the active server is gone."""


class Duty:
    """Lets this server drive runs while it has the lease, and not otherwise.

    `begin` once everything is built, `end` once everything is stored and closed.
    """

    def __init__(self, lease: Lease, standing: Standing, clock: Clock) -> None:
        self._lease = lease
        self._standing = standing
        self._clock = clock
        self._is_held = False
        self._is_away = False

    async def begin(self, engine: Engine, url: str) -> None:
        """Become active if no other server is; else stand by, and take over when it is gone.

        `url` is where clients reach this server. Raises `UnavailableError`, and can be repeated
        then; `ConfigError` if another server took over while this one started.
        """
        try:
            is_active = await self._advance(engine, url)
        except SupersededError as error:
            raise ConfigError(f"cannot start: {error}") from error
        if is_active:
            log.info("this server is active", extra={"url": url})
        else:
            log.info("standing by", extra={"reason": self._standing.refusal})
            engine.loops.start("stand by", self._stand_by(engine, url), may_end=True)

    async def end(self) -> None:
        """Let another server take over, unless one has."""
        if self._is_held and not self._standing.is_superseded:
            await self._lease.release()

    async def _stand_by(self, engine: Engine, url: str) -> None:
        while not await self._try(engine, url):
            await self._clock.sleep(POLL_S)
        log.warning("this server has taken over and is active", extra={"url": url})

    async def _try(self, engine: Engine, url: str) -> bool:
        """Advance if the store lets us; say once when it does not, and once when it does again."""
        try:
            is_active = await self._advance(engine, url)
        except UnavailableError as error:
            if not self._is_away:
                log.warning("store unavailable while standing by", extra={"error": str(error)})
            self._is_away = True
            return False
        if self._is_away:
            log.warning("store available again", extra={"store": "lease"})
        self._is_away = False
        return is_active

    async def _advance(self, engine: Engine, url: str) -> bool:
        """Take the lease if it is free, then take up what was left; say whether that is done."""
        if not self._is_held:
            if not await self._lease.acquire(url):
                self._standing.stand_by(await self._lease.active_url())
                return False
            self._is_held = True
            self._standing.take_over()
            engine.loops.start("lease", self._lease.hold())
        await engine.activate()
        self._standing.activate()
        return True
