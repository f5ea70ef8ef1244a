"""Writing a batch: in a few statements, whatever it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from taskhub.adapters.sqlite.audit import add_entries
from taskhub.adapters.sqlite.rows import encode_json, fetch, insert, select, to_text, update
from taskhub.domain.dag import DagSpec
from taskhub.domain.event import Event
from taskhub.domain.result import NO_EXIT_CODE
from taskhub.domain.run import RunHeader, RunStatus
from taskhub.domain.task import Status
from taskhub.errors import ConflictError
from taskhub.ports.store import Batch, RunUpdate, TaskUpdate

RUN_STATE: Final = (
    "status, start_ts_ms, end_ts_ms, success_count, failed_count, skipped_count, message"
)
TASK_STATE: Final = (
    "status, attempt, exit_code, duration_ms, message, start_ts_ms, end_ts_ms, metadata"
)
RUN_HEADER: Final = (
    "ord, run_id, name, folded, source, created_ms, first_task_id, owner, parent_run_id, "
    "unique_key, dag, total, number"
)
INSERT_RUNS: Final = insert("runs", f"{RUN_HEADER}, {RUN_STATE}")
INSERT_TASKS: Final = insert("task_runs", f"id, run_id, task_id, name, spec, number, {TASK_STATE}")
INSERT_EVENTS: Final = insert(
    "events",
    "id, run_id, seq, ts_ms, name, task_id, extra",
    "ON CONFLICT (run_id, seq) DO NOTHING",
)
UPDATE_RUNS: Final = update("runs", f"run_id, {RUN_STATE}")
UPDATE_TASKS: Final = update("task_runs", f"id, {TASK_STATE}")
PUT_OUTPUTS: Final = insert(
    "outputs",
    "id, stdout, stderr",
    "ON CONFLICT (id) DO UPDATE SET stdout = excluded.stdout, stderr = excluded.stderr",
)
RAISE_NUMBER: Final = """INSERT INTO sequences (name, value) VALUES ('number', ?)
    ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"""
KNOWN_RUNS: Final = select(
    "run_id, unique_key",
    """FROM runs WHERE run_id IN (SELECT value FROM json_each(?1))
    UNION SELECT run_id, unique_key FROM runs
    WHERE unique_key <> '' AND unique_key IN (SELECT value FROM json_each(?2))""",
)


def write_batch(connection: sqlite3.Connection, batch: Batch) -> None:
    """Write a batch within the caller's transaction.

    A run that is there is not inserted again, for it came with all its tasks in one commit. Its
    updates and events are then taken as those of any other run.
    """
    runs = {run.run_id: run for run in batch.runs}
    tasks = {task.id: task for task in batch.tasks}
    new = _unknown(connection, batch.new_runs) if batch.new_runs else []
    if new:
        _insert_runs(connection, new, runs, tasks)
    if number := max(batch.last_number, *(header.number for header, _ in batch.new_runs), 0):
        connection.execute(RAISE_NUMBER, (number,))
    UPDATE_RUNS.execute(connection, [(run.run_id, *_run_state(run)) for run in runs.values()])
    UPDATE_TASKS.execute(connection, [(task.id, *_task_state(task)) for task in tasks.values()])
    outputs = [(each.id, each.output.stdout, each.output.stderr) for each in batch.outputs]
    PUT_OUTPUTS.execute(connection, outputs)
    INSERT_EVENTS.execute(connection, [event_row(event) for event in batch.events])
    if batch.audit:
        add_entries(connection, batch.audit)


def _unknown(
    connection: sqlite3.Connection, new_runs: Sequence[tuple[RunHeader, DagSpec]]
) -> list[tuple[RunHeader, DagSpec]]:
    headers = [header for header, _ in new_runs]
    ids = encode_json([header.run_id for header in headers]).decode()
    keys = encode_json([header.unique_key for header in headers if header.unique_key]).decode()
    known = dict(fetch(connection, KNOWN_RUNS, (ids, keys)))
    owners = {key: run_id for run_id, key in known.items()}
    for header in headers:
        key = header.unique_key
        if key and owners.setdefault(key, header.run_id) != header.run_id:
            raise ConflictError(f"the key {key!r} belongs to run {owners[key]}")
    return [(header, dag) for header, dag in new_runs if header.run_id not in known]


def _insert_runs(
    connection: sqlite3.Connection,
    new: Sequence[tuple[RunHeader, DagSpec]],
    runs: dict[str, RunUpdate],
    tasks: dict[int, TaskUpdate],
) -> None:
    """Insert runs with their last state, and take their updates out of the dictionaries."""
    run_rows: list[tuple[Any, ...]] = []
    task_rows: list[tuple[Any, ...]] = []
    for header, dag in new:
        run = runs.pop(header.run_id, None) or RunUpdate(
            header.run_id, RunStatus.RUNNING, 0, 0, 0, 0, 0, ""
        )
        run_rows.append((*_header_row(header, dag), *_run_state(run)))
        for i, spec in enumerate(dag.tasks, header.first_task_id):
            state = PENDING if (task := tasks.pop(i, None)) is None else _task_state(task)
            text = encode_json(spec).decode()
            task_rows.append((i, header.run_id, spec.id, spec.name, text, header.number, *state))
    INSERT_RUNS.execute(connection, run_rows)
    INSERT_TASKS.execute(connection, task_rows)


PENDING: Final = (Status.PENDING.value, 0, NO_EXIT_CODE, 0, "", 0, 0, "")


def _header_row(header: RunHeader, dag: DagSpec) -> tuple[Any, ...]:
    return (
        header.ord,
        header.run_id,
        header.name,
        header.name.casefold(),
        header.source.value,
        header.created_ms,
        header.first_task_id,
        header.owner,
        header.parent_run_id,
        header.unique_key,
        to_text(replace(dag, tasks=()).to_json()),
        len(dag.tasks),
        header.number,
    )


def _run_state(run: RunUpdate) -> tuple[Any, ...]:
    return (run.status.value, *run[2:])


def _task_state(task: TaskUpdate) -> tuple[Any, ...]:
    return (task.status.value, *task[4:10], to_text(task.metadata))


def event_row(event: Event) -> tuple[Any, ...]:
    """Return an event as the columns of its table."""
    return (*event[:4], event.name.value, event.task_id, to_text(event.extra))
