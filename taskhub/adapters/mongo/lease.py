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
RELEASE_S: Final = 5.0
"""What an orderly stop grants a MongoDB that does not answer."""


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
        return await self._open(int(taken["epoch"]))

    async def _open(self, epoch: int) -> bool:
        """Shut out the holder before and take up what it left; renew meanwhile."""
        self._epoch = epoch
        holding = asyncio.create_task(self.hold(), name="hold the lease while opening")
        try:
            await self._runs.open(epoch)
            await self._logs.open(epoch)
        except SupersededError:
            await self._let_go()
            return False
        except BaseException:
            await self._let_go()
            raise
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
        return True

    async def _let_go(self) -> None:
        self._epoch = 0
        await self._runs.close(at_once=True)
        await self._logs.close(at_once=True)

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
        """Whether the holder gave no sign since we looked first, and its lease has expired.

        The database's clock says whether it has. A clock that was set back, or belonged to another
        primary, must not keep a dead holder in place: after a whole term without a sign it is out.
        """
        is_over = {"$set": {"is_over": {"$lt": ["$until", "$$NOW"]}}}
        (found,) = await self._meta.aggregate([{"$match": {"_id": KEY}}, is_over])
        now_s = time.monotonic()
        sign = int(found["epoch"]), int(found["beat"])
        if sign != self._seen:
            self._seen, self._seen_s = sign, now_s
        silent_s, times = now_s - self._seen_s, self._times
        return silent_s >= times.confirm_s + (0 if found["is_over"] else times.term_s)

    async def sign_of_life(self) -> tuple[int, int]:
        """Return what changes as long as the holder is alive."""
        found = await self._meta.find_one({"_id": KEY}, ("epoch", "beat"))
        return (int(found["epoch"]), int(found["beat"])) if found else (0, 0)

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
        query = {"_id": KEY, "epoch": self._epoch, "node": self._node}
        try:
            async with asyncio.timeout(RELEASE_S):
                await asyncio.gather(self._logs.close(), self._runs.close())
                await self._meta.update_one(query, {"$set": {"node": "", "url": ""}})
        except Exception:
            log.warning("the lease is left to run out by itself", exc_info=True)
        await self._let_go()

    async def active_url(self) -> str:
        found = await self._meta.find_one({"_id": KEY}, ("url",))
        return str(found["url"]) if found else ""
