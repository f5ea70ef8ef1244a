from __future__ import annotations

import pytest

from taskhub.errors import ConflictError, InvalidError, NotFoundError
from taskhub.services import accounts
from taskhub.services.accounts import is_good_password
from taskhub.services.roles import Role
from taskhub.testing.clock import FakeClock
from tests.access import TEST, access


@pytest.fixture
async def people():
    people = access(FakeClock())
    await people.add("root", "pw", Role.ADMIN)
    await people.add("ann", "pw", Role.OPERATOR)
    yield people
    people.close()


async def refusal(error, call) -> str:
    with pytest.raises(error) as caught:
        await call
    return str(caught.value)


async def test_an_account_is_made_once(people):
    made = await people.accounts.create("bob", "good enough", Role.RUNNER, TEST)
    assert (made.role, made.disabled, made.created_ms > 0) == ("runner", False, True)
    assert await people.accounts.get("bob") == made
    again = people.accounts.create("bob", "other password", Role.ADMIN, TEST)
    assert "bob" in await refusal(ConflictError, again)
    assert [each.username for each in await people.accounts.all()] == ["ann", "bob", "root"]


async def test_all_that_is_wrong_with_a_new_account_is_said_at_once(people):
    with pytest.raises(InvalidError) as caught:
        await people.accounts.create("a/b", "short", Role.VIEWER, TEST)
    problems = {problem.pointer: problem.message for problem in caught.value.problems}
    assert problems.keys() == {"/username", "/password"}
    assert "8 to 1024" in problems["/password"]


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "a\n", "a/b", "x" * 129, "cli:ann", "server", "anonymous", "\udcff"]
)
async def test_a_name_that_means_something_else_is_refused(people, name):
    assert "username" in await refusal(
        InvalidError, people.accounts.create(name, "good enough", Role.VIEWER, TEST)
    )


def test_a_password_has_eight_characters_or_more_all_of_them_whole():
    assert [len(p) for p in map("x".__mul__, (7, 8, 1024, 1025)) if is_good_password(p)] == [
        8,
        1024,
    ]
    assert not is_good_password("x" * 10 + "\udcff")


async def test_nobody_unknown_is_changed_or_removed(people):
    for call in (
        people.accounts.change("bob", role=Role.VIEWER, origin=TEST),
        people.accounts.remove("bob", TEST),
        people.accounts.add_token("bob", "x", None, None, TEST),
        people.accounts.remove_token("nothing", TEST),
        people.accounts.get("bob"),
    ):
        await refusal(NotFoundError, call)


async def test_a_change_touches_only_what_is_named(people):
    before = await people.accounts.get("ann")
    after = await people.change("ann", role=Role.VIEWER)
    assert (after.role, after.password_hash) == ("viewer", before.password_hash)
    assert after.version == before.version + 1
    off = await people.change("ann", disabled=True)
    assert (off.role, off.disabled) == ("viewer", True)


@pytest.mark.parametrize("how", ["demoted", "disabled", "removed"])
async def test_the_last_administrator_stays_one(people, how):
    calls = {
        "demoted": lambda: people.change("root", role=Role.OPERATOR),
        "disabled": lambda: people.change("root", disabled=True),
        "removed": lambda: people.accounts.remove("root", TEST),
    }
    assert "only administrator" in await refusal(ConflictError, calls[how]())
    await people.change("root", password="new")
    await people.add("second", "pw", Role.ADMIN)
    await people.change("second", disabled=True)
    await refusal(ConflictError, calls[how]())
    await people.change("second", disabled=False)
    await calls[how]()
    await refusal(ConflictError, people.accounts.remove("second", TEST))


async def test_a_token_is_shown_once_and_only_its_digest_is_kept(people):
    token, text = await people.accounts.add_token("ann", "ci", None, None, TEST)
    prefix, number, secret = text.split("_", 2)
    assert (prefix, number, len(secret) >= 43) == ("th", token.id, True)
    assert secret not in repr(await people.accounts.tokens("ann"))
    assert token.digest not in text
    _, other = await people.accounts.add_token("ann", "ci", None, None, TEST)
    assert other != text


@pytest.mark.parametrize(
    ("name", "role", "days", "pointers"),
    [
        ("", None, None, {"/name"}),
        ("x" * 129, None, None, {"/name"}),
        ("a\nb", None, None, {"/name"}),
        ("a", Role.ADMIN, None, {"/role"}),
        ("a", None, 0, {"/days"}),
        ("", Role.ADMIN, 3651, {"/name", "/role", "/days"}),
    ],
)
async def test_all_that_is_wrong_with_a_token_is_said_at_once(people, name, role, days, pointers):
    with pytest.raises(InvalidError) as caught:
        await people.accounts.add_token("ann", name, role, days, TEST)
    assert {problem.pointer for problem in caught.value.problems} == pointers


async def test_a_foreign_token_is_a_missing_one(people):
    token, _ = await people.accounts.add_token("ann", "ci", None, None, TEST)
    foreign = people.accounts.remove_token(token.id, TEST, owner="root")
    missing = people.accounts.remove_token("f" * 16, TEST, owner="root")
    said = await refusal(NotFoundError, foreign)
    assert said.replace(token.id, "?") == (await refusal(NotFoundError, missing)).replace(
        "f" * 16, "?"
    )
    await people.accounts.remove_token(token.id, TEST, owner="ann")
    assert list(await people.accounts.tokens()) == []


async def test_there_is_an_end_to_accounts_and_tokens(people, monkeypatch):
    monkeypatch.setattr(accounts, "MOST_ACCOUNTS", 2)
    monkeypatch.setattr(accounts, "MOST_TOKENS", 1)
    await refusal(ConflictError, people.accounts.create("c", "good enough", Role.VIEWER, TEST))
    await people.accounts.add_token("ann", "one", None, None, TEST)
    await refusal(ConflictError, people.accounts.add_token("ann", "two", None, None, TEST))
    await people.accounts.add_token("root", "one", None, None, TEST)


async def test_every_change_is_in_the_audit_and_no_refusal_is(people):
    token, _ = await people.accounts.add_token("ann", "ci", Role.VIEWER, 3, TEST)
    await people.change("ann", password="topsecret", disabled=False)
    await people.accounts.remove_token(token.id, TEST)
    await refusal(ConflictError, people.accounts.remove("root", TEST))
    await refusal(ConflictError, people.add("ann", "pw", Role.VIEWER))
    await people.accounts.remove("ann", TEST)
    assert await people.actions() == [
        ("test", "user.add", "root", "ok"),
        ("test", "user.add", "ann", "ok"),
        ("test", "token.add", token.id, "ok"),
        ("test", "user.change", "ann", "ok"),
        ("test", "token.revoke", token.id, "ok"),
        ("test", "user.remove", "ann", "ok"),
    ]
    stored = repr(people.store.audit._entries)
    assert "topsecret" not in stored
    assert token.digest not in stored
    assert "192.0.2.1" in stored
