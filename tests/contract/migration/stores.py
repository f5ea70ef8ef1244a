"""Stores for migrations: whole ones, some that fail, some that lie, and what one holds."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

from taskhub.adapters.memory import MemoryStores
from taskhub.adapters.mongo import open_mongo
from taskhub.adapters.sqlite import open_sqlite
from taskhub.errors import UnavailableError
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import RunQuery, TaskQuery
from taskhub.testing.clock import FakeClock
from taskhub.testing.store_samples import T0
from tests.contract.mongo.servers import new_url, running

PORTS = ("runs", "logs", "accounts", "audit")
ALL = 1_000_000
PAIRS = [
    ("memory", "sqlite"),
    ("sqlite", "memory"),
    ("sqlite", "sqlite"),
    ("memory", "memory"),
    ("sqlite", "mongodb"),
    ("mongodb", "sqlite"),
    ("mongodb", "mongodb"),
]


@asynccontextmanager
async def opened(kind, directory):
    """Open an empty store of a kind."""
    if kind == "memory":
        yield MemoryStores()
    elif kind == "mongodb":
        url = new_url(running(replica_set=False))
        async with open_mongo(url, node="n") as stores:
            assert await stores.lease.acquire("")
            yield stores
    else:
        async with open_sqlite(directory, sync="OFF") as stores:
            yield stores


class HastyClock(FakeClock):
    """A clock that passes every pause at once, and remembers it."""

    def __init__(self):
        super().__init__(T0)
        self.pauses = []

    async def sleep(self, seconds):
        self.pauses.append(seconds)


@dataclass
class Notes:
    """A listener that remembers."""

    over: dict = field(default_factory=dict)
    waited: list = field(default_factory=list)

    def progress(self, phase, counts, *, over):
        if over:
            self.over[phase] = dict(counts)

    def waiting(self, store, reason, seconds):
        self.waited.append((store, reason, seconds))


def wrapped(stores, around):
    """Return stores whose every call goes through `around(method, args, call)`."""
    return SimpleNamespace(**{port: _Port(getattr(stores, port), around) for port in PORTS})


class _Port:
    def __init__(self, inner, around):
        self._inner = inner
        self._around = around

    def __getattr__(self, method):
        call = getattr(self._inner, method)

        async def through(*args, **kwargs):
            return await self._around(method, args, lambda: call(*args, **kwargs))

        return through


class Calls:
    """For `wrapped`: fails the calls that `is_bad(number)` names, before or after they are done."""

    def __init__(self, is_bad=lambda number: False, *, is_done=False, error=UnavailableError):
        self.count = 0
        self._error = error
        self._is_bad = is_bad
        self._is_done = is_done

    async def __call__(self, method, args, call):
        self.count += 1
        if not self._is_bad(self.count):
            return await call()
        if self._is_done:
            await call()
        raise self._error("injected")


async def held_by(stores):
    """Return all that a store says it holds, read without any of what a migration uses."""
    runs = (await stores.runs.runs(RunQuery(), ALL)).items
    heads = await stores.logs.heads(0, ALL)
    return {
        "runs": list(runs),
        "specs": [await stores.runs.load(row.header.run_id) for row in runs],
        "tasks": list((await stores.runs.task_runs(TaskQuery(), ALL)).items),
        "outputs": [
            await stores.runs.outputs([row.header.first_task_id + i for i in range(row.total)])
            for row in runs
        ],
        "events": [list(await stores.runs.history(row.header.run_id, 0, ALL)) for row in runs],
        "number": await stores.runs.last_number(),
        "heads": list(heads),
        "chunks": [
            list(await stores.logs.chunks(head.run_id, 0, ALL, head.task_id)) for head in heads
        ],
        "accounts": list(await stores.accounts.accounts()),
        "tokens": list(await stores.accounts.tokens()),
        "revoked": dict(await stores.accounts.revoked(T0)),
        "audit": list((await stores.audit.entries(AuditQuery(), ALL)).items),
    }
