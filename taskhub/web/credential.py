"""The token a connection goes by, for as long as it is good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from taskhub.domain.task import JSON
from taskhub.errors import UnauthorizedError
from taskhub.ports.clock import Clock
from taskhub.services.auth import AuthService, Revocation
from taskhub.services.roles import Principal

LOOK_AGAIN_S: Final = 60.0  # the wall clock may be set while a timer runs


class Credential:
    """Checks tokens, and calls `on_end` once when the last good one expires or is revoked."""

    def __init__(self, auth: AuthService, clock: Clock, on_end: Callable[[], None]) -> None:
        self.principal: Principal | None = None
        self._auth = auth
        self._clock = clock
        self._on_end = on_end
        self._token = ""
        self._timer: asyncio.TimerHandle | None = None
        self._meanwhile: list[Revocation] | None = None
        self._hear_no_more: Callable[[], None] | None = None

    async def check(self, token: JSON) -> None:
        """Accept a good token, or none if there was a good one; raise `UnauthorizedError`."""
        if self.principal is not None and token is None:
            return
        if not isinstance(token, str):
            raise UnauthorizedError("missing or invalid token")
        if self.principal is not None and token == self._token:
            return
        if self._hear_no_more is None:
            self._hear_no_more = self._auth.subscribe_revocations(self._hear)
        meanwhile: list[Revocation] = []
        self._meanwhile = meanwhile
        try:
            principal = await self._auth.authenticate(token)
        finally:
            self._meanwhile = None
        if any(revocation.covers(principal) for revocation in meanwhile):
            raise UnauthorizedError("missing or invalid token")
        self.principal, self._token = principal, token
        self._wait_for_expiry(principal)

    def close(self) -> None:
        """Call nobody from now on."""
        if self._hear_no_more is not None:
            self._hear_no_more()
        if self._timer is not None:
            self._timer.cancel()

    def _hear(self, revocation: Revocation) -> None:
        if self._meanwhile is not None:
            self._meanwhile.append(revocation)
        if self.principal is not None and revocation.covers(self.principal):
            self._on_end()

    def _wait_for_expiry(self, principal: Principal) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not principal.expires_ms:
            return  # an API token without an end
        left_s = (principal.expires_ms - self._clock.now_ms()) / 1000
        if left_s <= 0:
            self._on_end()
            return
        loop = asyncio.get_running_loop()
        wait_s = min(left_s, LOOK_AGAIN_S)
        self._timer = loop.call_later(wait_s, self._wait_for_expiry, principal)
