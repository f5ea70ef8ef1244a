"""One server writes, the others wait; what a superseded one still has in hand changes nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from taskhub.adapters.mongo import open_mongo
from taskhub.adapters.mongo.client import connect
from taskhub.adapters.mongo.lease import LeaseTimes, MongoLease
from taskhub.adapters.mongo.logs import MongoLogStore
from taskhub.adapters.mongo.runs import MongoRunStore
from taskhub.adapters.mongo.schema import prepare
from taskhub.domain.result import Output
from taskhub.domain.run import RunStatus
from taskhub.errors import SupersededError
from taskhub.ports.store import Batch, TaskOutput
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

QUICK = LeaseTimes(term_s=0.3, renew_s=0.05, confirm_s=0.2)
NEVER_S = 3600.0


class Server:
    """The stores of one server, which applies nothing by itself unless somebody wants to read."""

    def __init__(self, database, node):
        self.runs = MongoRunStore(database, NEVER_S)
        self.logs = MongoLogStore(database, NEVER_S)
        self.lease = MongoLease(database, self.runs, self.logs, node, QUICK)


@pytest.fixture
async def start(url):
    """Start a server; the same node takes over at once, as after a crash."""
    async with AsyncExitStack() as stack:
        servers = []

        async def start(node="n1", *, acquire=True):
            database = await stack.enter_async_context(connect(url))
            await prepare(database)
            servers.append(Server(database, node))
            if acquire:
                assert await servers[-1].lease.acquire(f"http://{node}.example")
            return servers[-1]

        yield start
        for server in servers:
            await server.runs.close()
            await server.logs.close()


def content(mongod, url):
    """Return every document there is, but for the lease's and the ledgers' own."""
    name = url.rpartition("/")[2].partition("?")[0]
    with mongod.client() as client:
        return {
            collection: list(client[name][collection].find().sort("_id"))
            for collection in client[name].list_collection_names()
            if collection not in {"ledgers", "meta"}
        }


async def test_one_server_is_active_and_the_next_takes_over_when_it_leaves(start):
    first = await start("n1")
    second = await start("n2", acquire=False)
    assert not await second.lease.acquire("http://n2.example")
    assert await second.lease.active_url() == "http://n1.example"
    await first.lease.release()
    assert await second.lease.active_url() == ""
    assert await second.lease.acquire("http://n2.example")
    assert await first.lease.active_url() == "http://n2.example"
    assert not await first.lease.acquire("http://n1.example")


async def test_a_server_that_gives_no_sign_is_followed_and_learns_of_it(start):
    first = await start("n1")
    second = await start("n2", acquire=False)
    async with asyncio.timeout(20):
        while not await second.lease.acquire("http://n2.example"):  # noqa: ASYNC110  # as a server does
            await asyncio.sleep(0.02)
        with pytest.raises(SupersededError):
            await first.lease.hold()


async def test_a_server_that_renews_is_not_followed(start):
    first = await start("n1")
    second = await start("n2", acquire=False)
    holding = asyncio.create_task(first.lease.hold(), name="hold")
    for _ in range(40):
        assert not await second.lease.acquire("http://n2.example")
        await asyncio.sleep(0.025)
    assert not holding.done()
    holding.cancel()
    await asyncio.wait([holding])


async def test_a_stopped_holder_that_was_away_for_longer_than_its_term_goes_on(start):
    """Nobody took the lease meanwhile: time alone takes nothing away."""
    first = await start("n1")
    await asyncio.sleep(QUICK.term_s + 0.1)
    holding = asyncio.create_task(first.lease.hold(), name="hold")
    await first.runs.commit(new_run(1))
    await asyncio.wait([holding], timeout=0.2)
    assert not holding.done()
    holding.cancel()
    await asyncio.wait([holding])


async def test_a_standby_reads_and_does_not_write(start):
    first = await start("n1")
    await first.runs.commit(full_batch(1))
    await first.logs.append([chunk(1, 1, ["a"])])
    before = await snapshot(first.runs, 1)
    assert await first.logs.last_id() == 1
    standby = await start("n2", acquire=False)
    assert await snapshot(standby.runs, 1) == before
    assert [line.message for line in await standby.logs.read("t", "r", 1, 9)] == ["a"]
    with pytest.raises(SupersededError):
        await standby.runs.commit(new_run(2))
    with pytest.raises(SupersededError):
        await standby.logs.append([chunk(2, 2, ["b"])])


async def test_a_superseded_server_writes_nothing(start, mongod, url):
    first = await start()
    await first.runs.commit(full_batch(1))
    await first.logs.append([chunk(1, 1, ["a"])])
    await start()
    before = content(mongod, url)
    update = Batch(tasks=[task_update(1, 1)], events=[event(1, 3)])
    for batch in (new_run(2), update):
        with pytest.raises(SupersededError):
            await first.runs.commit(batch)
    with pytest.raises(SupersededError):
        await first.logs.append([chunk(2, 2, ["b"])])
    assert content(mongod, url) == before


async def test_what_was_committed_but_not_applied_is_there_after_a_takeover(start):
    first = await start()
    await first.runs.commit(full_batch(1))
    output = TaskOutput(task_run_id(1, 1), run_id(1), Output(stdout="late"))
    await first.runs.commit(
        Batch(tasks=[task_update(1, 1)], outputs=[output], events=[event(1, 3)])
    )
    await first.logs.append([chunk(1, 1, ["a"]), chunk(2, 2, ["b"])])
    second = await start()
    assert [e.seq for e in await second.runs.history(run_id(1))] == [1, 2, 3]
    assert (await second.runs.outputs([output.id]))[output.id] == output.output
    assert [line.message for line in await second.logs.read("t", "r", 1, 9)] == ["a", "b"]
    assert await second.logs.last_seq("t", "r") == 2


async def test_a_superseded_server_that_applies_its_commits_late_changes_nothing(
    start, mongod, url
):
    first = await start()
    await first.runs.commit(full_batch(1))
    await first.logs.append([chunk(1, 1, ["a"])])
    second = await start()
    newer = task_update(1, 0)._replace(message="newer", attempt=2)
    output = TaskOutput(task_run_id(1, 0), run_id(1), Output(stdout="newer"))
    await second.runs.commit(Batch(tasks=[newer], outputs=[output], events=[event(1, 3)]))
    await second.logs.append([chunk(2, 2, ["b"])])
    expected = await snapshot(second.runs, 1)
    assert await second.logs.last_seq("t", "r") == 2
    before = content(mongod, url)
    assert await first.logs.last_seq("t", "r") == 2, "reading makes it apply what it has in hand"
    assert await snapshot(first.runs, 1) == expected
    assert content(mongod, url) == before


async def test_large_commits_go_in_parts_and_survive_a_takeover(start):
    first = await start()
    big = new_run(1)
    big.events += [event(1, seq, extra={"text": "x" * 9000}) for seq in range(2, 2500)]
    await first.runs.commit(big)
    lines = ["y" * 10_000] * 12
    chunks = [chunk(i, 1 + 12 * (i - 1), lines) for i in range(1, 40)]
    await first.logs.append(chunks)
    second = await start()
    assert list(await second.runs.history(run_id(1))) == big.events
    assert list(await second.logs.chunks("r", 0, 100)) == chunks


async def test_parts_do_not_pile_up(start, mongod, url):
    server = await start()
    for number in range(1, 4):
        batch = new_run(number)
        extra = {"text": "x" * 9000}
        batch.events += [event(number, seq, extra=extra) for seq in range(2, 500)]
        await server.runs.commit(batch)
    assert len(await server.runs.active()) == 3
    assert content(mongod, url).get("parts", []) == []


async def test_an_expired_run_does_not_come_back_with_a_restart(start):
    first = await start()
    batch = full_batch(1)
    batch.runs = [batch.runs[0]._replace(status=RunStatus.SUCCESS, end_ts_ms=5)]
    await first.runs.commit(batch)
    assert await first.runs.expire(10) == 1
    second = await start()
    assert await second.runs.active() == []
    assert list(await second.runs.history(run_id(1))) == []
    assert await second.runs.last_id() == 0


async def test_epochs_grow_over_servers(start):
    first = await start()
    assert await first.runs.open_epoch("a", 1) == 1
    second = await start()
    assert await second.runs.open_epoch("b", 2) == 2
    assert await second.runs.open_epoch("a", 2) == 1


async def test_all_servers_on_a_database_share_one_key(url):
    async with open_mongo(url, node="a") as one, open_mongo(url, node="b") as other:
        assert await one.signing_key(lambda: b"x" * 32) == b"x" * 32
        assert await other.signing_key(lambda: b"y" * 32) == b"x" * 32
