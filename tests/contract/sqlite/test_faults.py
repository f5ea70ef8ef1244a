"""SQLite: full disks, mistakes, cancellation; the writer survives them all."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from taskhub.adapters.sqlite import logs, open_sqlite
from taskhub.errors import UnavailableError
from taskhub.ports.store import Batch
from taskhub.testing.store_samples import (
    EMPTY,
    T0,
    chunk,
    ended_run,
    event,
    full_batch,
    new_run,
    run_id,
    snapshot,
)


@pytest.fixture
async def stores(tmp_path):
    async with open_sqlite(tmp_path, sync="OFF") as stores:
        yield stores


async def limit_pages(store, pages: int) -> None:
    pragma = f"PRAGMA max_page_count = {pages}"
    await store._database.write(lambda c: c.execute(pragma).fetchall())


async def test_a_full_disk_stores_nothing_and_the_batch_can_be_repeated(stores):
    await stores.runs.commit(full_batch(1))
    await limit_pages(stores.runs, 1)
    big = full_batch(2)
    big.events += [event(2, seq, extra={"text": "x" * 1000}) for seq in range(3, 1000)]
    for _ in range(2):
        with pytest.raises(UnavailableError, match="full"):
            await stores.runs.commit(big)
        assert await snapshot(stores.runs, 2) == EMPTY
    await limit_pages(stores.runs, 1 << 30)
    await stores.runs.commit(big)
    assert len(await stores.runs.history(run_id(2))) == 999


async def test_a_full_disk_of_logs_leaves_runs_alone(stores):
    await limit_pages(stores.logs, 1)
    with pytest.raises(UnavailableError):
        await stores.logs.append([chunk(1, 1, ["x" * 100_000])])
    assert await stores.logs.last_seq("t", "r") == 0
    await stores.runs.commit(new_run(1))
    await limit_pages(stores.logs, 1 << 30)
    await stores.logs.append([chunk(1, 1, ["x" * 100_000])])


async def test_a_locked_file_is_unavailable(stores, tmp_path):
    await stores.runs._database.write(lambda c: c.execute("PRAGMA busy_timeout = 1").fetchall())
    other = sqlite3.connect(tmp_path / "taskhub.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"):
        await stores.runs.commit(new_run(1))
    other.execute("ROLLBACK")
    other.close()
    await stores.runs.commit(new_run(1))


async def test_with_little_disk_left_there_is_no_room_but_runs_go_on(tmp_path):
    async with open_sqlite(tmp_path) as stores:
        await stores.runs.check_room()
        await stores.runs.commit(new_run(1))
    async with open_sqlite(tmp_path, min_free_bytes=1 << 60) as stores:
        with pytest.raises(UnavailableError, match="bytes of disk are free"):
            await stores.runs.check_room()
        await stores.runs.commit(Batch(events=[event(1, 2)]))


async def test_a_mistake_is_raised_as_it_is_and_the_writer_goes_on(stores):
    wrong = new_run(1)
    wrong.events[0] = wrong.events[0]._replace(extra={"x": object()})
    with pytest.raises(TypeError):
        await stores.runs.commit(wrong)
    assert await snapshot(stores.runs, 1) == EMPTY
    await stores.runs.commit(new_run(1))
    with pytest.raises(sqlite3.OperationalError):
        await stores.runs._database.write(lambda c: c.execute("no such SQL"))
    await stores.runs.commit(new_run(2))


async def test_an_event_id_given_twice_is_a_mistake(stores):
    await stores.runs.commit(new_run(1))
    twice = event(1, 1)._replace(seq=2)
    with pytest.raises(sqlite3.IntegrityError):
        await stores.runs.commit(Batch(events=[twice]))


async def test_a_chunk_with_a_line_end_in_a_line_is_a_mistake(stores):
    with pytest.raises(ValueError, match="does not hold"):
        await stores.logs.append([chunk(1, 1, ["a\nb"])])
    assert await stores.logs.last_id() == 0


async def test_a_commit_whose_caller_is_cancelled_is_stored(stores):
    commit = asyncio.create_task(stores.runs.commit(full_batch(1)), name="commit")
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await stores.runs.commit(Batch())
    assert len(await stores.runs.history(run_id(1))) == 2


async def test_what_was_handed_over_is_stored_before_the_store_closes(tmp_path):
    async with open_sqlite(tmp_path) as stores:
        commits = [
            asyncio.create_task(stores.runs.commit(full_batch(n)), name=f"commit {n}")
            for n in range(1, 20)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*commits)
    with pytest.raises(UnavailableError, match="closed"):
        await stores.runs.commit(new_run(99))
    async with open_sqlite(tmp_path) as stores:
        assert len(await stores.runs.active()) == 19


async def test_an_expiry_cut_short_is_taken_up_again(stores):
    for number in (1, 2, 3):
        await stores.runs.commit(ended_run(number, T0 + number))
    cut_short = asyncio.create_task(stores.runs.expire(T0 + 3), name="expire")
    await asyncio.sleep(0)
    cut_short.cancel()
    await asyncio.wait([cut_short])
    assert await stores.runs.expire(T0 + 4) == 1

    def left(connection):
        tables = ("runs", "task_runs", "events", "outputs", "dying")
        return [connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]

    assert await stores.runs._database.read(left) == [0, 0, 0, 0, 0]


async def test_lines_written_during_an_expiry_survive_it(stores):
    await stores.logs.append([chunk(1, 1, ["a", "b"])])
    await stores.logs._database.write(lambda c: logs._mark(c, T0 + 1, 0, 10, "[]"))
    await stores.logs.append([chunk(2, 3, ["c"])])
    assert await stores.logs.expire(0, 1 << 40) == 0
    assert [line.message for line in await stores.logs.read("t", "r", 1, 10)] == ["c"]


async def test_readers_cannot_write(stores):
    with pytest.raises(UnavailableError, match="readonly"):
        await stores.runs._database.read(lambda c: c.execute("DELETE FROM runs"))
