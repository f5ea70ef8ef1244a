"""A process that was asked for, as the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from taskhub.executors.shell.reader import Output, PipeReader
from taskhub.executors.shell.spawner import protocol
from taskhub.plugin_api import Stream


class Requests(Protocol):
    """What a child needs of the connection to its spawner."""

    loop: asyncio.AbstractEventLoop
    reader: PipeReader

    def send(self, request: tuple[object, ...]) -> None:
        """Send a request to the spawner."""
        ...

    def forget(self, token: int) -> None:
        """Expect no more answers."""
        ...


class Child:
    """A process that was asked for. It is `over` when nothing of it is left to be told.

    `status` is what waitpid said; `failure` is (kind, errno) if it could not be started; both are
    None if the spawner died. `survivors` counts processes that even SIGKILL did not end.
    """

    __slots__ = (
        "_client",
        "_loop",
        "_waiter",
        "failure",
        "output",
        "status",
        "stopping",
        "survivors",
        "token",
    )

    def __init__(
        self, client: Requests, token: int, write: Callable[[Stream, bytes], None]
    ) -> None:
        self._client = client
        self._loop = client.loop
        self._waiter: asyncio.Future[None] | None = None
        self.token = token
        self.output = Output(client.reader, write, self._wake)
        self.stopping = False
        self.status: int | None = None
        self.failure: tuple[int, int] | None = None
        self.survivors = 0

    @property
    def over(self) -> bool:
        """Whether it has ended and all its output was handed on."""
        return self.output.ended and not self.output.pipes

    @property
    def is_unknown(self) -> bool:
        """Whether it was started, as far as we know, and nobody saw it end."""
        return self.status is None and self.failure is None and not self.survivors

    async def wait(self) -> None:
        """Return when it is over, is owed a `drain`, or has an error to look at."""
        output = self.output
        if self.over or output.owed or (output.error is not None and not self.stopping):
            return
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def stop(self, grace_s: float) -> None:
        """Ask the whole tree to end, and kill it `grace_s` later; no effect once it has ended."""
        if not self.output.ended:
            self.stopping = True
            self._client.send((protocol.STOP, self.token, grace_s))

    def on_answer(self, kind: int, value: int) -> None:
        """Take what the spawner says of this child."""
        if kind == protocol.EXITED:
            self.status = value
            if self.stopping:
                return  # the rest of the tree may still print
        elif kind == protocol.STOPPED:
            self.survivors = value
        else:
            self.failure = (kind, value)
        self.end()

    def end(self) -> None:
        """Nothing more will be heard of it."""
        if not self.output.ended:
            self.output.end()
            self._wake()

    def close(self) -> None:
        """Let go of it, over or not."""
        self.output.ended = True
        self.output.close()
        self._client.forget(self.token)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
