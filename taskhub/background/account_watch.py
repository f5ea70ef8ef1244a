"""Changes that other processes make to accounts count here within a second."""

from __future__ import annotations

import logging
from typing import Final

from taskhub.errors import UnavailableError
from taskhub.ports.clock import Clock
from taskhub.services.auth import AuthService

log = logging.getLogger(__name__)

INTERVAL_S: Final = 0.5


class AccountWatch:
    """Asks the store twice a second; a store that is away is asked again."""

    def __init__(self, auth: AuthService, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self.is_away = False
        """Whether the store did not answer the last time."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL_S)
            try:
                await self._auth.refresh()
            except UnavailableError as error:
                if not self.is_away:
                    extra = {"error": str(error)}
                    log.warning("accounts cannot be looked at for changes", extra=extra)
                self.is_away = True
            else:
                self.is_away = False
