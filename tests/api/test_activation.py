"""A start that the store interrupts is repeated, and takes up every run once."""

from __future__ import annotations

import asyncio

from taskhub.adapters.memory import MemoryStores
from taskhub.bootstrap import serve
from taskhub.domain import rules
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event, EventName
from taskhub.domain.run import Run
from taskhub.domain.task import TaskSpec
from taskhub.ports.store import Batch, RunUpdate, TaskUpdate
from taskhub.testing.faults import Fault, FaultyRunStore
from taskhub.testing.store_samples import T0, header

NOOP = TaskSpec(
    id="a", name="a", exec_type="Local", exec_command="noop", idempotent=True, retry_delay_ms=0
)


def left_by_a_crash():
    """Return the commit of a run whose one attempt was under way."""
    run = Run(header(1), DagSpec(name="left", tasks=(NOOP,)))
    events = []

    def record(run, name, task_id, extra):
        event = Event(len(events) + 1, run.id, run.seq + 1, T0, name, task_id, extra)
        run.apply(event)
        events.append(event)

    rules.start_run(run, record)
    rules.settle(run, record, 10)
    task = run.tasks["a"]
    rules.start_attempt(run, task, record, attempt_key="k", epoch=1)
    return Batch(
        new_runs=[(run.header, run.spec)],
        runs=[RunUpdate.of(run)],
        tasks=[TaskUpdate.of(run, task)],
        events=events,
    )


async def test_a_start_that_the_store_interrupts_takes_up_every_run_once(config):
    stores = MemoryStores()
    await stores.runs.commit(left_by_a_crash())
    run_id = header(1).run_id
    stores.runs = FaultyRunStore(stores.runs)
    stores.runs.fail("last_number", Fault.REFUSED)
    stores.runs.fail("history", Fault.REFUSED)
    async with serve(config, stores=stores) as server:
        assert stores.runs.calls.count("last_number") == 3
        async with asyncio.timeout(30):
            await server.runs.wait(run_id)
    names = [event.name for event in await stores.runs.history(run_id)]
    assert names.count(EventName.ATTEMPT_START) == 2
    assert names.count(EventName.ATTEMPT_END) == 2, "lost once, then a success"
    assert names[-1] is EventName.RUN_END
