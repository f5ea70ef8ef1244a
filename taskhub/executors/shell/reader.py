"""Reads the pipes of all children through one epoll, which is all the event loop sees of them."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import select
import termios
from collections.abc import Callable
from typing import Final

from taskhub.plugin_api import Stream

UNPAID_MAX: Final = 256 * 1024
"""Bytes that are written to a context before it is asked whether there is room for more."""
CHUNK: Final = 64 * 1024
WIDE: Final = 256 * 1024
SETTLE_S: Final = 0.015
"""A child's pipes are watched after one to two of these: short commands never need it, which
saves them an eighth of what a task costs."""


class Pipe:
    """The server's end of a child's stdout or stderr."""

    __slots__ = ("fd", "left", "output", "size", "stream", "watched")

    def __init__(self, fd: int, stream: Stream, output: Output) -> None:
        self.fd = fd
        self.stream = stream
        self.output = output
        self.size = CHUNK
        self.watched = False
        self.left = 0

    def widen(self) -> None:
        """Let the kernel hold more, for a child that prints faster than we read."""
        self.size = WIDE
        with contextlib.suppress(OSError):  # over the user's quota of pipe memory
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, WIDE)


class Output:
    """Where the bytes of one child go, and whether its context was asked for room since.

    `owed` is set when `drain` must be awaited; until `paid`, nothing is read.
    """

    __slots__ = ("_reader", "_write", "ended", "error", "owed", "pipes", "unpaid", "wake")

    def __init__(
        self,
        reader: PipeReader,
        write: Callable[[Stream, bytes], None],
        wake: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._write = write
        self.wake = wake
        self.pipes: list[Pipe] = []
        self.unpaid = 0
        self.owed = False
        self.ended = False
        self.error: Exception | None = None

    def open(self) -> tuple[int, int]:
        """Make both pipes; return the child's ends."""
        out, out_child = os.pipe()
        try:
            err, err_child = os.pipe()
        except OSError:
            os.close(out)
            os.close(out_child)
            raise
        self.pipes = [Pipe(out, Stream.STDOUT, self), Pipe(err, Stream.STDERR, self)]
        self._reader.watch_soon(self)
        return out_child, err_child

    def read(self, pipe: Pipe) -> None:
        """Take what a readable pipe holds, or leave it there while the context is owed."""
        if self.owed:
            self._reader.unwatch(pipe)
            return
        try:
            data = os.read(pipe.fd, pipe.size)
        except BlockingIOError:
            return
        if not data:
            self._close(pipe)
            return
        if len(data) == CHUNK:
            pipe.widen()
        self._take(pipe.stream, data)

    def end(self) -> None:
        """Stop watching: only what is in the pipes right now is still to be read."""
        self.ended = True
        for pipe in self.pipes:
            waiting = array.array("i", [0])
            fcntl.ioctl(pipe.fd, termios.FIONREAD, waiting)
            pipe.left = waiting[0]
        self.collect()
        for pipe in self.pipes:
            self._reader.unwatch(pipe)

    def paid(self) -> None:
        """Go on reading, after `drain` has returned."""
        self.owed = False
        self.unpaid = 0
        if self.ended:
            self.collect()
            return
        for pipe in self.pipes:
            self._reader.watch(pipe)

    def collect(self) -> None:
        """Read what was left at the end, as far as the context lets us."""
        while self.pipes and not self.owed:
            pipe = self.pipes[0]
            if not pipe.left:
                self._close(pipe)
                continue
            data = os.read(pipe.fd, min(pipe.left, WIDE))
            pipe.left -= len(data)
            self._take(pipe.stream, data)

    def close(self) -> None:
        """Let go of the pipes, whatever they hold."""
        for pipe in list(self.pipes):
            self._close(pipe)

    def _take(self, stream: Stream, data: bytes) -> None:
        if self.error is not None:
            return
        try:
            self._write(stream, data)
        except Exception as exc:  # noqa: BLE001  # belongs to the attempt, which raises it
            self.error = exc
            self.wake()
            return
        self.unpaid += len(data)
        if self.unpaid >= UNPAID_MAX:
            self.owed = True
            self.wake()

    def _close(self, pipe: Pipe) -> None:
        self._reader.unwatch(pipe)
        self.pipes.remove(pipe)
        os.close(pipe.fd)


class PipeReader:
    """One epoll for all pipes; belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._pipes: dict[int, Pipe] = {}
        self._fresh: list[Output] = []
        self._older: list[Output] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._epoll.fileno(), self._on_readable)

    def watch_soon(self, output: Output) -> None:
        """Watch a new child's pipes unless it is over very soon."""
        self._fresh.append(output)
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_S, self._settle)

    def watch(self, pipe: Pipe) -> None:
        """Read the pipe whenever there is something in it."""
        if not pipe.watched:
            pipe.watched = True
            self._pipes[pipe.fd] = pipe
            os.set_blocking(pipe.fd, False)
            self._epoll.register(pipe.fd, select.EPOLLIN)

    def unwatch(self, pipe: Pipe) -> None:
        """Leave the pipe alone."""
        if pipe.watched:
            pipe.watched = False
            del self._pipes[pipe.fd]
            self._epoll.unregister(pipe.fd)

    def close(self) -> None:
        """Leave the loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _settle(self) -> None:
        for output in self._older:
            if not output.ended and not output.owed:
                for pipe in output.pipes:
                    self.watch(pipe)
        self._older, self._fresh = self._fresh, []
        self._timer = self._loop.call_later(SETTLE_S, self._settle) if self._older else None

    def _on_readable(self) -> None:
        for fd, _ in self._epoll.poll(0):
            pipe = self._pipes.get(fd)
            if pipe is not None:
                pipe.output.read(pipe)
