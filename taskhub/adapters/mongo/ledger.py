"""Writes in order, by one server only: the part of MongoDB's work that transactions would do.

A standalone MongoDB has no transactions, and an insert cannot ask who holds the lease. So what is
to be written goes, as bytes, into one small document first, with an update that matches only
while that document carries the writer's epoch: that update is the commit, atomic, durable and
fenced. What it says is then applied to the collections, by keys and guarded by the number of the
commit, so that applying it twice, or late, changes nothing. The next holder of the lease raises
the epoch, applies what is left in the document, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from taskhub.adapters.mongo.client import READ_S, Binary, Database
from taskhub.adapters.mongo.parts import Parts
from taskhub.errors import ConfigError, SupersededError, UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")

INLINE_BYTES: Final = 2 << 20
"""A larger payload is put aside in parts, which count for nothing until the commit names them."""
PENDING_BYTES: Final = 8 << 20
"""What may wait to be applied in the document, which MongoDB limits to 16 MiB."""
MEMORY_BYTES: Final = 32 << 20
"""What may wait to be applied in all: beyond it, whoever commits waits."""
BEHIND_S: Final = 1.0
"""A commit waits while what was committed this long ago is not applied: readers wait for it."""
RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
LINGER_S: Final = 0.02
"""How long commits may wait to be applied together while nobody wants to read: what starts and
ends within it is one update instead of two."""
SUPERSEDED: Final = "another server has taken over"


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One commit: its number once known, what it says, and the bytes of that."""

    item: T
    payload: bytes
    key: object = None
    number: int = 0
    nonce: str = ""
    parts: int = 0
    accepted_s: float = 0.0

    @property
    def inline_bytes(self) -> int:
        """How much of the document it takes."""
        return 0 if self.parts else len(self.payload)


