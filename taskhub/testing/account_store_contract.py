"""What every `AccountStore` and every `AuditStore` has to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Final

import pytest

from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.domain.task import JSON
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.accounts import Account, ApiToken, AuditQuery
from taskhub.ports.store import Batch
from taskhub.testing.store_samples import (
    INT64_MAX,
    NASTY,
    T0,
    Stores,
    collect,
    full_batch,
    new_run,
    run_id,
)

NOTHING: Final[Mapping[str, JSON]] = {}


def entry(
    number: int,
    key: str = "",
    *,
    ts_ms: int = T0,
    actor: str = "somebody",
    action: str = "user.add",
    target: str = "x",
    outcome: Outcome = Outcome.OK,
    detail: Mapping[str, JSON] = NOTHING,
) -> AuditEntry:
    """Return an entry; its key is made of its number if none is given."""
    key = key or f"key{number}"
    return AuditEntry(number, key, ts_ms, actor, action, target, "address", outcome, detail)


def account(name: str, version: int = 1) -> Account:
    """Return an account whose hash says its version."""
    return Account(
        username=name, password_hash=f"{NASTY}{version}", role="admin", version=version,
        created_ms=T0,
    )  # fmt: skip


def token(token_id: str, username: str = "a", created_ms: int = T0) -> ApiToken:
    """Return an API token."""
    return ApiToken(
        id=token_id, name=NASTY, username=username, role="viewer", digest=f"digest {token_id}",
        created_ms=created_ms, expires_ms=INT64_MAX,
    )  # fmt: skip


class AccountStoreContract:
    """Uses `stores.accounts` and `stores.audit`."""

    async def test_what_is_unknown_is_not_found(self, stores: Stores) -> None:
        store = stores.accounts
        with pytest.raises(NotFoundError):
            await store.account("nobody")
        with pytest.raises(NotFoundError):
            await store.token("nothing")
        with pytest.raises(NotFoundError):
            await store.change_account(account("nobody", 2), entry(1))
        with pytest.raises(NotFoundError):
            await store.remove_account("nobody", entry(2))
        with pytest.raises(NotFoundError):
            await store.remove_token("nothing", entry(3))
        assert list(await store.accounts()) == []
        assert list(await store.tokens()) == []
        assert await keys(stores) == [], "what was refused leaves no entry"
        assert await store.revision() == 0

    async def test_an_account_comes_back_as_it_was(self, stores: Stores) -> None:
        odd = replace(account(NASTY, INT64_MAX), role=NASTY, disabled=True, created_ms=INT64_MAX)
        await stores.accounts.add_account(odd, entry(1))
        assert await stores.accounts.account(NASTY) == odd
        assert await keys(stores) == ["key1"]
        with pytest.raises(NotFoundError):
            await stores.accounts.account(NASTY.lower())

    async def test_accounts_come_by_name(self, stores: Stores) -> None:
        for i, name in enumerate(("b", "a", "B", "ä"), 1):
            await stores.accounts.add_account(account(name), entry(i))
        assert [a.username for a in await stores.accounts.accounts()] == ["B", "a", "b", "ä"]

    async def test_a_name_is_given_once(self, stores: Stores) -> None:
        await stores.accounts.add_account(account("a"), entry(1))
        with pytest.raises(ConflictError):
            await stores.accounts.add_account(account("a", 7), entry(2))
        assert await stores.accounts.account("a") == account("a")
        assert await keys(stores) == ["key1"]

    async def test_of_two_that_add_the_same_name_at_once_one_succeeds(self, stores: Stores) -> None:
        adds = (stores.accounts.add_account(account("a", i), entry(i)) for i in range(1, 6))
        outcomes = await asyncio.gather(*adds, return_exceptions=True)
        assert sorted(type(o).__name__ for o in outcomes) == ["ConflictError"] * 4 + ["NoneType"]
        assert await keys(stores) == [f"key{(await stores.accounts.account('a')).version}"]

    async def test_a_change_replaces_the_version_before_it_only(self, stores: Stores) -> None:
        await stores.accounts.add_account(account("a", 5), entry(1))
        for version in (4, 5, 7):
            with pytest.raises(ConflictError):
                await stores.accounts.change_account(account("a", version), entry(10 + version))
        await stores.accounts.change_account(account("a", 6), entry(2))
        assert await stores.accounts.account("a") == account("a", 6)
        assert await keys(stores) == ["key1", "key2"]

    async def test_an_account_goes_with_its_tokens_and_no_others(self, stores: Stores) -> None:
        store = stores.accounts
        await store.add_account(account("a"), entry(1))
        await store.add_account(account("b"), entry(2))
        for i, (name, user) in enumerate((("t1", "a"), ("t2", "b"), ("t3", "a")), 3):
            await store.add_token(token(name, user), entry(i))
        await store.remove_account("a", entry(9))
        assert [t.id for t in await store.tokens()] == ["t2"]
        assert [a.username for a in await store.accounts()] == ["b"]

    async def test_tokens_come_oldest_first_and_by_user(self, stores: Stores) -> None:
        store = stores.accounts
        made = [token("z", created_ms=T0), token("y", "b", T0 + 1), token("x", created_ms=T0 + 1)]
        for i, each in enumerate(reversed(made), 1):
            await store.add_token(each, entry(i))
        assert list(await store.tokens()) == [made[0], made[2], made[1]]
        assert list(await store.tokens("a")) == [made[0], made[2]]
        assert list(await store.tokens("nobody")) == []
        assert await store.token("y") == made[1]
        with pytest.raises(ConflictError):
            await store.add_token(token("y", "c"), entry(20))
        await store.remove_token("y", entry(21))
        with pytest.raises(NotFoundError):
            await store.token("y")

    async def test_a_call_repeated_after_its_answer_was_lost_is_as_once(
        self, stores: Stores
    ) -> None:
        store = stores.accounts
        for call in (
            partial(store.add_account, account("a"), entry(1)),
            partial(store.change_account, account("a", 2), entry(2)),
            partial(store.add_token, token("t"), entry(3)),
            partial(store.remove_token, "t", entry(4)),
            partial(store.revoke, "jti", INT64_MAX, entry(5)),
            partial(store.add_token, token("u"), entry(6)),
            partial(store.remove_account, "a", entry(7)),
        ):
            await call()
            await call()
        assert await keys(stores) == [f"key{i}" for i in range(1, 8)]
        assert list(await store.tokens()) == []

    async def test_revoked_tokens_are_remembered_until_they_expire(self, stores: Stores) -> None:
        store = stores.accounts
        assert await store.revoked(T0) == {}
        await store.revoke("a", T0 + 10, entry(1))
        await store.revoke("b", T0 + 20, entry(2))
        assert await store.revoked(T0) == {"a": T0 + 10, "b": T0 + 20}
        assert await store.revoked(T0 + 15) == {"b": T0 + 20}
        assert await store.revoked(T0) == {"b": T0 + 20}, "the other is forgotten"

    async def test_the_revision_grows_with_every_change(self, stores: Stores) -> None:
        store, seen = stores.accounts, [await stores.accounts.revision()]
        for call in (
            partial(store.add_account, account("a"), entry(1)),
            partial(store.change_account, account("a", 2), entry(2)),
            partial(store.add_token, token("t"), entry(3)),
            partial(store.revoke, "jti", INT64_MAX, entry(4)),
            partial(store.remove_token, "t", entry(5)),
            partial(store.remove_account, "a", entry(6)),
            partial(store.restore, [account("b")], [token("u")], {"j": INT64_MAX}),
        ):
            await call()
            seen.append(await store.revision())
        assert seen == sorted(set(seen))
        with pytest.raises(ConflictError):
            await store.add_account(account("b"), entry(7))
        assert await store.revision() == seen[-1]

    async def test_what_is_restored_replaces_what_was(self, stores: Stores) -> None:
        store = stores.accounts
        await store.add_account(account("a"), entry(1))
        await store.add_account(account("stays"), entry(2))
        await store.add_token(token("t"), entry(3))
        for _ in range(2):
            await store.restore([account("a", 9)], [token("t", "b")], {"j": T0})
        assert await store.account("a") == account("a", 9)
        assert await store.token("t") == token("t", "b")
        assert [a.username for a in await store.accounts()] == ["a", "stays"]
        assert await store.revoked(0) == {"j": T0}
        assert await keys(stores) == ["key1", "key2", "key3"]


class AuditStoreContract:
    """Uses `stores.audit` and `stores.runs`."""

    async def test_an_entry_comes_back_as_it_was(self, stores: Stores) -> None:
        odd = AuditEntry(
            2**53 - 1, NASTY, INT64_MAX, NASTY, NASTY, NASTY, NASTY, Outcome.DENIED,
            {NASTY: [NASTY, {"a": INT64_MAX, "b": None}]},
        )  # fmt: skip
        await stores.audit.append([odd])
        assert list((await stores.audit.entries(AuditQuery(), 10)).items) == [odd]
        await stores.audit.append([])

    async def test_the_same_key_is_the_same_entry(self, stores: Stores) -> None:
        await stores.audit.append([entry(1, "k"), entry(2)])
        await stores.audit.append([entry(1, "k"), entry(7, "k"), entry(3)])
        assert await keys(stores) == ["k", "key2", "key3"]

    async def test_another_entry_of_a_taken_id_gets_a_free_one(self, stores: Stores) -> None:
        await stores.audit.append([entry(5, "a"), entry(6, "b"), entry(8, "c")])
        await stores.audit.append([entry(5, "d"), entry(5, "e")])
        found = (await stores.audit.entries(AuditQuery(), 10)).items
        assert {e.id: e.key for e in found} == {5: "a", 6: "b", 7: "d", 8: "c", 9: "e"}

    @pytest.mark.parametrize("limit", [1, 3, 7, 60])
    async def test_entries_are_found_by_all_that_is_asked(self, stores: Stores, limit: int) -> None:
        outcomes = (Outcome.OK, Outcome.DENIED)
        made = [
            entry(
                i, ts_ms=T0 + i % 10, actor=f"u{i % 3}", action=f"a{i % 4}", target=f"t{i % 5}",
                outcome=outcomes[i % 2],
            )
            for i in range(1, 60)
        ]  # fmt: skip
        await stores.audit.append(made)
        for actor, action, target, outcome, start, end in product(
            (None, "u1"), (None, "a2"), (None, "t3"), (None, Outcome.DENIED), (None, T0 + 3),
            (None, T0 + 6),
        ):  # fmt: skip
            query = AuditQuery(
                actor=actor, action=action, target=target, outcome=outcome, start_ts_ms=start,
                end_ts_ms=end,
            )  # fmt: skip
            expected = [
                e.id
                for e in reversed(made)
                if actor in {None, e.actor}
                and action in {None, e.action}
                and target in {None, e.target}
                and outcome in {None, e.outcome}
                and (start or e.ts_ms) <= e.ts_ms <= (end or e.ts_ms)
            ]
            found = await collect(partial(stores.audit.entries, query, limit))
            assert [e.id for e in found] == expected, query

    async def test_the_oldest_expire(self, stores: Stores) -> None:
        await stores.audit.append([entry(i, ts_ms=T0 - i) for i in range(1, 10)])
        assert await stores.audit.expire(T0 - 2, limit=4) == 4
        assert await keys(stores) == [f"key{i}" for i in range(1, 6)]
        assert await stores.audit.expire(T0 - 2) == 3
        assert await stores.audit.expire(T0 - 2) == 0

    async def test_a_batch_is_stored_with_its_entries(self, stores: Stores) -> None:
        batch = full_batch(1, unique_key="k")
        batch.audit = [entry(1, action="run.submit", target=run_id(1)), entry(2)]
        for _ in range(2):
            await stores.runs.commit(batch)
        await stores.runs.commit(Batch(audit=[entry(3)]))
        await stores.runs.active()
        assert await keys(stores) == ["key1", "key2", "key3"]

    async def test_a_refused_batch_leaves_no_entry(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1, unique_key="k"))
        batch = new_run(2, unique_key="k")
        batch.audit = [entry(1)]
        with pytest.raises(ConflictError):
            await stores.runs.commit(batch)
        assert await keys(stores) == []


async def keys(stores: Stores) -> list[str]:
    """Return the keys of all entries, oldest first."""
    found = await collect(partial(stores.audit.entries, AuditQuery(), 100))
    return [each.key for each in reversed(found)]
