"""What a socket has yet to send: bounded by its users, counted exactly, written in large blocks."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tornado.iostream import IOStream, StreamClosedError

from taskhub.web.frames import BLOCK_BYTES, Block

CHECKS: Final = 5  # how often a stall is looked for in the time that makes one


class _Entry(NamedTuple):
    block: Block
    firm: bool


class Load:
    """Messages and bytes that are pending."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0


class Outbox:
    """Queues blocks of frames and gives them to a stream, joined, one write at a time.

    Only whole frames are given to the stream, for Tornado puts its pings and pongs between them.
    What is added in one turn of the loop leaves together in the next: a write costs more than
    joining 60 KiB. What the stream has not yet given to the kernel counts as pending.
    """

    def __init__(
        self,
        stream: IOStream,
        *,
        stall_s: float,
        on_room: Callable[[], None],
        on_stall: Callable[[], None],
    ) -> None:
        self.all = Load()
        self.firm = Load()
        self._stream = stream
        self._stall_s = stall_s
        self._on_room = on_room
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Entry] = deque()
        self._writing: Sequence[_Entry] = ()
        self._written = 0
        self._soon: asyncio.Handle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    def add(self, blocks: Sequence[Block], *, firm: bool) -> None:
        """Queue blocks; dropped if the outbox is closed."""
        if self._closed:
            return
        for block in blocks:
            entry = _Entry(block, firm)
            self._queue.append(entry)
            self._count(entry, 1)
        self._flush_soon()

    def flush(self) -> None:
        """Write until the stream takes no more; the rest follows by itself."""
        while self._write():
            pass

    def _flush_soon(self) -> None:
        if self._soon is None and self._queue and not self._writing:
            self._soon = self._loop.call_soon(self._flush_some)

    def _flush_some(self) -> None:
        """Write one block a turn, for there may be 1,000 outboxes with a megabyte each."""
        self._soon = None
        if self._write():
            self._flush_soon()
            self._on_room()

    def _write(self) -> bool:
        """Give a block to the stream; say whether it went on to the kernel at once."""
        if not self._queue or self._writing:
            return False
        self._writing = self._take()
        try:
            future = self._stream.write(b"".join([entry.block.data for entry in self._writing]))
        except StreamClosedError:
            self.close()
            return False
        if future.done():
            self._settle()
            return True
        future.add_done_callback(self._on_written)
        self._watch_for_stall()
        return False

    def close(self) -> None:
        """Drop what the stream does not have yet, and whatever is added later."""
        self._closed = True
        self._queue.clear()
        for handle in (self._soon, self._watch):
            if handle is not None:
                handle.cancel()

    def _take(self) -> Sequence[_Entry]:
        """Take as many entries as make a block, at least one."""
        taken = [self._queue.popleft()]
        size = len(taken[0].block.data)
        while self._queue and size + len(self._queue[0].block.data) <= BLOCK_BYTES:
            taken.append(self._queue.popleft())
            size += len(taken[-1].block.data)
        return taken

    def _on_written(self, future: asyncio.Future[None]) -> None:
        if self._closed or future.cancelled() or future.exception() is not None:
            self.close()
            return
        self._settle()
        self._flush_some()
        self._on_room()

    def _settle(self) -> None:
        for entry in self._writing:
            self._count(entry, -1)
            self._written += len(entry.block.data)
        self._writing = ()

    def _count(self, entry: _Entry, sign: int) -> None:
        for load in (self.all, self.firm) if entry.firm else (self.all,):
            load.messages += sign * entry.block.messages
            load.bytes += sign * len(entry.block.data)

    def _watch_for_stall(self) -> None:
        if self._watch is None:
            self._check(self._progress(), 0)

    def _check(self, before: tuple[int, int], silent: int) -> None:
        """Look again and again while something is pending; `silent` checks saw no progress."""
        self._watch = None
        progress = self._progress()
        silent = silent + 1 if progress == before else 0
        if not self._writing or self._closed:
            return
        if silent > CHECKS:
            self._on_stall()
        else:
            delay = self._stall_s / CHECKS
            self._watch = self._loop.call_later(delay, self._check, progress, silent)

    def _progress(self) -> tuple[int, int]:
        """Return numbers that change when the peer's host takes something.

        A block may take a slow peer longer than a stall, so the kernel is asked how much of what it
        has was not acknowledged.
        """
        try:
            unacknowledged = fcntl.ioctl(self._stream.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        except (OSError, TypeError, ValueError):  # closed; there will be no other change
            return self._written, 0
        return self._written, struct.unpack("i", unacknowledged)[0]
