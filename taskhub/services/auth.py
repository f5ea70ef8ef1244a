"""Who is asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from taskhub.domain.audit import Outcome
from taskhub.domain.task import ID_PATTERN
from taskhub.errors import ConflictError, NotFoundError, UnauthorizedError, UnavailableError
from taskhub.ports.accounts import Account, AccountStore
from taskhub.ports.clock import Clock
from taskhub.services.audit_log import AuditLog
from taskhub.services.origin import Origin
from taskhub.services.passwords import LONGEST, Passwords
from taskhub.services.people import API_PREFIX, People
from taskhub.services.roles import Principal
from taskhub.services.throttle import Throttle
from taskhub.services.tokens import NO_TOKEN, Tokens

TOKEN_TTL_MS: Final = 2 * 3_600_000
RELOAD_MS: Final = 60_000
"""Everybody is read again this often, whatever the revision says."""
STALE_MS: Final = 5_000
"""For how long what is known of accounts counts while the store does not say if it changed."""
LONGEST_API_TOKEN: Final = 256
ADDRESS_FAILURES: Final = 50
"""More than for a name: behind a proxy everybody has the same address."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Something has changed: whoever is not known any more, or not as before, is to go."""

    people: People
    now_ms: int

    def covers(self, principal: Principal) -> bool:
        """Say whether this principal's token is no longer good, or good for another role."""
        return not self.people.knows(principal, self.now_ms)


class AuthService:
    """Logs in and out, and says who a token belongs to.

    `start` before use. Login tokens end when they expire, at logout, and when their account
    changes: each carries its account's version. Everybody is kept in memory; `refresh` asks the
    store whether that is still so, and is to be called often. Where it was not for 5 s, the next
    request does.
    """

    def __init__(
        self,
        accounts: AccountStore,
        key: bytes,
        clock: Clock,
        *,
        audit: AuditLog,
        passwords: Passwords,
        token_ttl_ms: int = TOKEN_TTL_MS,
        throttle: Throttle | None = None,
        addresses: Throttle | None = None,
    ) -> None:
        self._accounts = accounts
        self._clock = clock
        self._audit = audit
        self._passwords = passwords
        self._tokens = Tokens(key, clock, token_ttl_ms)
        self._throttle = throttle or Throttle(clock)
        self._addresses = addresses or Throttle(clock, failures=ADDRESS_FAILURES)
        self._people = People()
        self._checked_ms = 0
        self._loaded_ms = clock.monotonic_ms()
        self._turn = asyncio.Lock()
        self._subscribers: dict[Callable[[Revocation], None], None] = {}

    async def start(self) -> None:
        """Load everybody. Raises `UnavailableError`."""
        await self.refresh()

    async def refresh(self) -> None:
        """Find out whether anything changed, here or in another process, and tell whom it concerns.

        Raises `UnavailableError`.
        """
        async with self._turn:  # many may wait for the same change; one of them loads it
            asked_ms = self._clock.monotonic_ms()
            is_old = asked_ms - self._loaded_ms > RELOAD_MS
            if is_old or await self._accounts.revision() != self._people.revision:
                self._people = await People.load(self._accounts, self._clock.now_ms())
                self._loaded_ms = asked_ms
                self._tell()
            self._checked_ms = asked_ms

    async def login(self, username: str, password: str, address: str) -> str:
        """Return a token; raise `UnauthorizedError`, or `TooManyError` after too many failures.

        An unknown name costs the same time as a wrong password.
        """
        account = await self._proven(username, password, Origin("", address), "login")
        if self._people.accounts.get(account.username) != account:
            await self.refresh()
        await self._audit.note(Origin(account.username, address), "login")
        return self._tokens.issue(account)

    async def confirm(self, username: str, password: str, address: str) -> None:
        """Return if somebody who is in knows the password; failures count as those of a login.

        Raises what `login` does.
        """
        await self._proven(username, password, Origin(username, address), "password.confirm")

    async def _proven(self, username: str, password: str, origin: Origin, action: str) -> Account:
        """Return the account; `origin` has no actor where nobody has shown who they are."""
        name, address = username[:128], origin.address
        self._check_failures(name, address)
        async with self._passwords.turn():
            self._check_failures(name, address)  # those who waited before may have failed
            account = await self._verified(username, password)
        if account is None:
            self._throttle.failed(name)
            self._addresses.failed(address)
            tried = name if ID_PATTERN.fullmatch(name) else ""
            await self._audit.note(origin, action, tried, outcome=Outcome.DENIED)
            raise UnauthorizedError("wrong username or password")
        self._throttle.forget(name)
        return account

    def _check_failures(self, name: str, address: str) -> None:
        self._throttle.check(name)
        self._addresses.check(address)

    async def authenticate(self, token: str) -> Principal:
        """Return whose token it is; raise `UnauthorizedError`, always with the same words.

        Raises `UnavailableError` if the store has not answered for 5 s.
        """
        if self._clock.monotonic_ms() - self._checked_ms > STALE_MS:
            await self.refresh()
        find, known = self._claimed(token), self._people
        try:
            return find(known)
        except UnauthorizedError:
            with suppress(UnavailableError):
                await self.refresh()  # another process may have made it a moment ago
            if self._people is known:
                raise
        return find(self._people)

    def _claimed(self, token: str) -> Callable[[People], Principal]:
        """Return how to find whose token it says it is; raise `UnauthorizedError` if it is none."""
        if token.startswith(API_PREFIX):
            if len(token) > LONGEST_API_TOKEN:
                raise UnauthorizedError(NO_TOKEN)
            return lambda people: people.of_api_token(token, self._clock.now_ms())
        claims = self._tokens.read(token)
        return lambda people: people.of_login(claims)

    async def logout(self, token: str, address: str = "") -> None:
        """End a login token; returns once that is stored. Raises `ConflictError` for another."""
        principal = await self.authenticate(token)
        if principal.is_api:
            raise ConflictError("an API token ends when it is revoked: DELETE /api/tokens/{id}")
        entry = self._audit.entry(Origin(principal.username, address), "logout")
        await self._accounts.revoke(principal.jti, principal.expires_ms, entry)
        await self.refresh()

    def subscribe_revocations(self, receive: Callable[[Revocation], None]) -> Callable[[], None]:
        """Call `receive` whenever tokens may have ended early; return what ends that."""
        self._subscribers[receive] = None

        def unsubscribe() -> None:
            self._subscribers.pop(receive, None)

        return unsubscribe

    def _tell(self) -> None:
        revocation = Revocation(self._people, self._clock.now_ms())
        for receive in tuple(self._subscribers):
            receive(revocation)

    async def _verified(self, username: str, password: str) -> Account | None:
        account = await self._find(username)
        stored = account.password_hash if account and not account.disabled else None
        is_right = await self._passwords.is_right(password[:LONGEST], stored)
        return account if is_right and len(password) <= LONGEST else None

    async def _find(self, username: str) -> Account | None:
        try:
            return await self._accounts.account(username)
        except NotFoundError:
            return None
