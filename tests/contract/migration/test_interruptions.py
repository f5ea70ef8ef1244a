"""Whatever ends a migration, and whenever: the next one goes on, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio

import pytest

from taskhub.errors import UnavailableError
from taskhub.services.migration import Phase, migrate
from taskhub.services.migration.side import PAUSES_S
from tests.contract.migration.content import fill
from tests.contract.migration.stores import (
    Calls,
    HastyClock,
    Notes,
    held_by,
    opened,
    wrapped,
)

KINDS = ("memory", "sqlite")


@pytest.fixture
async def source(tmp_path):
    async with opened("sqlite", tmp_path / "source") as stores:
        await fill(stores)
        yield stores


async def calls_of(source, kind, directory):
    calls = Calls()
    async with opened(kind, directory) as target:
        await migrate(source, wrapped(target, calls), HastyClock(), Notes())
    return calls.count


def is_same(reports):
    return all(report.is_same for report in reports)


@pytest.mark.parametrize("error", [UnavailableError, asyncio.CancelledError])
@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_ends_at_any_call_is_taken_up_by_the_next(source, tmp_path, kind, error):
    count = await calls_of(source, kind, tmp_path / "all")
    assert count > 40
    expected = await held_by(source)
    for last in range(1, count + 1):
        bad = Calls(lambda number, last=last: number >= last, error=error)
        async with opened(kind, tmp_path / f"{last}") as target:
            with pytest.raises(error):
                await migrate(source, wrapped(target, bad), HastyClock(), Notes())
            assert is_same(await migrate(source, target, HastyClock(), Notes()))
            assert await held_by(target) == expected


@pytest.mark.parametrize("is_done", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_fails_once_is_repeated(source, tmp_path, kind, is_done):
    expected = await held_by(source)
    for bad in range(1, 1 + await calls_of(source, kind, tmp_path / "all")):
        calls = Calls(lambda number, bad=bad: number == bad, is_done=is_done)
        clock, notes = HastyClock(), Notes()
        async with opened(kind, tmp_path / f"{bad}") as target:
            assert is_same(await migrate(source, wrapped(target, calls), clock, notes))
            assert await held_by(target) == expected
        assert clock.pauses == [PAUSES_S[0]]
        assert notes.waited == [("target", "injected", PAUSES_S[0])]


async def test_a_store_that_stays_away_is_asked_a_few_times_and_then_named(source, tmp_path):
    clock, notes = HastyClock(), Notes()
    away = wrapped(source, Calls(lambda number: number > 20))
    async with opened("memory", tmp_path) as target:
        with pytest.raises(UnavailableError, match=r"^the source stays away: injected$"):
            await migrate(away, target, clock, notes)
    assert clock.pauses == list(PAUSES_S)
    assert {store for store, _, _ in notes.waited} == {"source"}


async def test_what_an_interrupted_one_had_copied_is_not_copied_again(source, tmp_path):
    async with opened("memory", tmp_path) as target:
        bad = Calls(lambda number: number > 30)
        with pytest.raises(UnavailableError):
            await migrate(source, wrapped(target, bad), HastyClock(), Notes())
        notes = Notes()
        assert is_same(await migrate(source, target, HastyClock(), notes))
    assert sum(notes.over[Phase.COMPARE].values()) > 0
    assert not any(notes.over[Phase.RUNS].values())
