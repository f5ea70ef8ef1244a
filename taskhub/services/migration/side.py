"""One of the two stores of a migration: read in pages of bounded size, asked more than once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from taskhub.domain.audit import AuditEntry
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.log import LogChunk
from taskhub.domain.result import Output
from taskhub.domain.run import RunHeader
from taskhub.errors import UnavailableError
from taskhub.ports.accounts import Account, ApiToken, AuditQuery
from taskhub.ports.clock import Clock
from taskhub.ports.store import (
    Batch,
    LogHead,
    Page,
    RunQuery,
    RunRow,
    TaskQuery,
    TaskRow,
)
from taskhub.ports.stores import Stores
from taskhub.services.migration.listening import Listener

T = TypeVar("T")

PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
RUNS: Final = 200
TASKS: Final = 128
OUTPUTS: Final = 8
"""An output is up to twice `limits.answer_output_bytes`, 512 KiB, so a page is up to 4 MiB."""
EVENTS: Final = 500
HEADS: Final = 1000
CHUNKS: Final = 32
ENTRIES: Final = 1000


class Side:
    """A store under its name in messages.

    Every method repeats its calls while the store is away, some 15 s long in all, and then raises
    `UnavailableError`.
    """

    def __init__(self, name: str, stores: Stores, clock: Clock, listener: Listener) -> None:
        self._name = name
        self._runs = stores.runs
        self._logs = stores.logs
        self._accounts = stores.accounts
        self._audit = stores.audit
        self._clock = clock
        self._listener = listener

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        for pause in PAUSES_S:
            try:
                return await call()
            except UnavailableError as error:
                self._listener.waiting(self._name, str(error), pause)
                await self._clock.sleep(pause)
        try:
            return await call()
        except UnavailableError as error:
            raise UnavailableError(f"the {self._name} stays away: {error}") from error

    async def _walk(
        self, list_page: Callable[[int | None], Awaitable[Page[T]]]
    ) -> AsyncIterator[T]:
        before = None
        while True:
            page = await self._ask(partial(list_page, before))
            for item in page.items:
                yield item
            before = page.next_before
            if before is None:
                return

    def runs(self) -> AsyncIterator[RunRow]:
        """Yield all runs by descending `ord`."""
        return self._walk(lambda before: self._runs.runs(RunQuery(), RUNS, before))

    async def load(self, run_id: str) -> tuple[RunHeader, DagSpec]:
        """Return what a run was made from."""
        return await self._ask(partial(self._runs.load, run_id))

    def tasks(self, run_id: str) -> AsyncIterator[TaskRow]:
        """Yield the tasks of a run by descending id."""
        query = TaskQuery(run_id=run_id)
        return self._walk(lambda before: self._runs.task_runs(query, TASKS, before))

    async def outputs(self, row: RunRow) -> AsyncIterator[tuple[int, Output]]:
        """Yield what is stored of the outputs of a run's tasks, by ascending id."""
        first = row.header.first_task_id
        for start in range(first, first + row.total, OUTPUTS):
            ids = range(start, min(start + OUTPUTS, first + row.total))
            found = await self._ask(partial(self._runs.outputs, list(ids)))
            for i in ids:
                if i in found:
                    yield i, found[i]

    async def events(self, run_id: str) -> AsyncIterator[Event]:
        """Yield the events of a run by ascending `seq`."""
        after = 0
        while page := await self._ask(partial(self._runs.history, run_id, after, EVENTS)):
            for event in page:
                yield event
            after = page[-1].seq

    async def active(self) -> Sequence[str]:
        """Return the ids of the runs that have not ended."""
        return await self._ask(self._runs.active)

    async def last_number(self) -> int:
        """Return the highest number of a simple task."""
        return await self._ask(self._runs.last_number)

    async def heads(self) -> AsyncIterator[LogHead]:
        """Yield all (task, run) pairs that have lines, by ascending `ord`."""
        after = 0
        while page := await self._ask(partial(self._logs.heads, after, HEADS)):
            for head in page:
                yield head
            after = page[-1].ord

    async def chunks(self, head: LogHead, until_seq: int) -> AsyncIterator[LogChunk]:
        """Yield the lines of one task of one run in order, at least up to a number."""
        after = last_seq = 0
        while last_seq < until_seq:
            ask = partial(self._logs.chunks, head.run_id, after, CHUNKS, head.task_id)
            page = await self._ask(ask)
            if not page:
                return
            for chunk in page:
                yield chunk
            after, last_seq = page[-1].id, page[-1].last_seq

    async def accounts(self) -> Mapping[str, Account]:
        """Return all accounts by name."""
        return {each.username: each for each in await self._ask(self._accounts.accounts)}

    async def tokens(self) -> Mapping[str, ApiToken]:
        """Return all API tokens by id."""
        return {each.id: each for each in await self._ask(self._accounts.tokens)}

    async def revoked(self, now_ms: int) -> Mapping[str, int]:
        """Return the revoked tokens that have not expired, with their expiry; forget none."""
        found = await self._ask(partial(self._accounts.revoked, 0))
        return {jti: expires_ms for jti, expires_ms in found.items() if expires_ms > now_ms}

    def entries(self) -> AsyncIterator[AuditEntry]:
        """Yield the audit by descending id."""
        return self._walk(lambda before: self._audit.entries(AuditQuery(), ENTRIES, before))

    async def commit(self, batch: Batch) -> None:
        """Store a part of the history of runs, if there is room for it."""
        await self._ask(self._runs.check_room)
        await self._ask(partial(self._runs.commit, batch))

    async def append_chunks(self, chunks: Sequence[LogChunk]) -> None:
        """Store lines, if there is room for them."""
        await self._ask(self._runs.check_room)
        await self._ask(partial(self._logs.append, chunks))

    async def append_entries(self, entries: Sequence[AuditEntry]) -> None:
        """Store a part of the audit."""
        await self._ask(partial(self._audit.append, entries))

    async def restore(
        self,
        accounts: Sequence[Account],
        tokens: Sequence[ApiToken],
        revoked: Mapping[str, int],
    ) -> None:
        """Store who may do what."""
        await self._ask(partial(self._accounts.restore, accounts, tokens, revoked))

    async def open_epoch(self, boot_id: str) -> int:
        """Count one more start of a server."""
        return await self._ask(partial(self._runs.open_epoch, boot_id, self._clock.now_ms()))
