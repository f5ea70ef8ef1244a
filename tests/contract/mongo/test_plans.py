"""No query walks a collection or sorts by hand: MongoDB's own profile of all that was asked."""

from __future__ import annotations

from itertools import product

import pytest

from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.domain.event import EventName
from taskhub.domain.result import Output
from taskhub.domain.task import Status
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import EventQuery, NumberedQuery, RunQuery, TaskOutput, TaskQuery
from taskhub.testing.store_samples import (
    T0,
    chunk,
    ended_batch,
    event,
    full_batch,
    run_id,
    task_run_id,
)

WHOLE = {"dying", "dying_lines", "revoked", "accounts", "system.profile"}
"""Collections that are read whole on purpose: they hold what is being deleted, or a few rows."""
RUNS = 300


@pytest.fixture
async def filled(stores):
    for number in range(1, RUNS + 1):
        batch = full_batch(number, unique_key=f"k{number}")
        batch.events += [event(number, seq, EventName.NODE_READY, "t1") for seq in range(3, 6)]
        await stores.runs.commit(batch)
    await stores.logs.append(
        [chunk(i, 1 + i % 10, ["x"], run=f"r{i // 10}") for i in range(1, 10 * RUNS)]
    )
    await stores.audit.append(
        [
            AuditEntry(i, f"k{i}", T0 + i, f"u{i % 3}", "login", "t", "a", Outcome.OK, {})
            for i in range(1, RUNS)
        ]
    )
    await stores.runs.active()
    await stores.logs.last_id()
    return stores


async def profile(mongod, ask):
    """Return what MongoDB did while `ask` was under way."""
    with mongod.client() as client:
        database = client["contract"]
        database.command("profile", 0)
        database["system.profile"].drop()
        database.command("profile", 2)
        await ask()
        database.command("profile", 0)
        return [
            op
            for op in database["system.profile"].find()
            if op["ns"].split(".", 1)[1] not in WHOLE and "planSummary" in op
        ]


def walks(operations):
    """Return those that walked a collection or sorted by hand."""
    return [
        (op["ns"], op["op"], op["planSummary"], op.get("command"))
        for op in operations
        if "COLLSCAN" in op["planSummary"] or op.get("hasSortStage")
    ]


def greediest(operations):
    """Return the most rows that one of them looked at for each that it returned."""
    return max(op.get("docsExamined", 0) / max(1, op.get("nreturned", 0)) for op in operations)


def longest(operations):
    """Return the most index keys that one of them walked over."""
    return max(op.get("keysExamined", 0) for op in operations)


async def test_lists_of_runs_tasks_and_events(filled, mongod):
    async def ask():
        runs = filled.runs
        for run, name, start, end, before in product(
            (None, run_id(7)), (None, "n"), (None, T0), (None, T0), (None, 5_000_000)
        ):
            query = RunQuery(run_id=run, name=name, start_ts_ms=start, end_ts_ms=end)
            await runs.runs(query, 10, before)
        for run, name, before in product((None, run_id(7)), (None, "name1"), (None, 5_000_000)):
            await runs.task_runs(TaskQuery(run_id=run, name=name), 10, before)
        for run, task, name, start, before in product(
            (None, run_id(7)), (None, "t1"), (None, EventName.TASK_END), (None, T0), (None, 5**9)
        ):
            query = EventQuery(run_id=run, task_id=task, event=name, start_ts_ms=start)
            await runs.events(query, 10, before)
        for status, name, before in product((None, Status.FAILED), (None, "n"), (None, 5)):
            await runs.numbered(NumberedQuery(status=status, name=name), 10, before)

    operations = await profile(mongod, ask)
    assert len(operations) > 90
    assert walks(operations) == []
    by_name = [op for op in operations if "folded" not in op.get("command", {}).get("filter", {})]
    assert len(by_name) < len(operations), "a part of a name is looked for in the index's keys"
    assert longest(by_name) <= 60, "ten rows are wanted of 300 runs and 1,500 events"


async def test_lookups(filled, mongod):
    async def ask():
        runs, logs = filled.runs, filled.logs
        await runs.run(run_id(7))
        await runs.load(run_id(7))
        await runs.history(run_id(7), after=2)
        await runs.run_by_key("k7")
        await runs.outputs([task_run_id(7, 0)])
        await runs.active()
        await runs.last_id()
        await runs.last_number()
        await logs.read("t", "r5", 3, 10)
        await logs.read_task("t", 5, 10)
        await logs.chunks("r5", 3, 10)
        await logs.chunks("r5", 3, 10, "t")
        await logs.last_seq("t", "r5")
        await logs.heads(3, 10)

    operations = await profile(mongod, ask)
    assert walks(operations) == []
    looked_up = [op for op in operations if "aggregate" not in op.get("command", {})]
    assert greediest([op for op in looked_up if op["ns"] != "contract.runs"]) <= 2


async def test_writes_and_expiry(filled, mongod):
    async def ask():
        batch = ended_batch(RUNS + 1, T0 + 1)
        output = TaskOutput(task_run_id(RUNS + 1, 0), run_id(RUNS + 1), Output(stdout="x"))
        batch.outputs = [output]
        await filled.runs.commit(batch)
        await filled.logs.append([chunk(10 * RUNS + 1, 1, ["x"], run="new")])
        await filled.runs.expire(T0 + 2)
        await filled.logs.expire(T0 + 1, 100)
        await filled.audit.expire(T0 + 10)

    operations = await profile(mongod, ask)
    assert walks(operations) == []


async def test_the_audit(filled, mongod):
    async def ask():
        for actor, action, target, outcome, start, before in product(
            (None, "u1"), (None, "login"), (None, "t"), (None, Outcome.OK), (None, T0), (None, 99)
        ):
            await filled.audit.entries(
                AuditQuery(
                    actor=actor, action=action, target=target, outcome=outcome, start_ts_ms=start
                ),
                10,
                before,
            )

    assert walks(await profile(mongod, ask)) == []


async def test_accounts(stores, mongod):
    async def ask():
        await stores.accounts.tokens("somebody")
        await stores.accounts.revoked(T0)
        await stores.accounts.revision()

    assert walks(await profile(mongod, ask)) == []
