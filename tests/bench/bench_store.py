"""What the SQLite store does in a second: `python tests/bench/bench_store.py [directory]`.

Prints a table and asserts nothing: the numbers belong to the machine and its disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskhub.adapters.sqlite import SqliteStores, open_sqlite
from taskhub.adapters.sqlite.commit import INSERT_EVENTS, event_row
from taskhub.adapters.sqlite.schema import STATE, migrate
from taskhub.ports.store import Batch, EventQuery, RunQuery, TaskQuery
from taskhub.testing.store_samples import chunk, event, new_run, run_id, task_update

EVENTS = 3500
INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, seq) DO NOTHING"


@contextmanager
def measured(what: str, count: int, unit: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    print(f"{what:<52} {seconds * 1000:>9.1f} ms {count / seconds:>12,.0f} {unit}/s")


@contextmanager
def busy_loop(*, is_busy: bool) -> Iterator[None]:
    """Compete for the GIL, as a busy event loop does."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin)
    if is_busy:
        thread.start()
    yield
    over.set()
    if is_busy:
        thread.join()


def compare_statements(directory: Path) -> None:
    for is_busy in (False, True):
        beside = "a busy thread" if is_busy else "nothing else"
        for name in ("executemany", "rows in statements"):
            path = directory / f"{name}-{is_busy}.db"
            connection = sqlite3.connect(path, isolation_level="IMMEDIATE", cached_statements=400)
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection, STATE, path)
            rows = [event_row(event(1, seq, task_id=f"t{seq % 500}")) for seq in range(1, EVENTS)]
            with busy_loop(is_busy=is_busy), measured(f"{name}, beside {beside}", EVENTS, "events"):
                if name == "executemany":
                    connection.executemany(INSERT, rows)
                else:
                    INSERT_EVENTS.execute(connection, rows)
                connection.commit()
            connection.close()


async def commits(stores: SqliteStores) -> None:
    await stores.runs.commit(new_run(1, 500))
    for count in (1, 10, 100, 1000):
        number, rounds = 10 + count, max(5, 2000 // count)
        with measured(f"commits of {count} events, one by one", rounds, "commits"):
            for i in range(rounds):
                seqs = range(i * count, i * count + count)
                events = [event(number, seq, task_id=f"t{seq % 500}") for seq in seqs]
                await stores.runs.commit(Batch(events=events))
    with measured("commits of 7 events and 1 task, one by one", 1000, "commits"):
        for i in range(1000):
            events = [event(2, i * 7 + j, task_id="t1") for j in range(7)]
            await stores.runs.commit(Batch(events=events, tasks=[task_update(1, i % 500)]))
    batch = new_run(3, 10_000)
    with measured("a run of 10,000 tasks", 10_000, "tasks"):
        await stores.runs.commit(batch)


async def reads(stores: SqliteStores) -> None:
    with measured("load of 10,000 tasks", 10_000, "tasks"):
        await stores.runs.load(run_id(3))
    with measured("history of 7,000 events", 7000, "events"):
        await stores.runs.history(run_id(2))
    for name, call in (
        ("page of 100 runs", lambda: stores.runs.runs(RunQuery(name="x"), 100)),
        ("page of 200 task_runs", lambda: stores.runs.task_runs(TaskQuery(run_id=run_id(3)), 200)),
        ("page of 200 events of a task", lambda: stores.runs.events(EventQuery(task_id="t1"), 200)),
    ):
        with measured(name, 100, "pages"):
            for _ in range(100):
                await call()


async def lines(stores: SqliteStores) -> None:
    text = ["a line of output, some eighty characters long, as programs like to print them..."]
    chunks = [chunk(i + 1, i * 1000 + 1, text * 1000) for i in range(2000)]
    with measured("log lines, 10 chunks of 1000 a call", 2_000_000, "lines"):
        for i in range(0, 2000, 10):
            await stores.logs.append(chunks[i : i + 10])
    with measured("page of 200 lines out of 2,000,000", 100, "pages"):
        for i in range(100):
            await stores.logs.read("t", "r", i * 19_000 + 1, 200)
    with measured("delete 2,000,000 lines", 2_000_000, "lines"):
        await stores.logs.expire(0, 0)


async def bench(directory: Path) -> None:
    async with open_sqlite(directory) as stores:
        await commits(stores)
        await reads(stores)
        await lines(stores)


def main() -> None:
    place = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        compare_statements(Path(directory))
        asyncio.run(bench(Path(directory) / "data"))


if __name__ == "__main__":
    main()