class Ledger(Generic[T]):
    """One document of commits that are not applied yet, and the loop that applies them.

    `apply` is given entries in order, and called again with the same ones where it raised
    `UnavailableError`; `replays` is True for those that another server committed, which may be
    applied already, in part or whole.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        apply: Callable[[Sequence[Entry[T]], bool], Awaitable[None]],
        decode: Callable[[bytes], T],
        linger_s: float = LINGER_S,
    ) -> None:
        self._documents = database["ledgers"]
        self._parts = Parts(database, name)
        self._name = name
        self._apply = apply
        self._decode = decode
        self._linger_s = linger_s
        self._epoch = 0
        self._last = 0
        self._applied = 0
        self._pending: deque[Entry[T]] = deque()
        self._kept: list[Entry[T]] = []
        self._unsure: list[Entry[T]] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._progress = asyncio.Condition()
        self._applier: asyncio.Task[None] | None = None
        self._broken: Exception | None = None

    async def open(self, epoch: int) -> None:
        """Shut out every earlier holder, apply what it left, and take commits from now on."""
        await self.close(at_once=True)
        self._pending.clear()
        self._unsure.clear()
        query = {"_id": self._name, "epoch": {"$lt": epoch}}
        await self._documents.insert([{"_id": self._name, "epoch": 0, "last": 0, "nonce": ""}])
        await self._documents.update_one(query, {"$set": {"epoch": epoch}})
        document = await self._documents.find_one({"_id": self._name})
        if document is None or document["epoch"] != epoch:
            raise SupersededError(SUPERSEDED)
        left = [await self._read(int(n), raw) for n, raw in document.get("waiting", {}).items()]
        left.sort(key=lambda entry: entry.number)
        for entry in left:
            await self._replay(entry)
        self._epoch, self._last, self._applied = epoch, document["last"], document["last"]
        self._kept = left
        await self.trim()  # refused where another server is in already: its parts must stay
        await self._parts.drop_before(epoch)
        self._applier = asyncio.create_task(self._run(), name=f"mongo ledger {self._name}")

    async def _replay(self, entry: Entry[T]) -> None:
        try:
            await self._apply([entry], True)  # noqa: FBT003  # a callback
        except (UnavailableError, SupersededError):
            raise
        except Exception as error:
            message = f"commit {entry.number} in MongoDB's ledger {self._name!r} cannot be applied"
            raise ConfigError(f"{message}: {error!r:.300}; this is a bug") from error

    async def close(self, *, at_once: bool = False) -> None:
        """Apply what is left if MongoDB is there; `at_once` leaves it to the next server."""
        if self._applier is None:
            return
        try:
            if self._broken is None and not at_once:
                await self.caught_up()
                await self.trim()
        except (UnavailableError, SupersededError) as error:
            log.warning("left for the next server", extra={"ledger": self._name, "why": str(error)})
        finally:
            self._epoch = 0
            self._applier.cancel()
            await asyncio.gather(self._applier, return_exceptions=True)
            self._applier = None

    async def commit(self, item: T, payload: bytes, key: object) -> None:
        """Store an item, durably; what is read after `caught_up` has it. One call at a time.

        Raises `UnavailableError` where it is unknown whether it is stored: call again with the
        same `key`. Raises `SupersededError`. Not to be cancelled: see `to_its_end`.
        """
        self._raise_if_broken()
        entry = next((e for e in self._unsure if e.key is key), None)
        if entry is None:
            nonce = f"{self._epoch:012d}-{secrets.token_hex(8)}"
            entry = Entry(item, payload, key, nonce=nonce)
            self._unsure.append(entry)
        await self._put_aside(entry)
        await self._room()
        while not await self._advance(entry):
            pass

    @property
    def is_idle(self) -> bool:
        """Whether all that was committed here is applied."""
        return not self._pending

    async def caught_up(self) -> None:
        """Return once all that was committed here before the call can be read."""
        wanted = self._last
        if self._applied >= wanted and not self._broken:
            return
        self._hurry.set()
        try:
            async with asyncio.timeout(READ_S), self._progress:
                await self._progress.wait_for(lambda: self._applied >= wanted or self._broken)
        except TimeoutError:
            message = "MongoDB does not write what is to be read"
            raise UnavailableError(message) from None
        self._raise_if_broken()

    async def trim(self) -> None:
        """Take what is applied out of the document, so that it is never applied again."""
        if self._kept:
            kept, change = self._kept, self._forget()
            query = {"_id": self._name, "epoch": self._epoch}
            if not await self._documents.update_one(query, change):
                raise SupersededError(SUPERSEDED)
            self._kept = [entry for entry in self._kept if entry not in kept]

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    async def _put_aside(self, entry: Entry[T]) -> None:
        """Store the parts of a large payload; nobody reads them before the commit."""
        if len(entry.payload) <= INLINE_BYTES or entry.parts:
            return
        entry.parts = await self._parts.put(entry.nonce, entry.payload)

    async def _room(self) -> None:
        if self._has_room():
            return
        self._hurry.set()
        async with self._progress:
            await self._progress.wait_for(lambda: self._broken or self._has_room())
        self._raise_if_broken()

    def _has_room(self) -> bool:
        if self._pending and time.monotonic() - self._pending[0].accepted_s > BEHIND_S:
            return False
        inline = sum(entry.inline_bytes for entry in self._pending)
        return inline <= PENDING_BYTES and sum(map(_size, self._pending)) <= MEMORY_BYTES

    async def _advance(self, entry: Entry[T]) -> bool:
        """Try to make an entry the next one; False if one of an unknown fate was stored instead."""
        number = self._last + 1
        query = {
            "_id": self._name,
            "epoch": self._epoch,
            "$or": [{"last": self._last}, {"last": number, "nonce": entry.nonce}],
        }
        kept, change = tuple(self._kept), self._forget()
        put = entry.parts or Binary(entry.payload)
        change["$set"] = {
            "last": number,
            "nonce": entry.nonce,
            f"waiting.{number}": [entry.nonce, put],
        }
        if await self._documents.update_one(query, change):
            self._accept(entry, number, kept)
            return True
        await self._find_out(number)
        return False

    async def _find_out(self, number: int) -> None:
        """Accept the entry that was stored as `number` although its answer never came."""
        document = await self._documents.find_one({"_id": self._name}, ("epoch", "last", "nonce"))
        if document is None or document["epoch"] != self._epoch or not self._epoch:
            raise SupersededError(SUPERSEDED)
        stored = next((e for e in self._unsure if e.nonce == document["nonce"]), None)
        if stored is None or document["last"] != number:
            raise SupersededError(f"{SUPERSEDED}: commit {document['last']} is not ours")
        self._accept(stored, number, ())

    def _accept(self, entry: Entry[T], number: int, trimmed: Sequence[Entry[T]]) -> None:
        """Note that an entry is stored; whatever else was tried under its number never will be."""
        entry.number = self._last = number
        entry.accepted_s = time.monotonic()
        self._unsure.clear()
        self._kept = [each for each in self._kept if each not in trimmed]
        self._pending.append(entry)
        self._wake.set()

    def _forget(self) -> dict[str, Any]:
        return {"$unset": {f"waiting.{e.number}": "" for e in self._kept}} if self._kept else {}

    async def _run(self) -> None:
        """Apply until cancelled."""
        tries = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._linger()
            while entries := tuple(self._pending):
                try:
                    # another try may hold more entries, and meet what the first has done
                    await self._apply(entries, tries > 0)
                    await self._parts.drop({entry.nonce: entry.parts for entry in entries})
                except UnavailableError as error:
                    pause = RETRY_S[min(tries, len(RETRY_S) - 1)]
                    tries += 1
                    extra = {"ledger": self._name, "tries": tries, "error": str(error)}
                    log.warning("MongoDB does not take what is committed, it waits", extra=extra)
                    await asyncio.sleep(pause)
                except Exception as error:
                    log.exception("what is committed cannot be applied")
                    self._broken = error
                    await self._tell()
                    return
                else:
                    tries = 0
                    await self._note_applied(entries)

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                await self._hurry.wait()
        self._hurry.clear()

    async def _note_applied(self, entries: Sequence[Entry[T]]) -> None:
        for entry in entries:
            self._pending.popleft()
            self._kept.append(entry)
        self._applied = entries[-1].number
        await self._tell()

    async def _tell(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    async def _read(self, number: int, raw: Sequence[Any]) -> Entry[T]:
        nonce, put = raw
        payload = await self._parts.get(nonce, put) if isinstance(put, int) else bytes(put)
        return Entry(self._decode(payload or b""), b"", number=number, nonce=nonce)


def _size(entry: Entry[Any]) -> int:
    return len(entry.payload)


async def to_its_end(work: Coroutine[Any, Any, T], name: str) -> T:
    """Return what `work` returns; it runs to its end even if the caller is cancelled."""
    task = asyncio.create_task(work, name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_look)
        raise


def _look(task: asyncio.Task[Any]) -> None:
    """Take note of an error that nobody waits for; the caller was told nothing either."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a write whose caller left has failed", extra={"error": str(error)})
