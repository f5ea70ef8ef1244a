"""Several servers on one store, in one process: who is active changes when a test says so."""

from __future__ import annotations

import asyncio

from taskhub.adapters.memory import MemoryStores
from taskhub.errors import SupersededError, UnavailableError


class Leases:
    """What the leases of several servers share."""

    def __init__(self):
        self.holder = None
        self.lapsed = None
        self.stores = MemoryStores()

    def lapse(self):
        """Let the lease run out; its holder hears of it when another server has it."""
        self.holder, self.lapsed = None, self.holder

    def stores_of(self, lease):
        """Return the shared stores as the server with that lease sees them."""
        return MemoryStores(
            runs=Fenced(self.stores.runs, lease, "commit"),
            logs=Fenced(self.stores.logs, lease, "append"),
            accounts=self.stores.accounts,
            lease=lease,
        )


class FakeLease:
    """A lease that its holder keeps until another one `seize`s it."""

    def __init__(self, leases=None):
        self.leases = leases or Leases()
        self.url = ""
        self.is_away = False
        self.acquired = 0
        self.released = 0
        self.noticed = asyncio.Event()

    @property
    def is_ours(self):
        return self.leases.holder is self

    def seize(self):
        """Become the holder, as if the one before had not been heard of for too long."""
        self.leases.holder = self

    async def acquire(self, url):
        self.acquired += 1
        if self.is_away:
            raise UnavailableError("no answer")
        self.url = url
        if self.leases.holder is None:
            self.leases.holder = self
            if self.leases.lapsed not in {None, self}:
                self.leases.lapsed.noticed.set()
        return self.is_ours

    async def hold(self):
        await self.noticed.wait()
        self.check()

    def check(self):
        if not self.is_ours:
            raise SupersededError("another server has the lease")

    async def release(self):
        self.released += 1
        if self.is_ours:
            self.leases.holder = None

    async def active_url(self):
        return self.leases.holder.url if self.leases.holder else ""


class Fenced:
    """A store whose writing method refuses a server that has lost its lease."""

    def __init__(self, inner, lease, writes):
        self._inner = inner
        self._lease = lease
        self._writes = writes
        self.refused = 0

    def __getattr__(self, name):
        if name == self._writes:
            return self._write
        return getattr(self._inner, name)

    async def _write(self, batch):
        try:
            self._lease.check()
        except SupersededError:
            self.refused += 1
            raise
        await getattr(self._inner, self._writes)(batch)
