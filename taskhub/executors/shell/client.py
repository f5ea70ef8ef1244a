"""The server's side of the spawner: one process started here, one socket, many children."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import marshal
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskhub.executors.shell.child import Child
from taskhub.executors.shell.reader import PipeReader
from taskhub.executors.shell.spawner import protocol
from taskhub.plugin_api import Stream

log = logging.getLogger(__name__)

PROGRAM: Final = Path(protocol.__file__).parent
START_S: Final = 10.0
CLOSE_S: Final = 5.0
BATCH: Final = 100
"""Requests in one frame: the kernel passes at most 253 descriptors with one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start, and in which surroundings."""

    shell: bytes
    text: bytes
    cwd: bytes
    env: Mapping[bytes, bytes]
    key: bytes
    captured: bool


class SpawnerClient:
    """A running spawner; make one with `start`. Once it is not `alive` it stays so."""

    def __init__(
        self, process: subprocess.Popen[bytes], sock: socket.socket, reader: PipeReader
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.reader = reader
        self.alive = True
        self.pid = process.pid
        self._process = process
        self._socket = sock
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._dead: asyncio.Future[None] = self.loop.create_future()
        self._children: dict[int, Child] = {}
        self._token = 0
        self._requests: list[tuple[object, ...]] = []
        self._descriptors: list[int] = []
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._answers = b""
        self._pidfd = os.pidfd_open(process.pid)
        self.loop.add_reader(self._pidfd, self._on_death)
        self.loop.add_reader(sock.fileno(), self._on_answers)

    @classmethod
    def start(
        cls, env: Mapping[str, str], reader: PipeReader, lock: int | None = None
    ) -> SpawnerClient:
        """Start a spawner with this environment; it is usable at once, `ready` a little later.

        It keeps the descriptor `lock` open until it ends.
        """
        ours, theirs = socket.socketpair()
        kept = (theirs.fileno(),) if lock is None else (theirs.fileno(), lock)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM), *map(str, kept)],
                env=dict(env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=kept,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)  # noqa: FBT003  # the standard library's own
        return cls(process, ours, reader)

    async def ready(self) -> None:
        """Wait until it answers; raise OSError if it does not."""
        if self._ready.done() and self.alive:
            return
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), START_S)
        except TimeoutError:
            raise ChildProcessError("the process supervisor does not answer") from None
        if not self.alive:
            raise ChildProcessError("the process supervisor does not start")

    def spawn(self, command: Command, write: Callable[[Stream, bytes], None]) -> Child:
        """Start a process; its output goes to `write`. Raises OSError when out of descriptors."""
        self._token += 1
        child = Child(self, self._token, write)
        if command.captured:
            self._descriptors += child.output.open()
        self._children[child.token] = child
        self.send(
            (
                protocol.SPAWN,
                child.token,
                command.shell,
                command.text,
                command.cwd,
                command.env,
                command.key,
                command.captured,
            )
        )
        return child

    def sweep(self, key: bytes, grace_s: float) -> Child:
        """End the processes of an attempt whose own spawner died; over when none is left."""
        self._token += 1
        child = Child(self, self._token, _no_output)
        self._children[child.token] = child
        self.send((protocol.SWEEP, child.token, key, grace_s))
        return child

    def send(self, request: tuple[object, ...]) -> None:
        """Send a request together with the others of this turn of the loop."""
        if not self._requests:
            self.loop.call_soon(self._seal)
        self._requests.append(request)
        if len(self._requests) >= BATCH:
            self._seal()

    def forget(self, token: int) -> None:
        """Expect no answers for this child."""
        self._children.pop(token, None)

    async def close(self) -> None:
        """Let the spawner go; returns when its process is gone."""
        if self.alive:
            self._socket.shutdown(socket.SHUT_WR)
            try:
                await asyncio.wait_for(asyncio.shield(self._dead), CLOSE_S)
            except TimeoutError:
                log.warning("spawner does not end", extra={"pid": self.pid})
                self._process.kill()
                await self._dead

    def _seal(self) -> None:
        if not self._requests:
            return
        payload = marshal.dumps(self._requests)
        self._outbox.append((protocol.FRAME.pack(len(payload)) + payload, self._descriptors))
        self._requests, self._descriptors = [], []
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outbox:
            data, descriptors = self._outbox[0]
            try:
                sent = self._send(data, descriptors)
            except BlockingIOError:
                if self.alive:
                    self.loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                sent = len(data)  # it is dead; `_on_death` tells the children
            for fd in descriptors:
                os.close(fd)
            if sent == len(data):
                self._outbox.popleft()
            else:
                self._outbox[0] = (data[sent:], [])
        if self.alive:
            self.loop.remove_writer(self._socket.fileno())

    def _send(self, data: bytes, descriptors: list[int]) -> int:
        if not descriptors:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        return self._socket.sendmsg([data], [rights], socket.MSG_NOSIGNAL)

    def _on_answers(self) -> bool:
        try:
            received = self._socket.recv(1 << 16)
        except OSError:
            return False
        if not received:
            self.loop.remove_reader(self._socket.fileno())  # the pidfd says the rest
            return False
        data = self._answers + received if self._answers else received
        whole = len(data) - len(data) % protocol.ANSWER.size
        self._answers = data[whole:]
        children = self._children
        for token, kind, value in protocol.ANSWER.iter_unpack(data[:whole]):
            child = children.get(token)
            if child is not None:
                child.on_answer(kind, value)
            elif kind == protocol.READY and not self._ready.done():
                self._ready.set_result(None)
        return True

    def _on_death(self) -> None:
        self._process.wait()
        while self._on_answers():
            pass
        self.alive = False
        self.loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.loop.remove_reader(self._socket.fileno())
        self.loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._seal()
        for _, descriptors in self._outbox:
            for fd in descriptors:
                os.close(fd)
        self._outbox.clear()
        for child in list(self._children.values()):
            child.end()
        for future in (self._ready, self._dead):
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(None)


def _no_output(_stream: Stream, _data: bytes) -> None:
    return None
