"""The same server on MongoDB and on SQLite, in turn, in one run; and pages out of 10 M lines.

Prints a table; never fails by time. A mongod on disk is started for it.
    python tests/bench/bench_mongo.py [shell noop lines page size] [--rounds N] [--replica-set]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from taskhub.adapters.mongo import open_mongo
from taskhub.testing.mongod import Mongod
from taskhub.testing.store_samples import chunk

sys.path.append(str(Path(__file__).parent))
from bench_server import row, server, spread

SHELL = [{"id": f"t{i}", "exec_type": "Shell", "exec_command": "true"} for i in range(1000)]
SIDE = [{"id": f"t{i}", "exec_type": "Local", "exec_command": "noop"} for i in range(500)]
CHAIN = [
    {"id": f"t{i}", "exec_type": "Local", "exec_command": "noop"}
    | ({"deps": [f"t{i - 1}"]} if i else {})
    for i in range(200)
]
LINES = 1_000_000


def in_turn(mongod, rounds, measure, **settings):
    """Return the figures of a measurement on MongoDB and on SQLite, taken in turn."""
    with ExitStack() as stack:
        url = mongod.database_url(f"bench_{time.time_ns()}")
        clients = [
            stack.enter_context(server(store_url=url, **settings)),
            stack.enter_context(server(**settings)),
        ]
        for client in clients:
            measure(client)
        figures = [[measure(client) for client in clients] for _ in range(rounds)]
    return list(zip(*figures, strict=True))


def compare(what, target, pair, ratio_target=""):
    mongo, sqlite = pair
    row(what, spread(mongo), target, f"SQLite {spread(sqlite)}")
    ratios = [100 * m / s for m, s in zip(mongo, sqlite, strict=True)]
    row("  of the SQLite figure, %", spread(ratios), ratio_target)


def bench_shell(mongod, rounds):
    pair = in_turn(mongod, rounds, lambda client: 1000 / client.run(SHELL, max_parallel=16))
    compare("Shell true x 1000, 16 in flight, tasks/s", "", pair, ">= 60")


def bench_noop(mongod, rounds):
    few = {"limits_running_attempts": 512}
    side = in_turn(mongod, rounds, lambda c: 500 / c.run(SIDE, max_parallel=512), **few)
    compare("500 noop side by side over HTTP, tasks/s", ">= 3,000", side)
    chain = in_turn(mongod, rounds, lambda client: 200 / client.run(CHAIN))
    compare("200 noop in a chain over HTTP, tasks/s", "", chain)


def bench_lines(mongod, rounds):
    task = {"id": "a", "exec_type": "Shell", "exec_command": f"seq {LINES}"}
    pair = in_turn(mongod, rounds, lambda client: LINES / client.run([task]))
    compare("1 M lines of one child, stored, lines/s", ">= 150,000", pair)


def bench_page(mongod, rounds):
    url = mongod.database_url("bench_page")
    asyncio.run(fill(url))
    place = random.Random(1)
    with server(store_url=url) as client:
        for name, run in (("of one run", "&run_id=r"), ("over all runs of the task", "")):
            waits = []
            for _ in range(200 * rounds):
                first = place.randrange(1, 10 * LINES)
                begun = time.perf_counter()
                answer = client.call("GET", f"/api/tasks/logs?task_id=t{run}&from={first}")
                waits.append(1000 * (time.perf_counter() - begun))
                assert answer["data"]["records"][0]["seq"] == first
            p99 = statistics.quantiles(waits, n=100)[98]
            shown = f"{p99:.1f} (median {statistics.median(waits):.1f})"
            row(f"200 of 10 M lines {name}, p99 ms", shown, "< 10")


async def fill(url):
    """Store 10 M lines of one task of one run."""
    async with open_mongo(url, node="bench") as stores:
        await stores.lease.acquire("")
        step = 4000
        for first in range(1, 10 * LINES, step):
            lines = [f"this is line {i} of them" for i in range(first, first + step)]
            await stores.logs.append([chunk(first, first, lines)])
        assert await stores.logs.last_seq("t", "r") == 10 * LINES


def bench_size(mongod, _rounds):
    """Store 1,000 runs of 5 tasks that print 20 lines each, and say what they take."""
    name = "bench_size"
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo line $i; done"
    tasks = [{"id": f"t{i}", "exec_type": "Shell", "exec_command": script} for i in range(5)]
    with server(store_url=mongod.database_url(name)) as client, mongod.client() as peek:
        before = data_size(peek[name])
        for _ in range(1000):
            client.call("POST", "/api/dag/run", {"tasks": tasks})
        client.call("GET", "/api/dag/runs")
        after = data_size(peek[name])
    for kind in ("dataSize", "storageSize", "indexSize"):
        row(f"1,000 runs of 5 tasks, 20 lines each, {kind}", f"{after[kind] - before[kind]:,}", "")


def data_size(database):
    database.client.admin.command("fsync")
    return database.command("dbStats")


BENCHES = {
    "shell": bench_shell,
    "noop": bench_noop,
    "lines": bench_lines,
    "page": bench_page,
    "size": bench_size,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("which", nargs="*", choices=[*BENCHES, []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--replica-set", action="store_true")
    options = parser.parse_args()
    kind = "replica set of one" if options.replica_set else "standalone"
    print(f"{kind:<46} {'median (min-max)':>22}  {'target':>12}")
    with Mongod(replica_set=options.replica_set, on_disk=True) as mongod:
        for name in options.which or BENCHES:
            BENCHES[name](mongod, options.rounds)


if __name__ == "__main__":
    main()
