"""Shell attempts a second against a bare posix_spawn and wait loop, interleaved, same load.

Prints the median of each, their ratio, and the CPU that a task costs in this process, the spawner
and all their children.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from taskhub.domain.log import Level, Stream
from taskhub.domain.task import TaskSpec
from taskhub.executors.shell import ShellExecutor


class NullContext:
    run_id = "1_abcdef"
    attempt = 1
    attempt_key = "1_abcdef_0_1"
    deadline_ms = None
    task = TaskSpec(id="t", name="t", exec_type="Shell", exec_command="true")

    def __init__(self, command: str = "true") -> None:
        self.task = TaskSpec(id="t", name="t", exec_type="Shell", exec_command=command)
        self.size = 0

    def write(self, stream: Stream, data: bytes) -> None:
        self.size += len(data)

    def log(self, message: str, level: Level = Level.INFO, fields: object = None) -> None: ...

    async def drain(self) -> None: ...


@dataclass
class Round:
    seconds: float
    cpu: float


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process without its children, by the scheduler's clock."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def cpu_of_children(pid: int) -> float:
    """Return the CPU seconds of the children that a process has reaped."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")


def cpu(*pids: int) -> float:
    """Return the CPU seconds of processes and their children; other load does not count."""
    return sum(cpu_of(pid) + cpu_of_children(pid) for pid in pids)


def bare(count: int, in_flight: int) -> Round:
    busy, start = cpu(os.getpid()), time.perf_counter()
    running = 0
    for _ in range(count):
        if running == in_flight:
            os.wait()
            running -= 1
        os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    return Round(time.perf_counter() - start, cpu(os.getpid()) - busy)


async def through_client(executor: ShellExecutor, count: int, in_flight: int) -> Round:
    context = NullContext()
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            result = await executor.execute(context)
            assert result.exit_code == 0, result

    pids = (os.getpid(), executor._client.pid)
    busy, start = cpu(*pids), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return Round(time.perf_counter() - start, cpu(*pids) - busy)


async def flood(executor: ShellExecutor, size: int) -> float:
    """Return MB/s of one command that prints `size` bytes."""
    context = NullContext(f"head -c {size} /dev/zero")
    start = time.perf_counter()
    await executor.execute(context)
    assert context.size == size
    return size / 1e6 / (time.perf_counter() - start)


def report(name: str, rounds: list[Round], count: int) -> float:
    rate = count / statistics.median(r.seconds for r in rounds)
    used = statistics.median(r.cpu for r in rounds) / count * 1e6
    print(f"{name:8} {rate:7.0f}/s   CPU {used:5.0f} us a task, children included")
    return used


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    executor = ShellExecutor()
    await executor.start({})
    pid = executor._client.pid
    await through_client(executor, 100, options.in_flight)
    bares, clients, ratios = [], [], []
    own = 0.0
    supervisor = 0.0
    for _ in range(options.rounds):
        bares.append(bare(options.count, options.in_flight))
        before = time.process_time()
        spawner_before = cpu_of(pid)
        clients.append(await through_client(executor, options.count, options.in_flight))
        own += time.process_time() - before
        supervisor += cpu_of(pid) - spawner_before
        ratios.append(bares[-1].seconds / clients[-1].seconds)
    total = options.count * options.rounds
    bare_cpu = report("bare", bares, options.count)
    client_cpu = report("client", clients, options.count)
    print(f"CPU      {bare_cpu / client_cpu:.3f} of the client's is the bare loop's")
    print(f"ratio    {statistics.median(ratios):.3f}   {[round(r, 3) for r in ratios]}")
    print(f"own CPU  server {own / total * 1e6:.0f} us, spawner {supervisor / total * 1e6:.0f} us")
    print(f"flood    {await flood(executor, 10**9):.0f} MB/s")
    print(f"max RSS  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    await executor.close()


if __name__ == "__main__":
    asyncio.run(main())
