"""The contract of `taskhub.ports.accounts.AccountStore`, as tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from taskhub.domain.audit import AuditEntry
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.accounts import Account, ApiToken, AuditQuery
from taskhub.ports.stores import Stores
from taskhub.testing.store_samples import INT64_MAX, NASTY, T0, audit_entry

HASH = "1"
Call = Callable[[Stores, AuditEntry], Awaitable[None]]


def account(name: str, version: int = 1, *, role: str = "viewer") -> Account:
    """Return an account."""
    return Account(username=name, password_hash=HASH, role=role, version=version, created_ms=T0)


def token(token_id: str, username: str = "a", created_ms: int = T0) -> ApiToken:
    """Return an API token."""
    return ApiToken(
        id=token_id,
        name="for tests",
        username=username,
        role="viewer",
        digest="digest",
        created_ms=created_ms,
    )


async def fill(stores: Stores) -> None:
    """Store the account `a` with the token `t` and the account `b` with the token `u`."""
    tokens = [token("t"), token("u", "b")]
    await stores.accounts.restore([account("a"), account("b")], tokens, {})


async def keys(stores: Stores) -> list[str]:
    """Return the keys of all entries of the audit."""
    return [entry.key for entry in (await stores.audit.entries(AuditQuery(), 1000)).items]


async def state(stores: Stores) -> object:
    """Return all that the store holds, but for its revision."""
    return (
        list(await stores.accounts.accounts()),
        list(await stores.accounts.tokens()),
        dict(await stores.accounts.revoked(0)),
        await keys(stores),
    )


CHANGES: dict[str, Call] = {
    "add_account": lambda s, e: s.accounts.add_account(account("new"), e),
    "change_account": lambda s, e: s.accounts.change_account(account("a", 2), e),
    "remove_account": lambda s, e: s.accounts.remove_account("a", e),
    "add_token": lambda s, e: s.accounts.add_token(token("new"), e),
    "remove_token": lambda s, e: s.accounts.remove_token("t", e),
    "revoke": lambda s, e: s.accounts.revoke("jti", T0 + 1, e),
}
REFUSED: dict[str, tuple[Call, type[Exception]]] = {
    "a name that is taken": (
        lambda s, e: s.accounts.add_account(account("a", role="admin"), e), ConflictError),
    "a version that was": (
        lambda s, e: s.accounts.change_account(account("a", 1), e), ConflictError),
    "a version too far": (
        lambda s, e: s.accounts.change_account(account("a", 3), e), ConflictError),
    "a change of nobody": (
        lambda s, e: s.accounts.change_account(account("nobody", 2), e), NotFoundError),
    "a removal of nobody": (
        lambda s, e: s.accounts.remove_account("nobody", e), NotFoundError),
    "another case": (
        lambda s, e: s.accounts.remove_account("A", e), NotFoundError),
    "a token that is there": (
        lambda s, e: s.accounts.add_token(token("t", "b"), e), ConflictError),
    "a removal of no token": (
        lambda s, e: s.accounts.remove_token("nothing", e), NotFoundError),
}  # fmt: skip


class AccountChangeContract:
    """What each change has to do, its entry of the audit included."""

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    async def test_a_change_stores_its_entry_and_raises_the_revision(
        self, stores: Stores, change: Call
    ) -> None:
        await fill(stores)
        before = await stores.accounts.revision()
        await change(stores, audit_entry(1))
        assert await keys(stores) == ["key 1"]
        assert await stores.accounts.revision() > before

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    async def test_a_repeated_change_is_a_success_and_changes_nothing(
        self, stores: Stores, change: Call
    ) -> None:
        await fill(stores)
        await change(stores, audit_entry(1))
        before = await state(stores)
        await change(stores, audit_entry(1))
        await change(stores, audit_entry(1)._replace(id=77))
        assert await state(stores) == before

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    async def test_a_change_whose_entry_has_a_taken_id_is_made(
        self, stores: Stores, change: Call
    ) -> None:
        await fill(stores)
        await stores.audit.append([audit_entry(1)])
        before = await state(stores)
        await change(stores, audit_entry(1)._replace(key="other"))
        assert await state(stores) != before
        entries = (await stores.audit.entries(AuditQuery(), 10)).items
        assert [(entry.id, entry.key) for entry in entries] == [(2, "other"), (1, "key 1")]

    @pytest.mark.parametrize(("change", "error"), REFUSED.values(), ids=REFUSED)
    async def test_what_is_refused_changes_nothing_and_leaves_no_entry(
        self, stores: Stores, change: Call, error: type[Exception]
    ) -> None:
        await fill(stores)
        await stores.audit.append([audit_entry(1)])
        before = await state(stores)
        with pytest.raises(error):
            await change(stores, audit_entry(2))
        assert await state(stores) == before

    async def test_a_change_repeated_after_others_undoes_none_of_them(self, stores: Stores) -> None:
        await fill(stores)
        await stores.accounts.change_account(account("a", 2, role="admin"), audit_entry(1))
        await stores.accounts.change_account(account("a", 3), audit_entry(2))
        before = await state(stores)
        with suppress(ConflictError):
            await stores.accounts.change_account(account("a", 2, role="admin"), audit_entry(1))
        assert await state(stores) == before


class AccountStoreContract(AccountChangeContract):
    """What every `AccountStore` has to do; uses `stores.accounts` and `stores.audit`."""

    async def test_an_empty_store_has_nobody(self, stores: Stores) -> None:
        with pytest.raises(NotFoundError):
            await stores.accounts.account("nobody")
        with pytest.raises(NotFoundError):
            await stores.accounts.token("nothing")
        assert list(await stores.accounts.accounts()) == []
        assert list(await stores.accounts.tokens()) == []

    async def test_an_account_comes_back_as_it_was(self, stores: Stores) -> None:
        wanted = Account(
            username=NASTY,
            password_hash=NASTY,
            role=NASTY,
            version=INT64_MAX,
            disabled=True,
            created_ms=T0,
        )
        await stores.accounts.add_account(wanted, audit_entry(1))
        assert await stores.accounts.account(NASTY) == wanted
        assert list(await stores.accounts.accounts()) == [wanted]

    async def test_accounts_come_by_name(self, stores: Stores) -> None:
        names = ["b", "ä", "B", "a1", "a", "🦊", "_", "a.b", "A"]
        for number, name in enumerate(names, 1):
            await stores.accounts.add_account(account(name), audit_entry(number))
        assert [each.username for each in await stores.accounts.accounts()] == sorted(names)

    async def test_a_change_replaces_the_whole_account(self, stores: Stores) -> None:
        first = account("a", T0)
        await stores.accounts.add_account(first, audit_entry(1))
        changed = replace(first, version=T0 + 1, password_hash=HASH * 2, role="r", disabled=True)
        await stores.accounts.change_account(changed, audit_entry(2))
        assert await stores.accounts.account("a") == changed
        back = replace(first, version=T0 + 2)
        await stores.accounts.change_account(back, audit_entry(3))
        assert await stores.accounts.account("a") == back

    async def test_of_two_changes_of_one_version_one_is_refused(self, stores: Stores) -> None:
        await fill(stores)
        await stores.accounts.change_account(account("a", 2, role="admin"), audit_entry(1))
        with pytest.raises(ConflictError):
            await stores.accounts.change_account(account("a", 2, role="runner"), audit_entry(2))
        assert (await stores.accounts.account("a")).role == "admin"

    async def test_an_account_goes_with_its_tokens_and_no_others(self, stores: Stores) -> None:
        await fill(stores)
        await stores.accounts.remove_account("a", audit_entry(1))
        with pytest.raises(NotFoundError):
            await stores.accounts.account("a")
        with pytest.raises(NotFoundError):
            await stores.accounts.token("t")
        assert [each.username for each in await stores.accounts.accounts()] == ["b"]
        assert list(await stores.accounts.tokens()) == [token("u", "b")]
        await stores.accounts.add_account(account("a", 9), audit_entry(2))
        assert (await stores.accounts.account("a")).version == 9
        assert list(await stores.accounts.tokens("a")) == []

    async def test_a_token_comes_back_as_it_was(self, stores: Stores) -> None:
        wanted = ApiToken(
            id=NASTY,
            name=NASTY,
            username=NASTY,
            role=NASTY,
            digest=NASTY,
            created_ms=T0,
            expires_ms=INT64_MAX,
        )
        await stores.accounts.add_token(wanted, audit_entry(1))
        assert await stores.accounts.token(NASTY) == wanted
        assert list(await stores.accounts.tokens(NASTY)) == [wanted]
        assert list(await stores.accounts.tokens("$ne")) == []

    async def test_tokens_come_oldest_first(self, stores: Stores) -> None:
        made = [token("c"), token("b", "b", T0 + 1), token("d", "a", T0 - 1), token("a")]
        for number, each in enumerate(made, 1):
            await stores.accounts.add_token(each, audit_entry(number))
        assert [each.id for each in await stores.accounts.tokens()] == ["d", "a", "c", "b"]
        assert [each.id for each in await stores.accounts.tokens("a")] == ["d", "a", "c"]
        assert list(await stores.accounts.tokens("nobody")) == []

    async def test_a_removed_token_is_gone(self, stores: Stores) -> None:
        await fill(stores)
        await stores.accounts.remove_token("t", audit_entry(1))
        with pytest.raises(NotFoundError):
            await stores.accounts.token("t")
        assert [each.id for each in await stores.accounts.tokens()] == ["u"]

    async def test_revoked_tokens_are_remembered_until_they_expire(self, stores: Stores) -> None:
        assert dict(await stores.accounts.revoked(T0)) == {}
        await stores.accounts.revoke("a", T0 + 10, audit_entry(1))
        await stores.accounts.revoke("a", T0 + 10, audit_entry(2))
        await stores.accounts.revoke(NASTY, T0 + 20, audit_entry(3))
        assert dict(await stores.accounts.revoked(T0)) == {"a": T0 + 10, NASTY: T0 + 20}
        assert dict(await stores.accounts.revoked(T0 + 15)) == {NASTY: T0 + 20}
        assert dict(await stores.accounts.revoked(T0)) == {NASTY: T0 + 20}, "one is forgotten"
        assert dict(await stores.accounts.revoked(T0 + 20)) == {}

    async def test_a_restore_replaces_what_has_the_same_name(self, stores: Stores) -> None:
        await fill(stores)
        before = await stores.accounts.revision()
        newer, other = account("a", 7, role="admin"), token("t", "b", T0 + 5)
        await stores.accounts.restore([newer, account("c")], [other], {"j": T0 + 9})
        names = [each.username for each in await stores.accounts.accounts()]
        assert (names, await stores.accounts.account("a")) == (["a", "b", "c"], newer)
        assert await stores.accounts.token("t") == other
        assert dict(await stores.accounts.revoked(T0)) == {"j": T0 + 9}
        assert await stores.accounts.revision() > before
        assert await keys(stores) == []

    async def test_reads_leave_the_revision_alone(self, stores: Stores) -> None:
        await fill(stores)
        before = await stores.accounts.revision()
        await state(stores)
        await stores.accounts.revoked(T0)
        await stores.accounts.account("a")
        assert await stores.accounts.revision() == before
