from __future__ import annotations

import asyncio

import pytest

from taskhub.adapters.memory import MemoryAccountStore
from taskhub.errors import (
    ConfigError,
    ConflictError,
    InvalidError,
    NotFoundError,
    TooManyError,
    UnauthorizedError,
    UnavailableError,
)
from taskhub.ports.store import Account
from taskhub.services.auth import CACHE_SIZE, AuthService, Revocation, Role
from taskhub.services.passwords import Passwords
from taskhub.services.throttle import Throttle
from taskhub.services.tokens import Tokens
from taskhub.testing.clock import FakeClock

KEY = bytes(range(32))
HOUR_MS = 3_600_000


class CountingAccounts(MemoryAccountStore):
    """Counts reads, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.away = False
        self.gate: asyncio.Event | None = None

    async def account(self, username: str) -> Account:
        self.reads += 1
        found = await super().account(username)
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def revoke(self, jti: str, expires_ms: int) -> None:
        if self.away:
            raise UnavailableError("away")
        await super().revoke(jti, expires_ms)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def accounts():
    return CountingAccounts()


@pytest.fixture
async def auth(clock, accounts):
    service = AuthService(accounts, KEY, clock, passwords=Passwords(log_n=4))
    await service.start()
    await service.create("ann", "pw", Role.OPERATOR)
    yield service
    await service.close()


async def login(auth: AuthService, name: str = "ann", password: str = "pw") -> str:
    return await auth.login(name, password, "10.0.0.1")


async def fail(auth: AuthService, name: str = "ann", address: str = "10.0.0.1") -> None:
    with pytest.raises(UnauthorizedError):
        await auth.login(name, "wrong", address)


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


async def test_a_logout_survives_a_restart(auth, accounts, clock):
    token = await login(auth)
    await auth.logout(token)
    other = AuthService(accounts, KEY, clock)
    await other.start()
    with pytest.raises(UnauthorizedError):
        await other.authenticate(token)
    await other.close()


async def test_a_logout_that_was_not_stored_can_be_repeated(auth, accounts):
    token = await login(auth)
    accounts.away = True
    with pytest.raises(UnavailableError):
        await auth.logout(token)
    accounts.away = False
    await auth.logout(token)
    with pytest.raises(UnauthorizedError):
        await auth.authenticate(token)


async def test_revoked_tokens_are_forgotten_when_they_would_have_expired(auth, clock):
    for _ in range(50):
        await auth.logout(await login(auth))
    clock.set_wall(clock.now_ms() + 2 * HOUR_MS)
    await clock.advance(61)
    await auth.logout(await login(auth))
    assert len(auth._revoked) == 1


async def test_a_change_ends_tokens_at_once(auth):
    for change in ({"role": Role.VIEWER}, {"password": "pw"}, {"disabled": False}):
        token = await login(auth)
        await auth.authenticate(token)
        await auth.change("ann", **change)
        with pytest.raises(UnauthorizedError):
            await auth.authenticate(token)
    assert (await auth.authenticate(await login(auth))).role is Role.VIEWER


async def test_a_change_is_not_undone_by_a_read_under_way(auth, accounts, clock):
    token = await login(auth)
    await clock.advance(6)
    accounts.gate = asyncio.Event()
    reading = asyncio.create_task(auth.authenticate(token))
    await asyncio.sleep(0)
    gate, accounts.gate = accounts.gate, None
    await auth.change("ann", role=Role.VIEWER)
    gate.set()
    with pytest.raises(UnauthorizedError):
        await reading
    with pytest.raises(UnauthorizedError):
        await auth.authenticate(token)


async def test_a_disabled_account_can_do_nothing(auth):
    token = await login(auth)
    await auth.change("ann", disabled=True)
    with pytest.raises(UnauthorizedError):
        await auth.authenticate(token)
    await fail(auth)
    with pytest.raises(UnauthorizedError):
        await login(auth)


async def test_a_new_password_replaces_the_old(auth):
    await auth.change("ann", password="new")
    with pytest.raises(UnauthorizedError):
        await login(auth)
    assert await login(auth, password="new")


async def test_accounts_are_asked_for_once_in_five_seconds(auth, accounts, clock):
    token = await login(auth)
    reads = accounts.reads
    for _ in range(100):
        await auth.authenticate(token)
    assert accounts.reads == reads
    await clock.advance(5)
    await auth.authenticate(token)
    assert accounts.reads == reads + 1


async def test_the_cache_of_accounts_is_bounded(auth):
    for i in range(CACHE_SIZE + 10):
        auth._remember(Account(username=f"u{i}", password_hash="", role="viewer"))
    assert len(auth._cache) <= CACHE_SIZE


async def test_subscribers_hear_which_tokens_ended(auth):
    heard: list[Revocation] = []
    unsubscribe = auth.subscribe_revocations(heard.append)
    token, other = await login(auth), await login(auth)
    principal = await auth.authenticate(token)
    rest = await auth.authenticate(other)
    await auth.logout(token)
    assert [r.covers(principal) for r in heard] == [True]
    assert not heard[0].covers(rest)
    await auth.change("ann", role=Role.VIEWER)
    assert heard[1].covers(rest)
    unsubscribe()
    unsubscribe()
    await auth.logout(await login(auth))
    assert len(heard) == 2


async def test_five_failures_make_a_name_wait_wherever_it_comes_from(auth, clock):
    for i in range(5):
        await fail(auth, address=f"10.0.0.{i}")
    with pytest.raises(TooManyError) as caught:
        await auth.login("ann", "pw", "10.0.0.9")
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
    assert await auth.login("ann", "pw", "10.0.0.2")


async def test_a_success_forgives_the_name_but_not_the_address(auth):
    for i in range(49):
        await fail(auth, name=f"u{i}")
    await login(auth)
    await fail(auth, name="cecil")
    with pytest.raises(TooManyError):
        await login(auth)
    assert await auth.login("ann", "pw", "10.0.0.2")


async def test_guesses_sent_at_once_do_not_pass_the_limit(auth):
    tries = [auth.login("ann", "wrong", f"10.0.0.{i}") for i in range(18)]
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


async def test_an_unknown_name_costs_the_same_hash_as_a_wrong_password(clock, accounts):
    passwords = CountedPasswords()
    auth = AuthService(accounts, KEY, clock, passwords=passwords)
    await auth.create("ann", "pw", Role.VIEWER)
    passwords.costs.clear()
    await fail(auth, name="ann")
    await fail(auth, name="bob")
    assert passwords.costs == [(15, 8, 1)] * 2
    await auth.close()


async def test_the_hash_is_scrypt_with_a_salt_of_its_own():
    passwords = Passwords()
    first, second = await passwords.hash("pw"), await passwords.hash("pw")
    assert first.startswith("scrypt$15$8$1$")
    assert first != second
    assert await passwords.is_right("pw", first)
    assert not await passwords.is_right("pW", first)
    assert not await passwords.is_right("pw", None)
    passwords.close()


async def test_accounts_are_made_and_changed_with_care(auth):
    with pytest.raises(ConflictError):
        await auth.create("ann", "x", Role.VIEWER)
    with pytest.raises(NotFoundError):
        await auth.change("bob", role=Role.VIEWER)
    for password in ("", "x" * 1025):
        with pytest.raises(InvalidError):
            await auth.create("bob", password, Role.VIEWER)
    with pytest.raises(InvalidError):
        Role.of("root")


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
