"""SQLite: no list ever walks a whole table, but for the newest-first walk that a limit ends."""

from __future__ import annotations

from itertools import product

import pytest

from taskhub.adapters.sqlite import audit, commit, expiry, lists, logs, numbered, open_sqlite, runs
from taskhub.domain.audit import Outcome
from taskhub.domain.event import EventName
from taskhub.domain.task import Status
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import EventQuery, NumberedQuery, RunQuery, TaskQuery
from taskhub.testing.store_samples import T0

TABLES = {"runs", "task_runs", "events", "outputs", "chunks", "heads", "audit", *"cetor"}
VALUES = {"run_id": "r", "task_id": "t", "after": 1, "from": 1, "limit": 10, "before": 5}


@pytest.fixture
async def stores(tmp_path):
    async with open_sqlite(tmp_path, sync="OFF") as stores:
        yield stores


async def plan(store, text: str, values=()) -> list[str]:
    query = f"EXPLAIN QUERY PLAN {text}"
    rows = await store._database.read(lambda c: c.execute(query, values).fetchall())
    return [row[3] for row in rows]


def scans(steps: list[str]) -> list[str]:
    """Return the steps that walk a table, those over a query's own results left out."""
    tables = (
        "runs",
        "task_runs",
        "events",
        "outputs",
        "chunks",
        "heads",
        "audit",
        "c",
        "e",
        "t",
        "o",
        "r",
    )
    return [step for step in steps if step.startswith("SCAN") and step.split()[1] in tables]


async def test_lists_of_runs(stores):
    for run_id, name, start, end, before in product(
        (None, "r"), (None, "n"), (None, T0), (None, T0), (None, 5)
    ):
        query = RunQuery(run_id=run_id, name=name, start_ts_ms=start, end_ts_ms=end)
        steps = await plan(stores.runs, *lists.runs_query(query, 10, before))
        walks = scans(steps)
        if any(value is not None for value in (run_id, start, end, before)):
            assert walks == [], (query, steps)
        else:
            assert walks == ["SCAN runs"], "by the primary key, up to the limit"
            assert not any("TEMP B-TREE" in step for step in steps), steps


async def test_lists_of_task_runs(stores):
    for run_id, name, before in product((None, "r"), (None, "n"), (None, 5)):
        query = TaskQuery(run_id=run_id, name=name)
        steps = await plan(stores.runs, *lists.tasks_query(query, 10, before))
        expected = ["SCAN task_runs"] if (run_id, name, before) == (None, None, None) else []
        assert scans(steps) == expected, (query, steps)
        assert not any("TEMP B-TREE" in step for step in steps), steps


async def test_lists_of_simple_tasks(stores):
    for status, name, number, before in product(
        (None, Status.PENDING), (None, "n"), (None, 3), (None, 5)
    ):
        query = NumberedQuery(status=status, name=name, number=number)
        steps = await plan(stores.runs, *numbered.query(query, 10, before))
        assert not any("TEMP B-TREE" in step for step in steps), (query, steps)
        assert scans(steps) == [], (query, steps)
        is_walk_by_status = any("task_runs_number (status=?" in step for step in steps)
        assert is_walk_by_status == (status is not None and number is None), (query, steps)
        if number is not None:
            assert sum("runs_number (number=?" in step for step in steps) == 2, (query, steps)


async def test_the_number_of_a_simple_task_is_looked_up(stores):
    steps = await plan(stores.runs, runs.LAST_NUMBER)
    assert any("SEARCH sequences USING PRIMARY KEY" in step for step in steps), steps


async def test_lists_of_events(stores):
    for run_id, task_id, event, start, before in product(
        (None, "r"), (None, "t"), (None, EventName.RUN_END), (None, T0), (None, 5)
    ):
        query = EventQuery(run_id=run_id, task_id=task_id, event=event, start_ts_ms=start)
        steps = await plan(stores.runs, *lists.events_query(query, 10, before))
        given = [run_id, task_id, event, start, before]
        expected = ["SCAN events"] if given == [None] * 5 else []
        assert scans(steps) == expected, (query, steps)
        if start is None or run_id or task_id:
            assert not any("TEMP B-TREE" in step for step in steps), (query, steps)


@pytest.mark.parametrize("text", [lists.HISTORY, lists.LOAD, commit.KNOWN_RUNS, runs.OUTPUTS])
async def test_lookups_of_runs(stores, text):
    values = ("[]", "[]")[: text.count("?")] if "?" in text else VALUES
    assert scans(await plan(stores.runs, text, values)) == []


@pytest.mark.parametrize("text", [logs.READ, logs.READ_TASK, logs.OF_RUN, logs.OF_TASK, logs.HEADS])
async def test_lookups_of_lines(stores, text):
    steps = await plan(stores.logs, text, VALUES)
    assert scans(steps) == [], steps


async def test_heads_come_in_their_order_without_sorting(stores):
    steps = await plan(stores.logs, logs.HEADS, VALUES)
    assert any("INDEX heads_ord (ord>?)" in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


@pytest.mark.parametrize("text", [expiry.UNLIST, *expiry.SWEEPS])
async def test_expiry_of_runs(stores, text):
    steps = await plan(stores.runs, text)
    assert scans(steps) == [], steps


async def test_expiry_walks_by_age(stores):
    steps = await plan(stores.runs, expiry.MARK, (T0, 10))
    assert any("USING INDEX runs_ended" in step for step in steps), steps
    steps = await plan(stores.logs, logs.OLDEST, ("[]", 10))
    assert any("INDEX heads_age" in step for step in steps), steps
    assert scans(await plan(stores.logs, logs.SWEEP)) == []


async def test_lists_of_the_audit(stores):
    for actor, action, target, outcome, start, before in product(
        (None, "a"), (None, "b"), (None, "c"), (None, *Outcome), (None, T0), (None, 5)
    ):
        query = AuditQuery(
            actor=actor, action=action, target=target, outcome=outcome, start_ts_ms=start
        )
        steps = await plan(stores.audit, *audit.entries_query(query, 10, before))
        is_walk = not (actor or action or target or start or before) and outcome != Outcome.DENIED
        assert scans(steps) == (["SCAN audit"] if is_walk else []), (query, steps)
        if start is None or actor or action or target or outcome == Outcome.DENIED:
            assert not any("TEMP B-TREE" in step for step in steps), (query, steps)


async def test_expiry_of_the_audit_walks_by_age(stores):
    steps = await plan(stores.audit, audit.EXPIRE, (T0, 10))
    assert any("INDEX audit_time (ts_ms<?)" in step for step in steps), steps
    assert scans(steps) == [], steps
