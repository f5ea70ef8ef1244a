from __future__ import annotations

import asyncio

import pytest

from taskhub.adapters.memory_accounts import MemoryAccountStore
from taskhub.errors import (
    ConfigError,
    ConflictError,
    TooManyError,
    UnauthorizedError,
    UnavailableError,
)
from taskhub.services.auth import AuthService, Revocation
from taskhub.services.passwords import Passwords
from taskhub.services.roles import Role
from taskhub.services.throttle import Throttle
from taskhub.services.tokens import Tokens
from taskhub.testing.clock import FakeClock
from tests.access import TEST, access

HOUR_MS = 3_600_000


class CountingAccounts(MemoryAccountStore):
    """Counts loads, and fails when told to."""

    def __init__(self):
        super().__init__()
        self.loads = 0
        self.away = False
        self.gate = None

    async def accounts(self):
        self.loads += 1
        found = await super().accounts()
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def revision(self):
        self._check()
        return await super().revision()

    async def revoke(self, jti, expires_ms, entry):
        self._check()
        await super().revoke(jti, expires_ms, entry)

    def _check(self):
        if self.away:
            raise UnavailableError("away")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store():
    return CountingAccounts()


@pytest.fixture
async def people(clock, store):
    people = access(clock, store)
    await people.auth.start()
    await people.add("ann", "pw", Role.OPERATOR)
    yield people
    people.close()


@pytest.fixture
def auth(people):
    return people.auth


async def login(auth: AuthService, name: str = "ann", password: str = "pw") -> str:
    return await auth.login(name, password, "192.0.2.1")


async def fail(auth: AuthService, name: str = "ann", address: str = "192.0.2.1") -> None:
    with pytest.raises(UnauthorizedError):
        await auth.login(name, "wrong", address)


async def is_out(auth: AuthService, token: str) -> bool:
    try:
        await auth.authenticate(token)
    except UnauthorizedError:
        return True
    return False


async def api_token(people, *, name="ann", role=None, days=None) -> str:
    return (await people.accounts.add_token(name, "ci", role, days, TEST))[1]


async def test_a_token_names_who_logged_in(auth, clock):
    principal = await auth.authenticate(await login(auth))
    assert (principal.username, principal.role) == ("ann", Role.OPERATOR)
    assert principal.expires_ms == clock.now_ms() + 2 * HOUR_MS


async def test_two_logins_are_two_tokens(auth):
    first, second = await login(auth), await login(auth)
    await auth.logout(first)
    assert await auth.authenticate(second)


async def test_a_clock_set_back_ends_no_token(auth, clock):
    token = await login(auth)
    clock.set_wall(clock.now_ms() - 10 * HOUR_MS)
    assert await auth.authenticate(token)


async def test_a_logout_survives_a_restart(auth, store, clock):
    token = await login(auth)
    await auth.logout(token)
    other = access(clock, store)
    await other.auth.start()
    assert await is_out(other.auth, token)
    other.close()


async def test_a_logout_that_was_not_stored_can_be_repeated(auth, store):
    token = await login(auth)
    store.away = True
    with pytest.raises(UnavailableError):
        await auth.logout(token)
    store.away = False
    await auth.logout(token)
    assert await is_out(auth, token)


async def test_revoked_tokens_are_forgotten_when_they_would_have_expired(auth, clock):
    for _ in range(50):
        await auth.logout(await login(auth))
    assert len(auth._people.revoked) == 50
    clock.set_wall(clock.now_ms() + 2 * HOUR_MS)
    await auth.logout(await login(auth))
    assert len(auth._people.revoked) == 1


@pytest.mark.parametrize(
    "change", [{"role": Role.VIEWER}, {"password": "pw"}, {"disabled": False}], ids=str
)
async def test_a_change_ends_login_tokens_at_once(people, auth, change):
    token = await login(auth)
    await auth.authenticate(token)
    await people.change("ann", **change)
    assert await is_out(auth, token)
    assert not await is_out(auth, await login(auth))


