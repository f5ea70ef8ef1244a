"""MongoDB fails at every single write, is restarted, steps down, hangs; nothing is lost."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from pymongo import MongoClient

from taskhub.adapters.memory import MemoryLogStore, MemoryRunStore
from taskhub.adapters.mongo import open_mongo
from taskhub.adapters.mongo.client import connect
from taskhub.adapters.mongo.lease import MongoLease
from taskhub.adapters.mongo.logs import MongoLogStore
from taskhub.adapters.mongo.runs import MongoRunStore
from taskhub.adapters.mongo.schema import prepare
from taskhub.domain.result import Output
from taskhub.errors import ConfigError, UnavailableError
from taskhub.ports.store import Batch, RunQuery, TaskOutput
from taskhub.testing.mongod import Mongod
from taskhub.testing.store_samples import (
    chunk,
    event,
    full_batch,
    new_run,
    run_id,
    snapshot,
    task_run_id,
    task_update,
)
from tests.contract.mongo.faulty_database import Faults, FaultyDatabase

SOON_S = 30


async def insist(call):
    """Repeat a call as the engine does."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                return await call()
            except UnavailableError:
                await asyncio.sleep(0.01)


async def until(condition):
    """Poll: what happens in another process tells nobody."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.001)


def batches(first):
    """Return the commits of two runs, from `first` on."""
    output = TaskOutput(task_run_id(first, 1), run_id(first), Output(stdout="o", stderr="e"))
    return [
        full_batch(first, unique_key=f"k{first}"),
        Batch(tasks=[task_update(first, 1)], outputs=[output], events=[event(first, 3)]),
        new_run(first + 1),
        Batch(
            tasks=[task_update(first + 1, 0), task_update(first, 1)._replace(message="again")],
            events=[event(first + 1, 2)],
        ),
    ]


class Faulty:
    """The stores on a database that fails when told to."""

    def __init__(self, database):
        self.faults = Faults()
        faulty = FaultyDatabase(database, self.faults)
        self.runs = MongoRunStore(faulty)
        self.logs = MongoLogStore(faulty)
        self.lease = MongoLease(faulty, self.runs, self.logs, "n1")

    async def close(self):
        await self.runs.close(at_once=True)
        await self.logs.close(at_once=True)


@pytest.fixture
async def database(url):
    async with connect(url) as database:
        await prepare(database)
        yield database


async def both(store, first):
    return [await insist(lambda n=n: snapshot(store, n)) for n in (first, first + 1)]


@pytest.mark.parametrize("is_done_first", [False, True])
async def test_a_fault_at_any_write_of_a_commit_loses_and_doubles_nothing(database, is_done_first):
    stores = Faulty(database)
    await stores.lease.acquire("")
    at = first = 1
    while True:
        reference = MemoryRunStore()
        stores.faults.plan(at, is_done_first=is_done_first)
        for batch in batches(first):
            await insist(lambda b=batch: stores.runs.commit(b))
            await reference.commit(batch)
        assert await both(stores.runs, first) == await both(reference, first)
        if stores.faults.calls < at:
            break
        at, first = at + 1, first + 2
    assert at > 8, "faults were injected into as many writes"
    await stores.close()


@pytest.mark.parametrize("is_done_first", [False, True])
async def test_a_server_that_dies_at_any_write_is_followed_by_one_that_finds_all_it_said(
    database, is_done_first
):
    at = first = 1
    while True:
        dying, reference = Faulty(database), MemoryRunStore()
        await dying.lease.acquire("")
        dying.faults.plan(at, is_done_first=is_done_first, is_death=True)
        told = 0
        for batch in batches(first):
            try:
                await dying.runs.commit(batch)
            except UnavailableError:
                break
            told += 1
            await until(lambda d=dying: d.faults.is_over or d.runs.is_idle)
        heir = Faulty(database)
        assert await heir.lease.acquire("")
        for batch in batches(first)[:told]:
            await reference.commit(batch)
        for batch in batches(first)[told:]:  # it may be there already: then nothing changes
            await heir.runs.commit(batch)
            await reference.commit(batch)
        assert await both(heir.runs, first) == await both(reference, first)
        was_over = dying.faults.is_over
        await dying.close()
        await heir.close()
        if not was_over:
            break
        at, first = at + 1, first + 2
    assert at > 8


@pytest.mark.parametrize("is_done_first", [False, True])
async def test_a_fault_at_any_write_of_lines_loses_and_doubles_none(database, is_done_first):
    stores = Faulty(database)
    await stores.lease.acquire("")
    at = number = 1
    while True:
        run, reference = f"r{at}", MemoryLogStore()
        stores.faults.plan(at, is_done_first=is_done_first)
        for i in range(3):
            chunks = [chunk(number, 2 * i + 1, ["a", "b"], run=run)]
            chunks.append(chunk(number + 1, i + 1, ["x"], run=run, task="u"))
            number += 2
            await insist(lambda c=chunks: stores.logs.append(c))
            await reference.append(chunks)
        found = await insist(lambda r=run: stores.logs.read("t", r, 1, 99))
        assert found == await reference.read("t", run, 1, 99)
        assert await stores.logs.last_seq("t", run) == 6
        assert await stores.logs.chunks(run, 0, 99) == await reference.chunks(run, 0, 99)
        if stores.faults.calls < at:
            break
        at += 1
    assert at > 5
    await stores.close()


async def test_mongod_killed_and_started_again_while_a_server_writes(tmp_path):
    for replica_set in (False, True):
        with Mongod(replica_set=replica_set, on_disk=True) as mongod:
            async with open_mongo(mongod.database_url("x"), node="n") as stores:
                await stores.lease.acquire("")
                written = await write_through(stores, mongod, Mongod.kill, Mongod.start)
                assert await count(stores) == (written, written)


async def test_mongod_steps_down_while_a_server_writes():
    with Mongod(replica_set=True) as mongod:
        async with open_mongo(mongod.database_url("x"), node="n") as stores:
            await stores.lease.acquire("")
            written = await write_through(stores, mongod, Mongod.step_down, _nothing)
            assert await count(stores) == (written, written)


def _nothing(_mongod):
    """Come back by itself."""


async def write_through(stores, mongod, disturb, repair):
    """Commit and append while MongoDB goes away and comes back; return how often."""
    written = 0
    over = asyncio.Event()

    async def write():
        nonlocal written
        while not over.is_set() or written < 60:
            number = written + 1
            await insist(partial(stores.runs.commit, full_batch(number)))
            await insist(partial(stores.logs.append, [chunk(number, number, [f"line {number}"])]))
            written = number

    writing = asyncio.create_task(write(), name="write")
    for _ in range(2):
        seen = written
        await until(lambda seen=seen: written >= seen + 10)
        await asyncio.to_thread(disturb, mongod)
        await asyncio.to_thread(repair, mongod)
    over.set()
    async with asyncio.timeout(SOON_S):
        await writing
    return written


async def count(stores):
    """Return how many runs and lines there are; each run has two events, numbered 1 and 2."""
    runs = (await insist(lambda: stores.runs.runs(RunQuery(), 10_000))).items
    for row in runs:
        assert [e.seq for e in await stores.runs.history(row.header.run_id)] == [1, 2]
    lines = await insist(lambda: stores.logs.read("t", "r", 1, 100_000))
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    return len(runs), len(lines)


async def test_a_mongod_that_hangs_is_unavailable_and_what_was_sent_is_stored_once(mongod, stores):
    await stores.runs.commit(new_run(1))
    await stores.runs.active()
    batch = full_batch(2)
    mongod.pause()
    try:
        commit = asyncio.create_task(stores.runs.commit(batch), name="commit")
        with pytest.raises(UnavailableError):
            await stores.runs.run(run_id(1))
    finally:
        mongod.resume()
    await asyncio.wait([commit])
    if commit.exception() is not None:
        await insist(lambda: stores.runs.commit(batch))
    assert [e.seq for e in await stores.runs.history(run_id(2))] == [1, 2]


async def test_the_server_did_it_but_says_that_it_failed(mongod, stores):
    """A write concern error: the write is done, and its caller is told that it may be undone."""
    with mongod.client() as client:
        for tens, command in enumerate(("update", "insert")):
            failure = {"code": 64, "errmsg": "waiting for replication timed out"}
            data = {"failCommands": [command], "writeConcernError": failure}
            for number in (1, 2):
                mode = {"times": number}
                fail = {"configureFailPoint": "failCommand", "mode": mode, "data": data}
                client.admin.command(fail)
                name = number + 10 * tens
                await insist(lambda n=name: stores.runs.commit(full_batch(n)))
                assert [e.seq for e in await stores.runs.history(run_id(name))] == [1, 2]
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    assert len((await stores.runs.runs(RunQuery(), 10)).items) == 4


async def test_no_mongod_is_unavailable_and_a_bad_url_a_bad_setting():
    with pytest.raises(UnavailableError):
        async with open_mongo("mongodb://127.0.0.1:1/x", node="n"):
            pass
    for url in (
        "mongodb://127.0.0.1:1/x?w=nonsense&tls=maybe",
        "mongodb://",
        "mongodb://h/x?retryWritez=true",
    ):
        with pytest.raises(ConfigError):
            async with open_mongo(url, node="n"):
                pass


async def test_a_database_of_a_newer_taskhub_is_refused(url, database):
    await database["meta"].update_one({"_id": "schema"}, {"$set": {"version": 99}})
    with pytest.raises(ConfigError, match="newer"):
        async with open_mongo(url, node="n"):
            pass


async def test_a_mistake_is_raised_before_anything_is_stored(stores):
    wrong = new_run(1)
    wrong.events[0] = wrong.events[0]._replace(extra={"x": object()})
    with pytest.raises(TypeError):
        await stores.runs.commit(wrong)
    with pytest.raises(ValueError, match="does not hold"):
        await stores.logs.append([chunk(1, 1, ["a\nb"])])
    await stores.runs.commit(new_run(1))
    assert await stores.logs.last_id() == 0


async def test_a_user_of_one_database_suffices_and_a_wrong_password_is_a_bad_setting():
    """The user that the pages recommend, made as they say."""
    with Mongod(flags=["--auth"]) as mongod:
        with mongod.client() as client:
            client["admin"].command("createUser", "root", pwd="root", roles=["root"])
        with MongoClient(f"mongodb://root:root@127.0.0.1:{mongod.port}/") as client:
            role = {"role": "readWrite", "db": "taskhub"}
            client["taskhub"].command("createUser", "taskhub", pwd="secret", roles=[role])
        address = f"127.0.0.1:{mongod.port}/taskhub?authSource=taskhub"
        async with open_mongo(f"mongodb://taskhub:secret@{address}", node="n") as stores:
            await stores.lease.acquire("")
            await stores.runs.commit(full_batch(1))
            assert len(await stores.runs.active()) == 1
        for user in ("taskhub:hunter2@", ""):
            with pytest.raises(ConfigError, match="refuses the account") as caught:
                async with open_mongo(f"mongodb://{user}{address}", node="n"):
                    pass
            assert "hunter2" not in str(caught.value)


async def test_a_file_of_the_url_that_is_not_there_is_a_bad_setting():
    url = "mongodb://127.0.0.1:1/x?tls=true&tlsCAFile=/nowhere/ca.pem"
    with pytest.raises(ConfigError, match=r"store\.url"):
        async with open_mongo(url, node="n"):
            pass
