"""Passwords: scrypt in a few threads of its own, so that no flood of logins stops the loop."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from taskhub.errors import TooManyError

THREADS: Final = 2
LONGEST: Final = 1024


class Passwords:
    """Hashes and compares. n = 2^15, r = 8, p = 1: 32 MiB and some 60 ms each (RFC 7914)."""

    def __init__(self, *, log_n: int = 15, waiting: int = 16) -> None:
        self._log_n = log_n
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="taskhub-scrypt")
        self._turns = asyncio.Semaphore(THREADS)
        self._room = THREADS + waiting
        self._nobody = f"scrypt${log_n}$8$1${_text(bytes(16))}${_text(bytes(32))}"

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one of the threads; raise `TooManyError` where too many wait already."""
        if not self._room:
            raise TooManyError("too many logins at once")
        self._room -= 1
        try:
            async with self._turns:
                yield
        finally:
            self._room += 1

    async def hash(self, password: str) -> str:
        """Return `scrypt$<log2 n>$<r>$<p>$<salt>$<key>` with a new salt."""
        salt = secrets.token_bytes(16)
        key = await self._run(password, salt, self._log_n, 8, 1)
        return f"scrypt${self._log_n}$8$1${_text(salt)}${_text(key)}"

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Compare with what `hash` returned; without it, take as long and say no."""
        _, log_n, r, p, salt, key = (stored or self._nobody).split("$")
        found = await self._run(password, _bytes(salt), int(log_n), int(r), int(p))
        return hmac.compare_digest(found, _bytes(key)) and stored is not None

    async def _run(self, password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _scrypt, password, salt, log_n, r, p)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    n = 1 << log_n
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, dklen=32, maxmem=132 * n * r * p + (1 << 20)
    )


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: str) -> bytes:
    return base64.b64decode(value)