async def test_a_change_is_not_undone_by_a_read_under_way(people, auth, store, clock):
    token = await login(auth)
    await people.add("bob", "pw", Role.VIEWER)
    auth._people = type(auth._people)()
    store.gate = gate = asyncio.Event()
    reading = asyncio.create_task(auth.refresh(), name="reading")
    await asyncio.sleep(0)
    store.gate = None
    changing = asyncio.create_task(people.change("ann", role=Role.VIEWER), name="changing")
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(reading, changing)
    assert await is_out(auth, token)


async def test_everybody_is_read_again_each_minute_whatever_the_revision_says(auth, store, clock):
    token = await login(auth)
    del store._accounts["ann"]
    await clock.advance(59)
    await auth.refresh()
    assert not await is_out(auth, token)
    await clock.advance(2)
    await auth.refresh()
    assert await is_out(auth, token)


async def test_a_name_used_again_never_meets_its_old_tokens(people, auth, clock):
    token = await login(auth)
    await people.change("ann", role=Role.VIEWER)
    await people.add("root", "pw", Role.ADMIN)
    await people.accounts.remove("ann", TEST)
    assert await is_out(auth, token)
    await clock.advance(1)
    await people.add("ann", "pw", Role.OPERATOR)
    assert await is_out(auth, token)


async def test_a_disabled_account_can_do_nothing(people, auth):
    token = await login(auth)
    await people.change("ann", disabled=True)
    assert await is_out(auth, token)
    await fail(auth)
    with pytest.raises(UnauthorizedError):
        await login(auth)


async def test_a_new_password_replaces_the_old(people, auth):
    await people.change("ann", password="new")
    with pytest.raises(UnauthorizedError):
        await login(auth)
    assert await login(auth, password="new")


async def test_everybody_is_loaded_once_until_something_changes(people, auth, store, clock):
    token = await login(auth)
    loads = store.loads
    for _ in range(20):
        await clock.advance(0.5)
        await auth.refresh()
        await auth.authenticate(token)
    assert store.loads == loads
    await people.add("bob", "pw", Role.VIEWER)
    assert store.loads > loads


async def test_what_another_process_changes_counts_with_the_next_look(people, auth, store, clock):
    token, other = await login(auth), access(clock, store)
    heard: list[Revocation] = []
    auth.subscribe_revocations(heard.append)
    principal = await auth.authenticate(token)
    await other.change("ann", disabled=True)
    assert not await is_out(auth, token), "it does not know yet"
    await auth.refresh()
    assert await is_out(auth, token)
    assert [each.covers(principal) for each in heard] == [True]
    other.close()


async def test_what_another_process_made_is_good_at_once(people, auth, store, clock):
    other = access(clock, store)
    token = (await other.accounts.add_token("ann", "ci", None, None, TEST))[1]
    assert not await is_out(auth, token)
    await other.auth.start()
    await other.change("ann", password="new")
    assert not await is_out(auth, await login(other.auth, password="new"))
    other.close()


async def test_an_unknown_token_is_refused_while_the_store_is_away(auth, store):
    store.away = True
    assert await is_out(auth, f"th_{'0' * 16}_{'x' * 43}")


async def test_while_the_store_is_away_what_is_known_counts_for_five_seconds(auth, store, clock):
    token = await login(auth)
    store.away = True
    await clock.advance(5)
    assert not await is_out(auth, token)
    await clock.advance(1)
    with pytest.raises(UnavailableError):
        await auth.authenticate(token)
    store.away = False
    assert not await is_out(auth, token)


