"""A store that fails when told to, to show what its users do about it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import TypeVar

from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.result import Output
from taskhub.domain.run import RunHeader
from taskhub.errors import UnavailableError
from taskhub.ports.store import (
    Batch,
    EventQuery,
    NumberedQuery,
    NumberedTask,
    Page,
    RunQuery,
    RunRow,
    RunStore,
    TaskQuery,
    TaskRow,
)

T = TypeVar("T")


class Fault(StrEnum):
    """What happens to one call; the caller of each gets `UnavailableError`."""

    REFUSED = "refused"
    """Nothing was done, said at once."""
    TIMEOUT = "timed out"
    """Nothing was done, said later."""
    LATE = "timed out, and done afterwards"
    """The caller hears of a timeout, then it is done: just before the next call."""
    LOST_ANSWER = "done, but the answer was lost"
    """It was done, and the caller sees an error."""


class FaultyRunStore:
    """A `RunStore` around another: `fail("commit", Fault.REFUSED)` spoils the next commit."""

    def __init__(self, inner: RunStore) -> None:
        self.inner = inner
        self.calls: list[str] = []
        self._faults: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self._late: list[Callable[[], Awaitable[object]]] = []
        self._open = asyncio.Event()
        self._open.set()

    def fail(self, method: str, *faults: Fault | None) -> None:
        """Let the next calls of a method meet these faults, one each; None lets a call through."""
        self._faults[method].extend(faults)

    def pause(self) -> None:
        """Keep all calls waiting until `resume`."""
        self._open.clear()

    def resume(self) -> None:
        """Let the waiting calls go on."""
        self._open.set()

    async def _call(self, method: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(method)
        await self._open.wait()
        while self._late:
            await self._late.pop(0)()
        faults = self._faults[method]
        fault = faults.popleft() if faults else None
        if fault is None:
            return await call()
        if fault is Fault.LATE:
            self._late.append(call)
        elif fault is Fault.LOST_ANSWER:
            await call()
        if fault is not Fault.REFUSED:
            await asyncio.sleep(0)
        raise UnavailableError(f"injected: {fault}")

    async def commit(self, batch: Batch) -> None:
        await self._call("commit", partial(self.inner.commit, batch))

    async def check_room(self) -> None:
        await self._call("check_room", self.inner.check_room)

    async def last_id(self) -> int:
        return await self._call("last_id", self.inner.last_id)

    async def last_number(self) -> int:
        return await self._call("last_number", self.inner.last_number)

    async def open_epoch(self, boot_id: str, now_ms: int) -> int:
        return await self._call("open_epoch", partial(self.inner.open_epoch, boot_id, now_ms))

    async def active(self) -> Sequence[str]:
        return await self._call("active", self.inner.active)

    async def load(self, run_id: str) -> tuple[RunHeader, DagSpec]:
        return await self._call("load", partial(self.inner.load, run_id))

    async def history(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[Event]:
        return await self._call("history", partial(self.inner.history, run_id, after, limit))

    async def run_by_key(self, unique_key: str) -> str | None:
        return await self._call("run_by_key", partial(self.inner.run_by_key, unique_key))

    async def run(self, run_id: str) -> RunRow:
        return await self._call("run", partial(self.inner.run, run_id))

    async def runs(self, query: RunQuery, limit: int, before: int | None = None) -> Page[RunRow]:
        return await self._call("runs", partial(self.inner.runs, query, limit, before))

    async def task_runs(
        self, query: TaskQuery, limit: int, before: int | None = None
    ) -> Page[TaskRow]:
        return await self._call("task_runs", partial(self.inner.task_runs, query, limit, before))

    async def numbered(
        self, query: NumberedQuery, limit: int, before: int | None = None
    ) -> Page[NumberedTask]:
        return await self._call("numbered", partial(self.inner.numbered, query, limit, before))

    async def events(self, query: EventQuery, limit: int, before: int | None = None) -> Page[Event]:
        return await self._call("events", partial(self.inner.events, query, limit, before))

    async def outputs(self, task_run_ids: Sequence[int]) -> Mapping[int, Output]:
        return await self._call("outputs", partial(self.inner.outputs, task_run_ids))

    async def expire(self, before_ms: int, limit: int = 100) -> int:
        return await self._call("expire", partial(self.inner.expire, before_ms, limit))
