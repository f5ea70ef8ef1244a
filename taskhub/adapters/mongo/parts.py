"""Large payloads of commits, in parts beside the ledger's document, which has a limit of 16 MiB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from taskhub.adapters.mongo.client import Binary, Database

PART_BYTES: Final = 8 << 20


class Parts:
    """The parts of one ledger's payloads; a part counts for nothing until a commit names it."""

    def __init__(self, database: Database, ledger: str) -> None:
        self._parts = database["parts"]
        self._ledger = ledger

    async def put(self, nonce: str, payload: bytes) -> int:
        """Store a payload under the nonce of its commit; return the number of its parts."""
        starts = range(0, len(payload), PART_BYTES)
        for i, start in enumerate(starts):
            data = Binary(payload[start : start + PART_BYTES])
            await self._parts.insert([{"_id": self._id(nonce, i), "data": data}])
        return len(starts)

    async def get(self, nonce: str, count: int) -> bytes | None:
        """Return a payload; None where a part is gone, which is so only after it was applied."""
        payload = b""
        for i in range(count):
            part = await self._parts.find_one({"_id": self._id(nonce, i)})
            if part is None:
                return None
            payload += part["data"]
        return payload

    async def drop(self, counts: Mapping[str, int]) -> None:
        """Delete the payloads of these commits: nonces with the number of their parts."""
        names = [self._id(nonce, i) for nonce, count in counts.items() for i in range(count)]
        if names:
            await self._parts.delete({"_id": {"$in": names}})

    async def drop_before(self, epoch: int) -> None:
        """Delete what holders of earlier epochs put here; nonces begin with the epoch."""
        lower = {"$gte": f"{self._ledger}/", "$lt": f"{self._ledger}/{epoch:012d}"}
        await self._parts.delete({"_id": lower})

    def _id(self, nonce: str, index: int) -> str:
        return f"{self._ledger}/{nonce}/{index}"