async def test_subscribers_hear_which_tokens_ended(people, auth):
    heard: list[Revocation] = []
    unsubscribe = auth.subscribe_revocations(heard.append)
    token, other = await login(auth), await login(auth)
    principal = await auth.authenticate(token)
    rest = await auth.authenticate(other)
    await auth.logout(token)
    assert [r.covers(principal) for r in heard] == [True]
    assert not heard[0].covers(rest)
    await people.change("ann", role=Role.VIEWER)
    assert heard[1].covers(rest)
    unsubscribe()
    unsubscribe()
    await auth.logout(await login(auth))
    assert len(heard) == 2


async def test_an_api_token_acts_for_its_user(people, auth):
    principal = await auth.authenticate(await api_token(people))
    assert (principal.username, principal.role, principal.is_api) == ("ann", Role.OPERATOR, True)
    assert principal.expires_ms == 0
    lower = await auth.authenticate(await api_token(people, role=Role.VIEWER))
    assert lower.role is Role.VIEWER


async def test_an_api_token_is_never_above_its_user(people, auth):
    token = await api_token(people, role=Role.OPERATOR)
    await people.change("ann", role=Role.RUNNER)
    assert (await auth.authenticate(token)).role is Role.RUNNER
    await people.change("ann", role=Role.ADMIN)
    assert (await auth.authenticate(token)).role is Role.OPERATOR


async def test_an_api_token_survives_a_new_password_and_ends_with_its_user(people, auth):
    await people.add("root", "pw", Role.ADMIN)
    token = await api_token(people)
    await people.change("ann", password="new")
    assert not await is_out(auth, token)
    await people.change("ann", disabled=True)
    assert await is_out(auth, token)
    await people.change("ann", disabled=False)
    assert not await is_out(auth, token)
    await people.accounts.remove("ann", TEST)
    await people.add("ann", "pw", Role.OPERATOR)
    assert await is_out(auth, token)


async def test_an_api_token_ends_after_its_days_and_when_it_is_revoked(people, auth, clock):
    kept, short = await api_token(people), await api_token(people, days=2)
    clock.set_wall(clock.now_ms() + 2 * 24 * HOUR_MS - 1)
    assert not await is_out(auth, short)
    clock.set_wall(clock.now_ms() + 1)
    assert await is_out(auth, short)
    assert not await is_out(auth, kept)
    await people.accounts.remove_token(kept.split("_")[1], TEST)
    assert await is_out(auth, kept)


async def test_who_holds_an_api_token_hears_what_concerns_it_and_nothing_else(people, auth):
    heard: list[Revocation] = []
    token = await auth.authenticate(await api_token(people, role=Role.RUNNER))
    auth.subscribe_revocations(heard.append)
    await people.change("ann", password="new")
    await people.change("ann", role=Role.RUNNER)
    assert not any(each.covers(token) for each in heard)
    await people.change("ann", role=Role.VIEWER)
    assert heard[-1].covers(token)


async def test_an_api_token_with_another_secret_is_none(people, auth):
    token = await api_token(people)
    other = (await api_token(people)).split("_", 2)[2]
    start, secret = token.rsplit("_", 1)[0], token.split("_", 2)[2]
    number = token.split("_")[1]
    for wrong in (
        *("th_", "th__", f"th_{number}", f"th_{number}_", f"th_{number}_{other}"),
        *(f"{token}x", token[:-1], f" {token}", token.upper(), f"th_nobody_{secret}"),
        f"th_{number}_{'x' * 10_000}",
        f"th_{number}_\udcff",
        start,
    ):
        assert await is_out(auth, wrong), wrong


async def test_an_api_token_does_not_log_out(people, auth):
    token = await api_token(people)
    with pytest.raises(ConflictError):
        await auth.logout(token)
    assert not await is_out(auth, token)


async def test_logins_and_logouts_are_in_the_audit_without_passwords(people, auth, store):
    token = await login(auth)
    await fail(auth, name="x" * 1000)
    await auth.logout(token)
    assert (await people.actions())[1:] == [
        ("ann", "login", "", "ok"),
        ("", "login", "x" * 128, "denied"),
        ("ann", "logout", "", "ok"),
    ]
    assert all("wrong" not in str(entry) for entry in store.audit._entries.values())


