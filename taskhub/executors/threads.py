"""Calls functions that block, each in a thread that can be left behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from taskhub.plugin_api import JSON, Context, Level, Stream


class ThreadContext:
    """The context of a function that runs in a thread: calls wait until the loop has done them.

    They raise RuntimeError once the attempt is over, which is how an abandoned thread ends.
    """

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._over = threading.Event()
        self.run_id = context.run_id
        self.task = context.task
        self.attempt = context.attempt
        self.attempt_key = context.attempt_key
        self.deadline_ms = context.deadline_ms

    @property
    def is_over(self) -> bool:
        """Whether the attempt was cancelled: a polite function looks now and then."""
        return self._over.is_set()

    def write(self, stream: Stream, data: bytes) -> None:
        """Print; waits while the store is slow."""
        self._on_loop(lambda: self._context.write(stream, data))

    def log(
        self, message: str, level: Level = Level.INFO, fields: Mapping[str, JSON] | None = None
    ) -> None:
        """Add a line to the task's log; waits while the store is slow."""
        self._on_loop(lambda: self._context.log(message, level, fields))

    def end(self) -> None:
        """Refuse all further calls."""
        self._over.set()

    def _on_loop(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            if self._over.is_set():
                raise RuntimeError("the attempt is over")
            action()
            await self._context.drain()

        work: Coroutine[Any, Any, None] = act()
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except RuntimeError:
            work.close()  # where the loop itself is gone
            raise


async def call_in_thread(call: Callable[[ThreadContext], object], context: Context) -> object:
    """Call in a daemon thread of its own: a hung one holds up nothing else."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[object] = loop.create_future()
    facade = ThreadContext(context, loop)

    def run() -> None:
        settle: Callable[[Any], None] = outcome.set_result
        try:
            value: object = call(facade)
        except BaseException as exc:  # noqa: BLE001  # the attempt's, not the thread's
            settle, value = outcome.set_exception, _storable(exc)
        with contextlib.suppress(RuntimeError):  # the loop was closed while we worked
            loop.call_soon_threadsafe(_settle, outcome, settle, value)

    name = f"local {context.attempt_key}"
    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await outcome
    except asyncio.CancelledError:
        context.log("cancelled; its thread was left behind, a thread cannot be stopped", Level.WARN)
        raise
    finally:
        facade.end()


def describe(exc: BaseException) -> str:
    """Return what an exception says, as a line for a result."""
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _settle(outcome: asyncio.Future[object], settle: Callable[[Any], None], value: object) -> None:
    if not outcome.done():
        settle(value)


def _storable(exc: BaseException) -> BaseException:
    """Return an exception that a future takes and a loop does not mistake for its own."""
    if isinstance(exc, StopIteration | asyncio.CancelledError | SystemExit | KeyboardInterrupt):
        return RuntimeError(describe(exc))
    return exc
