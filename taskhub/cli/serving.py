"""The server itself, until a signal stops it.

stdout carries one line, the URL, once it accepts connections; everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from taskhub import __version__
from taskhub.config import Config
from taskhub.errors import ConfigError
from taskhub.logconfig import configure

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long the event loop may keep the store's threads from running; Python's default is 5 ms."""
GC_THRESHOLDS = (50_000, 20, 50)
"""Rarer than Python's: a full collection beside a DAG of 10,000 tasks stops the loop for 60 ms."""


class Served(Protocol):
    """A server that accepts connections."""

    @property
    def url(self) -> str:
        """Where."""
        ...

    async def wait(self, stop: asyncio.Event) -> bool:
        """Return True once `stop` is set, or False if the server cannot go on."""
        ...


Serve = Callable[[Config], AbstractAsyncContextManager[Served]]


def act(_: argparse.Namespace, config: Config) -> int:
    """Run the server until it is told to stop; return the exit code."""
    configure(config.log.level, config.log.format)
    from taskhub.bootstrap import serve  # noqa: PLC0415  # --version need not wait for Tornado

    return asyncio.run(run(config, serve))


async def run(config: Config, serve: Serve) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code, raise `ConfigError` on a bad start."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    stop = asyncio.Event()
    _stop_on_signals(stop)
    async with AsyncExitStack() as stack:
        try:
            server = await _start(stack, serve(config), stop)
        except OSError as error:
            raise ConfigError(_reason(config, error)) from error
        if server is None:
            return 0
        print(f"TaskHub {__version__} listening on {server.url}", flush=True)
        if await server.wait(stop):
            return 0
        log.error("the server cannot go on, so it stops; the reason was logged before")
        return 1


async def _start(
    stack: AsyncExitStack, serving: AbstractAsyncContextManager[Served], stop: asyncio.Event
) -> Served | None:
    """Start a server, which may take a while where the store is away; None if told to stop."""
    starting = asyncio.current_task()
    told = asyncio.create_task(stop.wait(), name="wait for stop")

    def give_up(_: object) -> None:
        if starting is not None:
            starting.cancel()

    told.add_done_callback(give_up)
    try:
        return await stack.enter_async_context(serving)
    except asyncio.CancelledError:
        if starting is None or not stop.is_set():
            raise
        starting.uncancel()
        return None
    finally:
        told.remove_done_callback(give_up)
        told.cancel()


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` on the first SIGTERM or SIGINT; leave at once on the second."""

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("leaving at once, as after a crash", extra={"signal": number.name})
            os._exit(128 + number)
        log.info("stopping; a second signal leaves at once", extra={"signal": number.name})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def _reason(config: Config, error: OSError) -> str:
    """Say in one line what the machine refused."""
    server = config.server
    if error.errno == errno.EADDRINUSE:
        return f"port {server.port} on {server.host} is taken; choose another with --port"
    what = error.filename or f"{server.host}:{server.port}"
    return f"cannot start: {what}: {error.strerror or error}"
