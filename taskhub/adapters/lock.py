"""The lock of a data directory: one server at a time uses it, whatever its store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from taskhub.errors import ConfigError

FILE: Final = "taskhub.lock"
SQLITE: Final = "sqlite:"


@contextmanager
def locked(directory: Path, store: str = SQLITE) -> Iterator[None]:
    """Keep other servers out of a directory, made if it is missing; raise `ConfigError`.

    `store` is where the server that uses it keeps its runs and accounts, without a password.
    """
    lock = _open_lock(directory)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _said(os.pread(lock, 2000, 0))[0] or "unknown"
            message = f"{directory} is in use by another TaskHub server (pid {pid})"
            raise ConfigError(f"{message}; stop it first") from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n{store}\n".encode())
        yield
    finally:
        os.close(lock)


def store_in_use(directory: Path) -> str:
    """Return the store of the server that uses a directory now; empty if none does.

    It does not try the lock: that would keep a server from starting at this very moment.
    """
    try:
        pid, store = _said((directory / FILE).read_bytes())
        number = int(pid)
    except (OSError, ValueError):
        return ""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return store or SQLITE  # alive, and another user's
    return store or SQLITE


def _said(content: bytes) -> tuple[str, str]:
    """Return the process and the store that a lock's holder wrote into it."""
    pid, store, *_ = [*content.decode().splitlines(), "", ""]
    return pid, store


def _open_lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(directory / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from None