async def test_a_password_that_is_confirmed_counts_like_a_login(people, auth):
    await auth.confirm("ann", "pw", "192.0.2.1")
    for _ in range(5):
        with pytest.raises(UnauthorizedError):
            await auth.confirm("ann", "wrong", "192.0.2.1")
    with pytest.raises(TooManyError):
        await login(auth)
    with pytest.raises(TooManyError):
        await auth.confirm("ann", "pw", "192.0.2.9")
    assert ("ann", "password.confirm", "ann", "denied") in await people.actions()


async def test_five_failures_make_a_name_wait_wherever_it_comes_from(auth, clock):
    for i in range(5):
        await fail(auth, address=f"192.0.2.{i}")
    with pytest.raises(TooManyError) as caught:
        await auth.login("ann", "pw", "192.0.2.9")
    assert caught.value.retry_after_s == 300
    await clock.advance(299.5)
    with pytest.raises(TooManyError):
        await login(auth)
    await clock.advance(0.5)
    assert await login(auth)


async def test_fifty_failures_make_an_address_wait_whatever_the_name(auth):
    for i in range(50):
        await fail(auth, name=f"u{i}")
    with pytest.raises(TooManyError):
        await login(auth)
    assert await auth.login("ann", "pw", "192.0.2.2")


async def test_a_success_forgives_the_name_but_not_the_address(auth):
    for i in range(49):
        await fail(auth, name=f"u{i}")
    await login(auth)
    await fail(auth, name="cecil")
    with pytest.raises(TooManyError):
        await login(auth)
    assert await auth.login("ann", "pw", "192.0.2.2")


async def test_guesses_sent_at_once_do_not_pass_the_limit(auth):
    tries = [auth.login("ann", "wrong", f"192.0.2.{i}") for i in range(18)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    guessed = [r for r in results if isinstance(r, UnauthorizedError)]
    assert 5 <= len(guessed) <= 6  # two threads: one may start before the other's failure counts
    assert all(isinstance(r, UnauthorizedError | TooManyError) for r in results)


async def test_more_logins_than_can_wait_are_refused_at_once(auth):
    results = await asyncio.gather(*(login(auth) for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(r, TooManyError) for r in results) == 40 - 18
    assert await login(auth)


class CountedPasswords(Passwords):
    """Notes the cost of each hash that is computed."""

    def __init__(self):
        super().__init__()
        self.costs = []

    async def _run(self, password, salt, log_n, r, p):
        self.costs.append((log_n, r, p))
        return await super()._run(password, salt, log_n, r, p)


async def test_an_unknown_name_costs_the_same_hash_as_a_wrong_password(clock):
    passwords = CountedPasswords()
    people = access(clock, passwords=passwords)
    await people.add("ann", "pw", Role.VIEWER)
    passwords.costs.clear()
    await fail(people.auth, name="ann")
    await fail(people.auth, name="bob")
    assert passwords.costs == [(15, 8, 1)] * 2
    people.close()


async def test_the_hash_is_scrypt_with_a_salt_of_its_own():
    passwords = Passwords()
    first, second = await passwords.hash("pw"), await passwords.hash("pw")
    assert first.startswith("scrypt$15$8$1$")
    assert first != second
    assert await passwords.is_right("pw", first)
    assert not await passwords.is_right("pW", first)
    assert not await passwords.is_right("pw", None)
    passwords.close()


def test_a_short_key_stops_the_start(clock):
    with pytest.raises(ConfigError):
        Tokens(bytes(31), clock, HOUR_MS)


def test_the_table_of_failures_is_bounded(clock):
    throttle = Throttle(clock, capacity=100)
    for i in range(1000):
        throttle.failed(f"user {i}", "address")
    assert len(throttle._failures) == 100
    with pytest.raises(TooManyError):
        throttle.check("address")
