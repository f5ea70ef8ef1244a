"""The lock of a data directory: one server at a time uses it, whatever its store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskhub.errors import ConfigError


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other servers out of a directory, made if it is missing; raise `ConfigError`."""
    lock = _open_lock(directory)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).decode().strip() or "unknown"
            message = f"{directory} is in use by another TaskHub server (pid {pid})"
            raise ConfigError(f"{message}; stop it first") from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)


def _open_lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(directory / "taskhub.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from None
