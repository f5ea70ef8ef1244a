"""Which server is active: one document, and the database's own clock."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from taskhub.adapters.mongo.client import Database
from taskhub.adapters.mongo.ledger import SUPERSEDED
from taskhub.adapters.mongo.logs import MongoLogStore
from taskhub.adapters.mongo.runs import MongoRunStore
from taskhub.errors import SupersededError, UnavailableError

log = logging.getLogger(__name__)

KEY: Final = "lease"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long a lease lasts, and how often it is renewed, in seconds.

    An expired one must stay unrenewed for `confirm_s` before another server takes it: when all
    were cut off from a database that was away, its holder comes first.
    """

    term_s: float = 12.0
    renew_s: float = 3.0
    confirm_s: float = 5.0


DEFAULT_TIMES: Final = LeaseTimes()


class MongoLease:
    """Implements `taskhub.ports.lease.Lease`.

    `node` names the data directory, whose lock only one process can hold: a server that finds its
    own node in the lease takes over from its dead predecessor at once. The epoch grows with every
    holder, and the ledgers refuse commits of earlier ones; that, not time, keeps two servers from
    writing.
    """

    def __init__(
        self,
        database: Database,
        runs: MongoRunStore,
        logs: MongoLogStore,
        node: str,
        times: LeaseTimes = DEFAULT_TIMES,
    ) -> None:
        self._meta = database["meta"]
        self._runs = runs
        self._logs = logs
        self._node = node
        self._times = times
        self._epoch = 0
        self._seen: tuple[int, int] = (0, 0)
        self._seen_s = 0.0

    async def acquire(self, url: str) -> bool:
        if self._epoch:
            return await self._extend()
        await self._meta.insert([{"_id": KEY, "epoch": 0, "beat": 0, "node": "", "url": ""}])
        query: dict[str, Any] = {"_id": KEY, "node": {"$in": ["", self._node]}}
        if await self._is_abandoned():
            epoch, beat = self._seen
            query = {"_id": KEY, "epoch": epoch, "beat": beat}
        taken = await self._meta.find_and_update(query, [{"$set": self._term(url, "$epoch")}])
        if taken is None:
            return False
        epoch = int(taken["epoch"])
        await self._runs.open(epoch)
        await self._logs.open(epoch)
        self._epoch = epoch
        return True

    def _term(self, url: str, epoch: str) -> dict[str, Any]:
        return {
            "epoch": {"$add": [epoch, 1]},
            "beat": {"$add": ["$beat", 1]},
            "node": {"$literal": self._node},
            "url": {"$literal": url},
            "until": self._until(),
        }

    def _until(self) -> dict[str, Any]:
        return {"$add": ["$$NOW", int(self._times.term_s * 1000)]}

    async def _is_abandoned(self) -> bool:
        """Whether the lease has expired and its holder gave no sign since we looked first."""
        expired = {"_id": KEY, "$expr": {"$lt": ["$until", "$$NOW"]}}
        found = await self._meta.find_one(expired, ("epoch", "beat"))
        now_s = time.monotonic()
        sign = (int(found["epoch"]), int(found["beat"])) if found else (0, 0)
        if sign != self._seen:
            self._seen, self._seen_s = sign, now_s
        return found is not None and now_s - self._seen_s >= self._times.confirm_s

    async def hold(self) -> None:
        while True:
            await self._renew()
            await asyncio.sleep(self._times.renew_s)

    async def _extend(self) -> bool:
        """Extend the term, if the lease is still ours."""
        query = {"_id": KEY, "epoch": self._epoch, "node": self._node}
        change = [{"$set": {"until": self._until(), "beat": {"$add": ["$beat", 1]}}}]
        return bool(await self._meta.update_one(query, change))

    async def _renew(self) -> None:
        try:
            if not await self._extend():
                raise SupersededError(SUPERSEDED)
        except UnavailableError as error:
            log.warning("the lease cannot be renewed now", extra={"error": str(error)})

    async def release(self) -> None:
        if not self._epoch:
            return
        await self._logs.close()
        await self._runs.close()
        query = {"_id": KEY, "epoch": self._epoch, "node": self._node}
        try:
            await self._meta.update_one(query, {"$set": {"node": "", "url": ""}})
        except UnavailableError as error:
            log.warning("the lease runs out by itself", extra={"error": str(error)})
        self._epoch = 0

    async def active_url(self) -> str:
        found = await self._meta.find_one({"_id": KEY}, ("url",))
        return str(found["url"]) if found else ""
