from __future__ import annotations

import pytest

from taskhub.adapters.memory_accounts import MemoryAuditStore
from taskhub.domain.audit import Outcome
from taskhub.ports.accounts import AuditQuery
from taskhub.services import audit_log
from taskhub.services.audit_log import AuditLog
from taskhub.services.origin import Origin
from taskhub.testing.clock import FakeClock

ANN = Origin("ann", "192.0.2.1")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def audit(clock):
    return AuditLog(MemoryAuditStore(), clock)


async def stored(audit):
    return list((await audit.page(AuditQuery(), 100, None)).items)


async def test_entries_say_who_what_when_and_from_where(audit, clock):
    await audit.note(ANN, "login", "x", outcome=Outcome.DENIED, detail={"a": 1})
    (entry,) = await stored(audit)
    assert entry[2:] == (
        *(clock.now_ms(), "ann", "login", "x", "192.0.2.1", Outcome.DENIED, {"a": 1}),
    )


async def test_entries_of_one_moment_are_in_order_and_unique(audit):
    for number in range(5):
        await audit.note(ANN, "login", str(number))
    entries = await stored(audit)
    assert [entry.target for entry in entries] == ["4", "3", "2", "1", "0"]
    assert len({entry.key for entry in entries}) == 5


async def test_entries_stay_in_order_when_the_clock_was_set_back(audit, clock):
    await audit.note(ANN, "login", "first")
    clock.set_wall(clock.now_ms() - 3_600_000)
    later = AuditLog(audit._store, clock)
    await later.start()
    await later.note(ANN, "login", "second")
    assert [entry.target for entry in await stored(later)] == ["second", "first"]


def test_texts_from_outside_are_cut(audit):
    entry = audit.entry(Origin("a" * 999, "b" * 999), "login", "c" * 999)
    assert {len(entry.actor), len(entry.address), len(entry.target)} == {256}


async def test_a_refusal_is_stored_once_a_minute_for_each_caller_and_target(audit, clock):
    bob = Origin("bob", "192.0.2.1")
    for _ in range(3):
        for origin, target in ((ANN, "GET /a"), (ANN, "GET /b"), (bob, "GET /a")):
            await audit.note_refusal(origin, target, "admin")
        await clock.advance(10)
    assert len(await stored(audit)) == 3
    await clock.advance(30)
    await audit.note_refusal(ANN, "GET /a", "admin")
    assert len(await stored(audit)) == 4


async def test_what_is_remembered_of_refusals_is_bounded(audit, monkeypatch):
    monkeypatch.setattr(audit_log, "REMEMBERED", 10)
    for number in range(50):
        await audit.note_refusal(ANN, f"GET /{number}", "admin")
    assert len(audit._refused) == 10
