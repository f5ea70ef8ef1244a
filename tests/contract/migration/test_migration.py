"""From every store to every other: everything, and only if it may be."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from taskhub.domain.event import EventName
from taskhub.domain.result import Output
from taskhub.errors import ConflictError
from taskhub.ports.store import Batch, TaskOutput
from taskhub.services.migration import Kind, Phase, migrate
from taskhub.testing.store_samples import (
    T0,
    chunk,
    dag,
    event,
    full_batch,
    header,
    run_id,
    run_update,
    task_run_id,
    task_update,
)
from tests.contract.migration.content import EPOCH, account, entry, fill, simple_task, token
from tests.contract.migration.stores import (
    PAIRS,
    HastyClock,
    Notes,
    held_by,
    opened,
    wrapped,
)


@pytest.fixture(params=PAIRS, ids="-to-".join)
def pair(request, tmp_path):
    """pair() opens a source with something of everything, and an empty target."""

    @asynccontextmanager
    async def pair():
        source_kind, target_kind = request.param
        async with (
            opened(source_kind, tmp_path / "source") as source,
            opened(target_kind, tmp_path / "target") as target,
        ):
            await fill(source)
            yield source, target

    return pair


async def copied(source, target, notes=None):
    reports = await migrate(source, target, HastyClock(), notes or Notes())
    assert [report.kind for report in reports if not report.is_same] == []
    return {report.kind: report for report in reports}


async def test_everything_is_copied_and_the_source_stays_as_it_was(pair):
    async with pair() as (source, target):
        before = await held_by(source)
        reports = await copied(source, target)
        assert await held_by(target) == before
        assert await held_by(source) == before
    counts = {kind: report.source.count for kind, report in reports.items()}
    assert counts == {
        Kind.RUNS: 4, Kind.TASKS: 7, Kind.OUTPUTS: 4, Kind.EVENTS: 9, Kind.LINES: 13,
        Kind.ACCOUNTS: 2, Kind.TOKENS: 2, Kind.REVOKED: 1, Kind.AUDIT: 3, Kind.NUMBER: 17,
    }  # fmt: skip


async def test_revoked_tokens_that_expired_are_not_forgotten_at_the_source(pair):
    async with pair() as (source, target):
        await copied(source, target)
        assert await source.accounts.revoked(0) == {"jti": T0 + 60_000, "expired": T0 - 1}
        assert await target.accounts.revoked(0) == {"jti": T0 + 60_000}


async def test_starts_go_on_where_those_of_open_runs_were(pair):
    async with pair() as (source, target):
        await copied(source, target)
        await copied(source, target)
        assert await target.runs.open_epoch("next", T0) > EPOCH


async def test_lines_of_a_task_are_read_in_the_same_order_over_its_runs(pair):
    async with pair() as (source, target):
        await copied(source, target)
        stored = [await each.logs.read_task("t0", 1, 100) for each in (source, target)]
    assert stored[0] == stored[1]
    assert len(stored[0]) == 12


async def test_an_empty_store_is_copied_too(tmp_path):
    async with opened("memory", tmp_path) as source, opened("sqlite", tmp_path) as target:
        reports = await copied(source, target)
    assert {report.source.count for report in reports.values()} == {0}


async def test_what_is_there_already_is_not_written_again(pair):
    async with pair() as (source, target):
        await copied(source, target)
        notes = Notes()
        await copied(source, target, notes)
    assert notes.over[Phase.COMPARE][Kind.RUNS] == 4
    assert not any(notes.over[Phase.RUNS].values())
    assert not any(notes.over[Phase.LINES].values())


async def test_what_happened_at_the_source_since_is_added(pair):
    async with pair() as (source, target):
        await copied(source, target)
        ended = event(4, 4, EventName.RUN_END, "", T0 + 9, {"status": 1})
        await source.runs.commit(
            Batch(
                runs=[run_update(4)],
                tasks=[task_update(4, 1)],
                outputs=[TaskOutput(task_run_id(4, 0), run_id(4), Output(stdout="other"))],
                events=[ended],
            )
        )
        await source.runs.commit(simple_task(5, 18))
        await source.logs.append([chunk(16, 2, ["more"], run=run_id(2), task="t1")])
        await source.accounts.restore([account("a", 4), account("new")], [token("three")], {})
        await source.audit.append([entry(901)])
        await copied(source, target)
        assert await held_by(target) == await held_by(source)


FOREIGN = {
    "run": (lambda s: s.runs.commit(full_batch(50)), f"run {run_id(50)}"),
    "event": (
        lambda s: s.runs.commit(Batch(events=[event(4, 4, EventName.TASK_CANCELED)])),
        f"run {run_id(4)}, with other events",
    ),
    "lines": (
        lambda s: s.logs.append([chunk(70, 1, ["x"], run="r", task="t")]),
        "lines of task t in run r",
    ),
    "later lines": (
        lambda s: s.logs.append([chunk(70, 45, ["x"], run=run_id(1), task="t0")]),
        f"other lines of task t0 in run {run_id(1)}",
    ),
    "account": (lambda s: s.accounts.restore([account("theirs")], [], {}), "account theirs"),
    "newer account": (lambda s: s.accounts.restore([account("a", 4)], [], {}), "account a"),
    "other account": (
        lambda s: s.accounts.restore([replace(account("a", 3), role="admin")], [], {}),
        "account a",
    ),
    "token": (lambda s: s.accounts.restore([], [token("theirs")], {}), "API token theirs"),
    "other token": (lambda s: s.accounts.restore([], [token("one", "b")], {}), "API token one"),
    "revoked": (lambda s: s.accounts.restore([], [], {"j": T0 + 9}), "revoked token j"),
    "entry": (lambda s: s.audit.append([entry(7)]), "audit entry 7"),
    "other entry": (lambda s: s.audit.append([entry(5, "theirs")]), "audit entry 7"),
    "number": (
        lambda s: s.runs.commit(Batch(last_number=18)),
        "higher numbers of simple tasks",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
async def test_a_target_with_something_of_its_own_is_refused_untouched(pair, case):
    add, name = FOREIGN[case]
    async with pair() as (source, target):
        await copied(source, target)
        await add(target)
        before = await held_by(target)
        with pytest.raises(ConflictError, match=f"does not: {name}; nothing"):
            await migrate(source, target, HastyClock(), Notes())
        assert await held_by(target) == before


async def test_many_foreign_things_are_counted_and_the_first_named(tmp_path):
    async with opened("memory", tmp_path) as source, opened("sqlite", tmp_path) as target:
        for number in range(1, 2008):
            await target.runs.commit(Batch(new_runs=[(header(number), dag(1))]))
        with pytest.raises(ConflictError, match=f"run {run_id(2007)}.*and 2,002 more; nothing"):
            await migrate(source, target, HastyClock(), Notes())


class Sizes:
    """For `wrapped`: remembers how much text of outputs each commit had."""

    def __init__(self):
        self.commits = []
        self.asked = 0

    async def __call__(self, method, args, call):
        answer = await call()
        if method == "commit":
            outputs = [each.output for each in args[0].outputs]
            self.commits.append(sum(len(each.stdout) + len(each.stderr) for each in outputs))
        if method == "outputs":
            self.asked = max(self.asked, sum(len(each.stdout) for each in answer.values()))
        return answer


async def test_large_outputs_are_never_held_all_at_once(tmp_path):
    count, text = 40, "x" * (512 << 10)
    async with opened("sqlite", tmp_path / "a") as source, opened("sqlite", tmp_path / "b") as to:
        await source.runs.commit(
            Batch(
                new_runs=[(header(1), dag(count))],
                runs=[run_update(1)],
                outputs=[
                    TaskOutput(task_run_id(1, i), run_id(1), Output(stdout=text))
                    for i in range(count)
                ],
            )
        )
        sizes = Sizes()
        reports = await copied(wrapped(source, sizes), wrapped(to, sizes))
    assert sum(sizes.commits) == count * len(text)
    assert max(sizes.commits) <= 4 << 20
    assert sizes.asked <= 4 << 20
    assert reports[Kind.OUTPUTS].target.count == count


async def test_ten_thousand_tasks_go_over(tmp_path):
    count = 10_000
    ids = range(count)
    async with opened("sqlite", tmp_path / "a") as source, opened("sqlite", tmp_path / "b") as to:
        await source.runs.commit(
            Batch(
                new_runs=[(header(1), dag(count))],
                runs=[run_update(1)],
                tasks=[task_update(1, i) for i in ids],
                outputs=[
                    TaskOutput(task_run_id(1, i), run_id(1), Output(stdout=f"{i}")) for i in ids
                ],
                events=[event(1, 1 + i) for i in range(3 * count)],
            )
        )
        await source.logs.append([chunk(1 + i, 1, ["x"], task=f"t{i}") for i in ids])
        reports = await copied(source, to)
    counts = {kind: report.target.count for kind, report in reports.items()}
    assert counts[Kind.TASKS] == counts[Kind.OUTPUTS] == counts[Kind.LINES] == count
    assert counts[Kind.EVENTS] == 3 * count
