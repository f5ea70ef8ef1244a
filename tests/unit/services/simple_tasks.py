"""Simple tasks on a real engine over a store in memory, and sessions that hear of them."""

from __future__ import annotations

from random import Random

from taskhub.adapters.memory import MemoryStores
from taskhub.domain.task import TaskSpec
from taskhub.services.live import LiveHub, LiveLimits
from taskhub.services.runs import RunService
from taskhub.services.task_changes import TaskChanges
from taskhub.services.tasks import TaskService
from taskhub.testing.clock import FakeClock
from taskhub.testing.faults import FaultyRunStore
from tests.unit.engine.conftest import Engine, Script


def spec(name="t", *, kind=0, params=None, **more):
    metadata = {"task": {"type": kind, "params": params or {}}}
    return TaskSpec(id="0", name=name, exec_type="Script", metadata=metadata, **more)


class World:
    """One server at a time; `restart` is a crash and the start of the next."""

    def __init__(self, **limits: int) -> None:
        self.limits = LiveLimits(**limits)
        self.clock = FakeClock()
        self.stores = MemoryStores()
        self.epoch = 0

    async def start(self):
        self.epoch += 1
        self.store = FaultyRunStore(self.stores.runs)
        self.script = Script()
        self.engine = Engine(self.stores, self.clock, self.script, runs=self.store)
        await self.engine.start(self.epoch)
        engine = self.engine
        self.hub = LiveHub(engine.bus, self.stores.logs, self.store, self.clock, self.limits)
        self.changes = TaskChanges(engine.bus, self.hub)
        self.changes.follow(engine.supervisor.runs.values())
        self.runs = RunService(
            store=self.store,
            supervisor=engine.supervisor,
            clock=self.clock,
            ids=engine.ids,
            random=Random(self.epoch),
            watch=self.changes.watch,
        )
        self.tasks = TaskService(store=self.store, runs=self.runs, supervisor=engine.supervisor)
        await self.tasks.load()
        return self

    async def restart(self):
        await self.engine.kill()
        return await self.start()

    async def ended(self, number):
        """Return a task once it has ended."""
        task = await self.tasks.get(number)
        await self.runs.wait(task.header.run_id)
        return await self.tasks.get(number)
