"""The stores that the configuration names, and waiting for them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

from taskhub.adapters.lock import locked
from taskhub.adapters.memory import MemoryStores
from taskhub.adapters.sqlite import open_sqlite
from taskhub.bootstrap.machine import node_id
from taskhub.config import Config
from taskhub.domain.redaction import without_password
from taskhub.errors import ConfigError, UnavailableError
from taskhub.ports.clock import Clock
from taskhub.ports.lease import Lease
from taskhub.ports.stores import Stores

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_S: Final = 2.0


class ServerStores(Stores, Protocol):
    """What a server needs besides: to be the only one that writes, and a key."""

    @property
    def lease(self) -> Lease:
        """Which of several servers is active."""
        ...

    async def signing_key(self, local: Callable[[], bytes]) -> bytes:
        """Return the key that tokens are signed with; `local` gives this data directory's."""
        ...


@asynccontextmanager
async def open_stores(config: Config, directory: Path) -> AsyncIterator[ServerStores]:
    """Open the stores that the configuration names, and lock the data directory.

    Raises `UnavailableError` if they may be there later, else `ConfigError`.
    """
    if config.store.url == "memory:":
        with locked(directory, config.store.url):
            yield MemoryStores()
        return
    if config.store.url.startswith("mongodb"):
        # imported here: the driver takes as long to load as all the rest together
        from taskhub.adapters.mongo import open_mongo  # noqa: PLC0415

        with locked(directory, without_password(config.store.url)):
            async with open_mongo(config.store.url, node=node_id(directory)) as stores:
                yield stores
        return
    async with open_sqlite(
        directory, sync=config.store.sync, min_free_bytes=config.limits.free_disk_bytes
    ) as embedded:
        yield embedded


class Patience:
    """Repeats what the start asks of a store while that is away, for so long and no longer."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._where = without_password(config.store.url)
        self._limit_ms = config.store.start_timeout_s * 1000
        self._clock = clock

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns; raise `ConfigError` if the store stays away."""
        start_ms = self._clock.monotonic_ms()
        while True:
            try:
                return await call()
            except UnavailableError as error:
                left_ms = start_ms + self._limit_ms - self._clock.monotonic_ms()
                if left_ms <= 0:
                    message = f"the store at {self._where} cannot be used: {error}"
                    raise ConfigError(message) from error
                extra = {
                    "store": self._where,
                    "reason": str(error),
                    "gives_up_in_s": left_ms // 1000,
                }
                log.warning("waiting for the store", extra=extra)
                await self._clock.sleep(min(RETRY_S, left_ms / 1000))
