"""History does not grow for ever: what is old is deleted, now and then."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from taskhub.errors import UnavailableError
from taskhub.ports.accounts import AuditStore
from taskhub.ports.clock import Clock
from taskhub.ports.store import LogStore, RunStore

log = logging.getLogger(__name__)
DAY_MS: Final = 86_400_000


class Retention:
    """Deletes runs `run_days` after they ended, and lines by age and by bytes in all."""

    def __init__(  # noqa: PLR0913  # as many settings
        self,
        runs: RunStore,
        logs: LogStore,
        clock: Clock,
        audit: AuditStore,
        *,
        run_days: float = 30,
        log_days: float = 14,
        log_bytes: int = 10_000_000_000,
        audit_days: float = 365,
        interval_s: float = 600,
    ) -> None:
        self._runs = runs
        self._logs = logs
        self._clock = clock
        self._audit = audit
        self._audit_ms = int(audit_days * DAY_MS)
        self._run_ms = int(run_days * DAY_MS)
        self._log_ms = int(log_days * DAY_MS)
        self._log_bytes = log_bytes
        self._interval_s = interval_s

    async def run(self) -> None:
        """Clean up, wait, and so on until cancelled."""
        while True:
            await self.clean_up()
            await self._clock.sleep(self._interval_s)

    async def clean_up(self) -> None:
        """Delete all that is too old by now; what fails is left for the next time."""
        now = self._clock.now_ms()
        await _purge("runs", lambda: self._runs.expire(now - self._run_ms))
        await _purge("logs", lambda: self._expire_logs(now - self._log_ms))
        await _purge("audit", lambda: self._audit.expire(now - self._audit_ms))

    async def _expire_logs(self, before_ms: int) -> int:
        active = await self._runs.active()
        return await self._logs.expire(before_ms, self._log_bytes, keep=active)


async def _purge(what: str, expire: Callable[[], Awaitable[int]]) -> None:
    total = 0
    try:
        while deleted := await expire():
            total += deleted
    except UnavailableError as error:
        log.warning("old history was not deleted", extra={"what": what, "error": str(error)})
    if total:
        log.info("old history deleted", extra={"what": what, "count": total})
