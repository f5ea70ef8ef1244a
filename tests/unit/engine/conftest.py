from __future__ import annotations

import asyncio
from random import Random

import pytest

from taskhub.adapters.memory import MemoryStores
from taskhub.domain.dag import DagSpec
from taskhub.domain.ids import IdSource
from taskhub.domain.task import TaskSpec
from taskhub.engine.bus import Bus, Topic
from taskhub.engine.journal import Journal
from taskhub.engine.launcher import Launcher
from taskhub.engine.output import LogWriter, OutputLimits
from taskhub.engine.recovery import recover
from taskhub.engine.scheduler import Scheduler
from taskhub.engine.supervisor import Supervisor
from taskhub.engine.timers import Timers
from taskhub.plugin_api import Executor, Result, Stream
from taskhub.ports.executor import Installed
from taskhub.services.runs import RunService
from taskhub.testing.clock import FakeClock


def task(name, deps="", **more):
    more.setdefault("exec_type", "Script")
    return TaskSpec(id=name, name=name, deps=tuple(deps.split()), **more)


class Script(Executor):
    """Does what the test says: attempts wait until they are told how to end."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.live: dict[str, asyncio.Future] = {}
        self.ignores_cancel = False
        self.instant: Result | None = None
        self.output = b""

    async def execute(self, context):
        name = f"{context.task.id}#{context.attempt}"
        self.started.append(name)
        if self.output:
            context.write(Stream.STDOUT, self.output)
        if self.instant is not None:
            return self.instant
        future = self.live[name] = asyncio.get_running_loop().create_future()
        while True:
            try:
                return await asyncio.shield(future) if self.ignores_cancel else await future
            except asyncio.CancelledError:
                self.stopped.append(name)
                if not self.ignores_cancel:
                    raise

    def end(self, name, result=None):
        future = self.live.pop(name)
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result or Result())


class Engine:
    """One server's engine over a store that outlives it."""

    def __init__(self, stores, clock, executor, *, limit=8, limits=None, runs=None, queued=10_000):
        self.stores = stores
        self.clock = clock
        self.script = executor
        self.bus = Bus()
        self.events = []
        self.ids = IdSource()
        self.limit = limit
        self.queued = queued
        self.limits = limits or OutputLimits()
        self.run_store = runs or stores.runs

    async def start(self, epoch=1):
        ids = self.ids
        ids.take(await self.stores.runs.last_id())
        executors = {
            "script": Installed(name="Script", source="t", version="1", executor=self.script)
        }
        self.writer = LogWriter(self.stores.logs, self.bus, self.clock, IdSource())
        self.journal = Journal(self.run_store, self.bus, self.clock, ids)
        self.timers = Timers(self.clock)
        self.launcher = Launcher(executors, self.writer, self.timers, self.limits)
        self.supervisor = Supervisor(
            journal=self.journal,
            launcher=self.launcher,
            timers=self.timers,
            scheduler=Scheduler(self.limit),
            epoch=epoch,
        )
        self.runs = RunService(
            store=self.run_store,
            supervisor=self.supervisor,
            clock=self.clock,
            ids=ids,
            random=Random(epoch),
            queued_limit=self.queued,
        )
        await recover(self.stores.runs, self.supervisor)
        loops = {"writer": self.writer, "timers": self.timers, "supervisor": self.supervisor}
        self.tasks = [asyncio.create_task(o.run(), name=n) for n, o in loops.items()]
        return self

    async def kill(self):
        """Stop at once, as kill -9 would: nothing more is stored."""
        for t in self.tasks:
            t.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.launcher.close()

    async def submit(self, *tasks, policy=None, max_parallel=4, **more):
        spec = DagSpec(name="d", tasks=tasks, max_parallel=max_parallel)
        if policy:
            spec = DagSpec(name="d", tasks=tasks, max_parallel=max_parallel, fail_policy=policy)
        return await self.runs.submit(spec, **more)

    async def until(self, condition):
        """Let the loop turn until the condition holds."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0)
        pytest.fail(f"never came true; started: {self.script.started}")

    async def until_started(self, *names):
        await self.until(lambda: set(names) <= set(self.script.started))

    def is_idle(self):
        return self.supervisor.running == 0

    async def names(self, run_id):
        return [event.name for event in await self.stores.runs.history(run_id)]

    def watch(self, run_id):
        self.bus.events.add(Topic("", run_id), self.events.append)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def stores():
    return MemoryStores()


@pytest.fixture
async def engine(stores, clock, script):
    engine = await Engine(stores, clock, script).start()
    yield engine
    await engine.kill()
