"""The engine and the store without HTTP: from a checked spec to its end, stored (FULL).

Prints a table beside the bare commits of the same run. Never fails by time.
    python tests/bench/bench_engine.py [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from taskhub.bootstrap import serve
from taskhub.config import Config
from taskhub.domain.dag import DagSpec
from taskhub.domain.run import RunStatus
from taskhub.domain.task import TaskSpec
from taskhub.services.runs import RunService

sys.path.append(str(Path(__file__).parent))
from bench_server import bare_commits, row, spread


def noop(name: str, *deps: str) -> TaskSpec:
    return TaskSpec(id=name, name=name, exec_type="Local", exec_command="noop", deps=deps)


SIDE = DagSpec(name="side", tasks=tuple(noop(f"t{i}") for i in range(500)), max_parallel=512)
CHAIN = DagSpec(
    name="chain", tasks=tuple(noop(f"t{i}", *[f"t{i - 1}"][: i > 0]) for i in range(200))
)


async def rate(runs: RunService, spec: DagSpec) -> float:
    """Return tasks a second from submission to the end of a run, both stored."""
    started = time.perf_counter()
    view = await runs.wait(await runs.submit(spec))
    assert view.row.state.status is RunStatus.SUCCESS
    return len(spec.tasks) / (time.perf_counter() - started)


async def measure(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Config(dev=True)
        config = replace(
            config,
            server=replace(config.server, port=0, data_dir=Path(folder)),
            limits=replace(config.limits, running_attempts=512),
        )
        async with serve(config) as server:
            await rate(server.runs, SIDE)
            sides = [await rate(server.runs, SIDE) for _ in range(rounds)]
            chains = [await rate(server.runs, CHAIN) for _ in range(rounds)]
    commits = [bare_commits() for _ in range(rounds)]
    row("Local noop, 500 side by side, tasks/s", spread(sides), ">= 10,000")
    limit = f"bare SQLite commits (FULL) {spread(commits)}/s"
    row("Local noop, chain of 200, tasks/s", spread(chains), ">= 1,500", limit)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    sys.setswitchinterval(0.0005)  # as the daemon does
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
