"""The list of simple tasks: runs that have a number, each with its one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from taskhub.adapters.sqlite.lists import RUN_COLUMNS, TASK_COLUMNS, to_run, to_task
from taskhub.ports.store import NumberedQuery, NumberedTask


def _of(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{name}" for name in columns.split(", "))


RUN_WIDTH: Final = len(RUN_COLUMNS.split(", "))
ROWS: Final = f"""SELECT json_group_array(json_array(
    r.number, {_of("r", RUN_COLUMNS)}, {_of("t", TASK_COLUMNS)}))
    FROM runs AS r INDEXED BY runs_number CROSS JOIN task_runs AS t ON t.id = r.first_task_id
    WHERE r.number > 0 AND r.number IN"""  # noqa: S608  # constants
BY_NUMBER: Final = "runs AS r INDEXED BY runs_number"
ONE: Final = f"{BY_NUMBER} CROSS JOIN task_runs AS t ON t.id = r.first_task_id"
OF_STATUS: Final = """task_runs AS t INDEXED BY task_runs_number
    CROSS JOIN runs AS r INDEXED BY runs_number ON r.number = t.number"""


def query(wanted: NumberedQuery, limit: int, before: int | None) -> tuple[str, dict[str, Any]]:
    """Return the query and its values; the walk is by status if one is given, else by number."""
    name = None if wanted.name is None else wanted.name.casefold()
    status = None if wanted.status is None else wanted.status.value
    source, table, order = BY_NUMBER, "r", "ORDER BY r.number DESC"
    if wanted.number is not None:
        source, order = ONE, ""
    elif status is not None:  # the walk ends early only by the column of its own index
        source, table, order = OF_STATUS, "t", "ORDER BY t.number DESC"
    conditions = {
        "status": (status, "t.status = :status"),
        "name": (name, "instr(r.folded, :name)"),
        "number": (wanted.number, "r.number = :number"),
        "before": (before, f"{table}.number < :before"),
    }
    values = {key: value for key, (value, _) in conditions.items() if value is not None}
    given = [conditions[key][1] for key in values]
    where = " AND ".join(["r.number > 0", f"{table}.number > 0", *given])
    keys = f"SELECT r.number FROM {source} WHERE {where} {order} LIMIT :limit"  # noqa: S608
    return f"{ROWS} ({keys})", {**values, "limit": limit + 1}


def to_numbered(row: Sequence[Any]) -> NumberedTask:
    """Return a row of `ROWS` as the port has it."""
    run, task = row[1 : 1 + RUN_WIDTH], row[1 + RUN_WIDTH :]
    return NumberedTask(header=to_run(run).header, task=to_task(task))
