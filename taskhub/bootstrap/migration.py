"""Two stores, opened side by side to copy the one into the other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from taskhub.adapters.sqlite import open_sqlite
from taskhub.adapters.systemclock import SystemClock
from taskhub.config import Config
from taskhub.errors import ConfigError
from taskhub.ports.lease import Lease
from taskhub.ports.stores import Stores
from taskhub.services.migration import KindReport, Listener, migrate

STATE_FILE: Final = "taskhub.db"
KINDS: Final = (
    'a store is "sqlite:", the data directory, "sqlite:/folder", or "mongodb://host/name"'
)
FREE_WITHIN_S: Final = 25
"""For how long a server that crashed may still seem to use a database."""
MONGO: Final = frozenset({"mongodb", "mongodb+srv"})


async def migrate_between(
    source_url: str, target_url: str, config: Config, listener: Listener
) -> tuple[KindReport, ...]:
    """Copy everything from one store to another, compare the two, and return the report.

    Raises `ConfigError` for a URL that names no store, a source that is not there, two URLs of one
    store, and a store that a server uses; else as `taskhub.services.migration.migrate`.
    """
    source, target = place(source_url, config), place(target_url, config)
    if source == target:
        raise ConfigError(f"--from and --to are the same store: {source}")
    async with (
        open_store(source_url, config, must_exist=True) as ours,
        open_store(target_url, config, must_exist=False) as theirs,
    ):
        return await migrate(ours, theirs, SystemClock(), listener)


def place(url: str, config: Config) -> str:
    """Return what is the same for all URLs of one store; raise `ConfigError` if it names none."""
    scheme, _, path = url.partition(":")
    if scheme in MONGO:
        from taskhub.adapters.mongo import address  # noqa: PLC0415  # see bootstrap/stores.py

        return address(url)
    if scheme == "memory":
        raise ConfigError('"memory:" ends with its process: there is nothing to copy')
    if scheme != "sqlite" or (path and not Path(path).is_absolute()):
        raise ConfigError(f"{scheme}: no store that can be copied; {KINDS}")
    return str(Path(path or config.server.data_dir).resolve())


@asynccontextmanager
async def open_store(url: str, config: Config, *, must_exist: bool) -> AsyncIterator[Stores]:
    """Open a store for a program that needs it alone; make it if it may be new.

    Raises `ConfigError` where that cannot be, or a server uses it.
    """
    if url.partition(":")[0] in MONGO:
        async with _open_mongo(url, must_exist=must_exist) as stores:
            yield stores
        return
    directory = Path(place(url, config))
    if must_exist and not (directory / STATE_FILE).is_file():
        raise ConfigError(f"there is no store in {directory}: it has no {STATE_FILE}")
    async with open_sqlite(
        directory, sync=config.store.sync, min_free_bytes=config.limits.free_disk_bytes
    ) as embedded:
        yield embedded


@asynccontextmanager
async def _open_mongo(url: str, *, must_exist: bool) -> AsyncIterator[Stores]:
    """Open a database and be its active server meanwhile, so that no other one writes."""
    from taskhub.adapters.mongo import address, open_mongo  # noqa: PLC0415  # as above

    node = f"migrate-{secrets.token_hex(8)}"
    async with open_mongo(url, node=node, must_exist=must_exist) as stores:
        sign = await stores.lease.sign_of_life()
        left_s = FREE_WITHIN_S
        while not await stores.lease.acquire(""):
            if await stores.lease.sign_of_life() != sign or left_s <= 0:
                server = await stores.lease.active_url() or "another migration"
                raise ConfigError(f"{address(url)} is in use by {server}; stop it first")
            await asyncio.sleep(1)
            left_s -= 1
        async with _holding(stores.lease):
            yield stores


@asynccontextmanager
async def _holding(lease: Lease) -> AsyncIterator[None]:
    """Keep the lease while the block runs; end the block when it is lost."""
    holding = asyncio.create_task(lease.hold(), name="hold the lease")
    task = asyncio.current_task()

    def on_end(_: asyncio.Task[None]) -> None:
        if not holding.cancelled() and task is not None:
            task.cancel()

    holding.add_done_callback(on_end)
    try:
        yield
    except asyncio.CancelledError:
        if task is not None and holding.done() and (error := holding.exception()):
            task.uncancel()
            raise error from None
        raise
    finally:
        holding.cancel()
        await asyncio.wait([holding])
