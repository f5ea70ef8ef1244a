"""What is not the same is found, in whatever kind, and named."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from taskhub.errors import ConflictError
from taskhub.ports.store import Page
from taskhub.services.migration import Kind, migrate
from taskhub.testing.store_samples import NASTY, chunk, run_id, segment
from tests.contract.migration.content import fill
from tests.contract.migration.stores import HastyClock, Notes, held_by, opened, wrapped


@pytest.fixture
async def source(tmp_path):
    async with opened("memory", tmp_path) as stores:
        await fill(stores)
        yield stores


class Lies:
    """For `wrapped`: what one method answers is changed."""

    def __init__(self, method, change):
        self._method = method
        self._change = change

    async def __call__(self, method, args, call):
        answer = await call()
        return self._change(answer) if method == self._method and answer else answer


def other_byte(outputs):
    return {i: replace(each, stdout=each.stdout.replace("u", "U")) for i, each in outputs.items()}


def less(items):
    return list(items)[:-1]


def fewer(page):
    return Page(items=less(page.items), next_before=page.next_before)


def other_line(chunks):
    return [change_line(each) if each.task_id == "t0" else each for each in chunks]


def change_line(stored):
    first, *rest = stored.segments
    lines = [first.lines[0] + "!", *first.lines[1:]]
    return replace(stored, segments=(replace(first, lines=lines), *rest))


def other_command(loaded):
    header, dag = loaded
    return header, replace(dag, tasks=(replace(dag.tasks[0], exec_command="rm"), *dag.tasks[1:]))


def other_message(page):
    items = [replace(row, state=row.state._replace(message="!")) for row in page.items]
    return Page(items=items, next_before=page.next_before)


LIES = {
    "an output's byte": ("outputs", other_byte, Kind.OUTPUTS, run_id(1)),
    "an output": ("outputs", lambda _: {}, Kind.OUTPUTS, run_id(2)),
    "an event": ("history", less, Kind.EVENTS, run_id(2)),
    "a line's text": ("chunks", other_line, Kind.LINES, f"t0 in run {run_id(1)}"),
    "a chunk": ("chunks", less, Kind.LINES, f"t1 in run {run_id(2)}"),
    "a pair": ("heads", less, Kind.LINES, "t0 in run gone"),
    "a command": ("load", other_command, Kind.RUNS, run_id(3)),
    "a run's message": ("runs", other_message, Kind.RUNS, run_id(3)),
    "a task's message": ("task_runs", other_message, Kind.TASKS, run_id(3)),
    "a task": ("task_runs", fewer, Kind.TASKS, run_id(3)),
    "an account": ("accounts", less, Kind.ACCOUNTS, NASTY),
    "an API token": ("tokens", less, Kind.TOKENS, "two"),
    "a revoked token": ("revoked", lambda _: {}, Kind.REVOKED, "jti"),
    "an entry": ("entries", fewer, Kind.AUDIT, "5"),
    "the number": ("last_number", lambda number: number - 1, Kind.NUMBER, "17"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_the_target_does_not_give_back_is_found_and_named(source, tmp_path, lie):
    method, change, kind, name = LIES[lie]
    async with opened("sqlite", tmp_path / "target") as target:
        liar = wrapped(target, Lies(method, change))
        reports = await migrate(source, liar, HastyClock(), Notes())
    (report,) = [report for report in reports if not report.is_same]
    assert report.kind == kind
    assert report.source.total != report.target.total
    assert any(name in example for example in report.differing.names)


async def test_how_lines_are_divided_into_chunks_does_not_matter(tmp_path):
    whole = replace(
        chunk(1, 1, ["a", "b", "c"]),
        segments=(segment(["a", "b", "c"], continued=[2]),),
    )
    parts = [
        chunk(1, 1, ["a"]),
        replace(chunk(2, 2, ["b", "c"]), segments=(segment(["b", "c"], continued=[1]),)),
    ]
    async with opened("memory", tmp_path) as source, opened("memory", tmp_path) as target:
        await source.logs.append([whole])
        await target.logs.append(parts)
        reports = await migrate(source, target, HastyClock(), Notes())
    assert [report.kind for report in reports if not report.is_same] == []


def edit(directory, file, *statements):
    with sqlite3.connect(directory / file) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE outputs SET stdout = 'oUt' WHERE id = 100001",
        f"DELETE FROM events WHERE run_id = '{run_id(2)}' AND seq = 2",
        f"UPDATE task_runs SET message = '' WHERE run_id = '{run_id(2)}' AND task_id = 't0'",
        f"UPDATE runs SET end_ts_ms = 1 WHERE run_id = '{run_id(2)}'",
    ],
    ids=["output", "event", "task", "run"],
)
async def test_a_damaged_copy_is_mended_by_the_next_call(source, tmp_path, statement):
    async with opened("sqlite", tmp_path) as target:
        await migrate(source, target, HastyClock(), Notes())
    edit(tmp_path, "taskhub.db", statement)
    async with opened("sqlite", tmp_path) as target:
        damaged = await held_by(target)
        reports = await migrate(source, target, HastyClock(), Notes())
        assert [report.kind for report in reports if not report.is_same] == []
        assert await held_by(target) == await held_by(source) != damaged


async def test_a_copy_with_other_lines_is_refused(source, tmp_path):
    async with opened("sqlite", tmp_path) as target:
        await migrate(source, target, HastyClock(), Notes())
    edit(tmp_path, "logs.db", "UPDATE chunks SET text = 'lATE' WHERE id = 11")
    async with opened("sqlite", tmp_path) as target:
        with pytest.raises(
            ConflictError, match=f"other lines of task t0 in run {run_id(1)}; nothing"
        ):
            await migrate(source, target, HastyClock(), Notes())
