"""The lists of runs, task_runs and events: what is asked, by which index, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from taskhub.adapters.sqlite.rows import decode_json, from_text, select
from taskhub.domain.event import NOTHING, Event, EventName
from taskhub.domain.run import RunHeader, RunStatus, Source
from taskhub.domain.task import Status, TaskSpec
from taskhub.ports.store import (
    EventQuery,
    Page,
    RunQuery,
    RunRow,
    RunUpdate,
    TaskQuery,
    TaskRow,
    TaskUpdate,
)

T = TypeVar("T")

RUN_COLUMNS: Final = (
    "ord, run_id, name, source, created_ms, first_task_id, owner, parent_run_id, unique_key, "
    "total, number, status, start_ts_ms, end_ts_ms, success_count, failed_count, skipped_count, "
    "message"
)
TASK_COLUMNS: Final = (
    "id, run_id, task_id, status, attempt, exit_code, duration_ms, message, start_ts_ms, "
    "end_ts_ms, metadata, spec"
)
EVENT_COLUMNS: Final = "id, run_id, seq, ts_ms, name, task_id, extra"
HISTORY: Final = select(
    EVENT_COLUMNS, "FROM events WHERE run_id = :run_id AND seq > :after ORDER BY seq LIMIT :limit"
)
LOAD: Final = f"""SELECT json_array({RUN_COLUMNS}), dag,
    (SELECT json_group_array(json_array(t.id, t.spec)) FROM task_runs AS t
     WHERE t.id >= first_task_id AND t.id < first_task_id + total)
    FROM runs WHERE run_id = :run_id"""  # noqa: S608  # constants


def runs_query(query: RunQuery, limit: int, before: int | None) -> tuple[str, dict[str, Any]]:
    """Return the query and its values; the walk is by time if one is given, else newest first."""
    name = None if query.name is None else query.name.casefold()
    conditions = {
        "run_id": (query.run_id, "run_id = :run_id"),
        "name": (name, "instr(folded, :name)"),
        "start": (query.start_ts_ms, "start_ts_ms >= :start"),
        "end": (query.end_ts_ms, "start_ts_ms <= :end"),
        "before": (before, "ord < :before"),
    }
    source = "runs NOT INDEXED"
    if query.run_id is not None:
        source = "runs INDEXED BY runs_id"
    elif query.start_ts_ms is not None or query.end_ts_ms is not None:
        source = "runs INDEXED BY runs_start"
    return newest(RUN_COLUMNS, "ord", source, conditions, limit)


def tasks_query(query: TaskQuery, limit: int, before: int | None) -> tuple[str, dict[str, Any]]:
    """Return the query and its values; the tasks of a run have consecutive ids."""
    first = "(SELECT first_task_id FROM runs WHERE run_id = :run_id)"
    last = "(SELECT first_task_id + total - 1 FROM runs WHERE run_id = :run_id)"
    conditions = {
        "run_id": (query.run_id, f"id >= {first} AND id <= {last}"),
        "name": (query.name, "name = :name"),
        "before": (before, "id < :before"),
    }
    is_by_name = query.name is not None and query.run_id is None
    source = "task_runs INDEXED BY task_runs_name" if is_by_name else "task_runs NOT INDEXED"
    return newest(TASK_COLUMNS, "id", source, conditions, limit)


FIRST_OF_RUN: Final = "(SELECT id FROM events WHERE run_id = :run_id ORDER BY seq LIMIT 1)"
LAST_OF_RUN: Final = "(SELECT id FROM events WHERE run_id = :run_id ORDER BY seq DESC LIMIT 1)"
SEQ_OF_CURSOR: Final = """coalesce(
    (SELECT seq FROM events WHERE id = :before AND run_id = :run_id),
    (SELECT max(seq) + 1 FROM events WHERE run_id = :run_id AND id < :before))"""


def events_query(query: EventQuery, limit: int, before: int | None) -> tuple[str, dict[str, Any]]:
    """Return the query and its values; within a run, ids grow as `seq` does."""
    conditions = {
        "run_id": (query.run_id, "run_id = :run_id"),
        "task_id": (query.task_id, "task_id = :task_id"),
        "name": (query.event and query.event.value, "name = :name"),
        "start": (query.start_ts_ms, "ts_ms >= :start"),
        "end": (query.end_ts_ms, "ts_ms <= :end"),
        "before": (before, "id < :before"),
    }
    order = "id"
    if query.run_id is not None and query.task_id is not None:
        source = "events INDEXED BY events_task"
        window = f"run_id = :run_id AND id >= {FIRST_OF_RUN} AND id <= {LAST_OF_RUN}"
        conditions["run_id"] = (query.run_id, window)
    elif query.run_id is not None:
        source, order = "events INDEXED BY events_run", "seq"
        conditions["before"] = (before, f"seq < {SEQ_OF_CURSOR}")
    elif query.task_id is not None:
        source = "events INDEXED BY events_task"
    elif query.start_ts_ms is not None or query.end_ts_ms is not None:
        source = "events INDEXED BY events_time"
    elif query.event is not None:
        source = "events INDEXED BY events_name"
    else:
        source = "events NOT INDEXED"
    return newest(EVENT_COLUMNS, "id", source, conditions, limit, order)


def newest(
    columns: str,
    key: str,
    source: str,
    conditions: Mapping[str, tuple[object, str]],
    limit: int,
    order: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Find the keys first, in an index if it has all that is asked, and only then the rows."""
    values = {name: value for name, (value, _) in conditions.items() if value is not None}
    where = " AND ".join(conditions[name][1] for name in values) or "true"
    table = source.split(maxsplit=1)[0]
    keys = f"SELECT {key} FROM {source} WHERE {where} ORDER BY {order or key} DESC LIMIT :limit"  # noqa: S608
    text = select(columns, f"FROM {table} WHERE {key} IN ({keys})")
    return text, {**values, "limit": limit + 1}


def page(rows: list[list[Any]], limit: int, convert: Callable[[list[Any]], T]) -> Page[T]:
    """Return what is wanted of up to `limit` + 1 rows that begin with their key."""
    rows.sort(key=lambda row: -row[0])
    more = len(rows) > limit > 0
    rows = rows[:limit]
    return Page(items=[convert(row) for row in rows], next_before=rows[-1][0] if more else None)


def to_run(row: Sequence[Any]) -> RunRow:
    """Return a row of `RUN_COLUMNS` as the port has it."""
    header = RunHeader(
        ord=row[0],
        run_id=row[1],
        name=row[2],
        source=Source(row[3]),
        created_ms=row[4],
        first_task_id=row[5],
        owner=row[6],
        parent_run_id=row[7],
        unique_key=row[8],
        number=row[10],
    )
    state = RunUpdate(row[1], RunStatus(row[11]), *row[12:])
    return RunRow(header=header, total=row[9], state=state)


def to_task(row: Sequence[Any]) -> TaskRow:
    """Return a row of `TASK_COLUMNS` as the port has it."""
    spec = TaskSpec.from_json(decode_json(row[11]))
    state = TaskUpdate._make([*row[:3], Status(row[3]), *row[4:10], from_text(row[10])])
    return TaskRow(spec=spec, state=state)


def to_event(row: Sequence[Any]) -> Event:
    """Return a row of `EVENT_COLUMNS` as the port has it."""
    extra = from_text(row[6]) if row[6] else NOTHING
    return Event(row[0], row[1], row[2], row[3], EventName(row[4]), row[5], extra)
