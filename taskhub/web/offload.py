"""Work that is too long for the event loop, and the JSON it mostly is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

import msgspec

T = TypeVar("T")
P = ParamSpec("P")

encode: Final = msgspec.json.encode


class Offload:
    """Two threads for parsing, checking and encoding what is large.

    They share the interpreter with the loop, which gets its turn every 5 ms; more threads would
    only make it wait longer.
    """

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="taskhub-web")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `work(*args, **kwargs)`, done in one of the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """End the threads once they are idle."""
        self._pool.shutdown()


def encoded(view: Callable[[T], object], items: Iterable[T]) -> list[msgspec.Raw]:
    """Return the view of each item as JSON; one at a time, so that the loop gets a turn."""
    return [msgspec.Raw(encode(view(item))) for item in items]
