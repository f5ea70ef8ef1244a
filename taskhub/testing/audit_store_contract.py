"""The contract of `taskhub.ports.accounts.AuditStore`, as tests."""

from __future__ import annotations

from functools import partial
from itertools import product

from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.domain.task import JSON
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import Batch
from taskhub.ports.stores import Stores
from taskhub.testing.store_samples import (
    INT64_MAX,
    NASTY,
    T0,
    audit_entry,
    collect,
    full_batch,
    snapshot,
)

ALL = AuditQuery()


async def ids(stores: Stores, query: AuditQuery = ALL) -> list[int]:
    """Return the ids that a query finds."""
    return [entry.id for entry in (await stores.audit.entries(query, 1000)).items]


def varied() -> list[AuditEntry]:
    """Return entries that differ in everything that can be asked for."""
    kinds = product(("ann", "bob"), ("user.add", "run.submit"), ("x", "y"), Outcome)
    return [
        audit_entry(number)._replace(
            actor=actor, action=action, target=target, outcome=outcome, ts_ms=T0 + number // 3
        )
        for number, (actor, action, target, outcome) in enumerate(kinds, 1)
    ]


def matches(query: AuditQuery, entry: AuditEntry) -> bool:
    """Say what a query finds, in the plainest way."""
    equal = all(
        (wanted := getattr(query, name)) is None or wanted == getattr(entry, name)
        for name in ("actor", "action", "target", "outcome")
    )
    start = T0 - 1 if query.start_ts_ms is None else query.start_ts_ms
    end = INT64_MAX if query.end_ts_ms is None else query.end_ts_ms
    return equal and start <= entry.ts_ms <= end


class AuditStoreContract:
    """What every `AuditStore` has to do; uses `stores.audit`, and `stores.runs` for commits."""

    async def test_an_entry_comes_back_as_it_was(self, stores: Stores) -> None:
        detail: dict[str, JSON] = {"a": [1, None, True, 1.5], NASTY: {"b": NASTY}, "n": INT64_MAX}
        wanted = AuditEntry(
            INT64_MAX - 1, NASTY, T0, NASTY, NASTY, NASTY, NASTY, Outcome.DENIED, detail
        )
        await stores.audit.append([wanted, audit_entry(1)])
        assert list((await stores.audit.entries(ALL, 9)).items) == [wanted, audit_entry(1)]

    async def test_no_entries_are_nothing(self, stores: Stores) -> None:
        await stores.audit.append([])
        page = await stores.audit.entries(ALL, 9)
        assert (list(page.items), page.next_before) == ([], None)

    async def test_a_repeated_entry_stays_as_it_is(self, stores: Stores) -> None:
        await stores.audit.append([audit_entry(1), audit_entry(2)])
        again = audit_entry(1)._replace(id=50, actor="other")
        await stores.audit.append([again, audit_entry(3), audit_entry(2)])
        entries = (await stores.audit.entries(ALL, 9)).items
        assert list(entries) == [audit_entry(3), audit_entry(2), audit_entry(1)]

    async def test_a_taken_id_gives_way_to_the_next_free_one(self, stores: Stores) -> None:
        await stores.audit.append([audit_entry(1), audit_entry(2), audit_entry(4)])
        await stores.audit.append([audit_entry(1)._replace(key="x"), audit_entry(5)])
        await stores.audit.append([audit_entry(1)._replace(key="y")])
        found = {entry.key: entry.id for entry in (await stores.audit.entries(ALL, 9)).items}
        assert found == {"key 1": 1, "key 2": 2, "x": 3, "key 4": 4, "key 5": 5, "y": 6}

    async def test_one_call_may_hold_an_id_or_a_key_twice(self, stores: Stores) -> None:
        twice = [audit_entry(1), audit_entry(1), audit_entry(1)._replace(key="x")]
        await stores.audit.append(twice)
        found = {entry.key: entry.id for entry in (await stores.audit.entries(ALL, 9)).items}
        assert found == {"key 1": 1, "x": 2}

    async def test_pages_hold_everything_once_newest_first(self, stores: Stores) -> None:
        numbers = [*range(1, 300), 10_000]
        await stores.audit.append([audit_entry(number) for number in numbers])
        for limit in (1, 7, 299, 300, 301):
            listed = await collect(partial(stores.audit.entries, ALL, limit))
            assert [entry.id for entry in listed] == numbers[::-1]
        exact = await stores.audit.entries(ALL, 300)
        assert exact.next_before is None
        assert (await stores.audit.entries(ALL, 2, 10)).next_before == 8

    async def test_every_filter_and_all_of_them_together(self, stores: Stores) -> None:
        entries = varied()
        await stores.audit.append(entries)
        for actor, action, target, outcome, start, end in product(
            (None, "ann", "nobody"),
            (None, "user.add", "user"),
            (None, "x"),
            (None, Outcome.OK, Outcome.DENIED),
            (None, T0 + 2),
            (None, T0 + 3),
        ):
            query = AuditQuery(
                actor=actor,
                action=action,
                target=target,
                outcome=outcome,
                start_ts_ms=start,
                end_ts_ms=end,
            )
            wanted = [entry.id for entry in reversed(entries) if matches(query, entry)]
            assert await ids(stores, query) == wanted, query
            listed = await collect(partial(stores.audit.entries, query, 2))
            assert [entry.id for entry in listed] == wanted, query

    async def test_filters_mean_what_they_say_and_no_more(self, stores: Stores) -> None:
        await stores.audit.append([audit_entry(1), audit_entry(2)._replace(target=NASTY, actor="")])
        assert await ids(stores, AuditQuery(target=NASTY)) == [2]
        assert await ids(stores, AuditQuery(actor="")) == [2]
        for wanted in ("%", "$ne", "ANN", "an", " ann", "ann\x00"):
            assert await ids(stores, AuditQuery(actor=wanted)) == [], wanted

    async def test_expiry_takes_the_oldest_and_no_more_than_the_limit(self, stores: Stores) -> None:
        entries = [audit_entry(i)._replace(ts_ms=T0 - i) for i in range(1, 8)]
        await stores.audit.append(entries)
        assert await stores.audit.expire(T0 - 2, 2) == 2
        assert await ids(stores) == [5, 4, 3, 2, 1]
        assert await stores.audit.expire(T0 - 2) == 3
        assert await ids(stores) == [2, 1], "before the time, not at it"
        assert await stores.audit.expire(T0 - 2) == 0

    async def test_a_commit_stores_its_entries_with_all_else(self, stores: Stores) -> None:
        batch = full_batch(1)
        batch.audit = [audit_entry(1), audit_entry(2)]
        await stores.runs.commit(batch)
        assert await ids(stores) == [2, 1]
        before = await snapshot(stores.runs, 1)
        await stores.runs.commit(batch)
        assert await ids(stores) == [2, 1], "a repeated commit"
        assert await snapshot(stores.runs, 1) == before

    async def test_entries_of_commits_give_way_to_others(self, stores: Stores) -> None:
        await stores.audit.append([audit_entry(1)])
        for key in ("x", "y"):
            await stores.runs.commit(Batch(audit=[audit_entry(1)._replace(key=key)]))
        found = {entry.key: entry.id for entry in (await stores.audit.entries(ALL, 9)).items}
        assert found == {"key 1": 1, "x": 2, "y": 3}
