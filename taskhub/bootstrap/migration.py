"""Two stores, opened side by side to copy the one into the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from taskhub.adapters.sqlite import open_sqlite
from taskhub.adapters.systemclock import SystemClock
from taskhub.config import Config
from taskhub.errors import ConfigError
from taskhub.services.migration import KindReport, Listener, Stores, migrate

STATE_FILE: Final = "taskhub.db"
KINDS: Final = 'a store is "sqlite:", the data directory, or "sqlite:/folder", another one'


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
        open_store(source, config, must_exist=True) as ours,
        open_store(target, config, must_exist=False) as theirs,
    ):
        return await migrate(ours, theirs, SystemClock(), listener)


def place(url: str, config: Config) -> Path:
    """Return what is the same for all URLs of one store; raise `ConfigError` if it names none."""
    scheme, _, path = url.partition(":")
    if scheme == "memory":
        raise ConfigError('"memory:" ends with its process: there is nothing to copy')
    if scheme != "sqlite" or (path and not Path(path).is_absolute()):
        raise ConfigError(f"{scheme}: no store that can be copied; {KINDS}")
    return Path(path or config.server.data_dir).resolve()


@asynccontextmanager
async def open_store(directory: Path, config: Config, *, must_exist: bool) -> AsyncIterator[Stores]:
    """Open a store for a program that needs it alone; make it if it may be new.

    Raises `ConfigError` where that cannot be, or a server uses it.
    """
    if must_exist and not (directory / STATE_FILE).is_file():
        raise ConfigError(f"there is no store in {directory}: it has no {STATE_FILE}")
    async with open_sqlite(
        directory, sync=config.store.sync, min_free_bytes=config.limits.free_disk_bytes
    ) as stores:
        yield stores
