"""Functions that Local tasks may call without installing anything."""

from __future__ import annotations

import asyncio

from taskhub.plugin_api import Context, Stream


async def noop() -> None:
    """Do nothing."""


async def echo(message: str, context: Context) -> None:
    """Print a message to the task's log."""
    context.write(Stream.STDOUT, message.encode() + b"\n")


async def sleep(ms: int) -> None:
    """Do nothing for a while."""
    await asyncio.sleep(ms / 1000)


async def fail(message: str = "asked to fail") -> None:
    """Fail with a message."""
    raise RuntimeError(message)
