"""Who is asking, and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from taskhub.errors import ConflictError, InvalidError, NotFoundError, UnauthorizedError
from taskhub.ports.accounts import Account, AccountStore
from taskhub.ports.clock import Clock
from taskhub.services.passwords import LONGEST, Passwords
from taskhub.services.throttle import Throttle
from taskhub.services.tokens import NO_TOKEN, Claims, Tokens

ADMIN: Final = "admin"
TOKEN_TTL_MS: Final = 2 * 3_600_000
CACHE_MS: Final = 5_000
CACHE_SIZE: Final = 1_000
ADDRESS_FAILURES: Final = 50
"""More than for a name: behind a proxy everybody has the same address."""
PRUNE_MS: Final = 60_000


class Role(IntEnum):
    """What an account may do; each may do what those below it may."""

    VIEWER = 1
    RUNNER = 2
    OPERATOR = 3
    ADMIN = 4

    @property
    def word(self) -> str:
        """The name that accounts carry."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """Return the role an account's word names; raise `InvalidError`."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise InvalidError(f"no role {word[:40]!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who has shown a good token."""

    username: str
    role: Role
    jti: str
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Tokens that ended before their time: one, or (no jti) all that an account had."""

    username: str
    jti: str = ""

    def covers(self, principal: Principal) -> bool:
        """Say whether this principal's token is among them."""
        return principal.username == self.username and self.jti in {"", principal.jti}


class AuthService:
    """Logs in and out, and says who a token belongs to.

    `start` before use, `close` after. Tokens end when they expire, at logout, and when their
    account changes: each carries its account's version. Accounts are cached for 5 s, but changes
    made here count at once.
    """

    def __init__(
        self,
        accounts: AccountStore,
        key: bytes,
        clock: Clock,
        *,
        token_ttl_ms: int = TOKEN_TTL_MS,
        throttle: Throttle | None = None,
        addresses: Throttle | None = None,
        passwords: Passwords | None = None,
    ) -> None:
        self._accounts = accounts
        self._clock = clock
        self._tokens = Tokens(key, clock, token_ttl_ms)
        self._throttle = throttle or Throttle(clock)
        self._addresses = addresses or Throttle(clock, failures=ADDRESS_FAILURES)
        self._passwords = passwords or Passwords()
        self._revoked: dict[str, int] = {}
        self._pruned_ms = 0
        self._cache: dict[str, tuple[Account, int]] = {}
        self._subscribers: dict[Callable[[Revocation], None], None] = {}

    async def start(self) -> None:
        """Load the revoked tokens."""
        self._revoked = dict(await self._accounts.revoked(self._clock.now_ms()))

    async def close(self) -> None:
        """End the threads."""
        self._passwords.close()

    async def login(self, username: str, password: str, address: str) -> str:
        """Return a token; raise `UnauthorizedError`, or `TooManyError` after too many failures.

        An unknown name costs the same time as a wrong password.
        """
        name = username[:128]
        self._check_failures(name, address)
        async with self._passwords.turn():
            self._check_failures(name, address)  # those who waited before may have failed
            account = await self._verified(username, password)
        if account is None:
            self._throttle.failed(name)
            self._addresses.failed(address)
            raise UnauthorizedError("wrong username or password")
        self._throttle.forget(name)
        return self._tokens.issue(account)

    def _check_failures(self, name: str, address: str) -> None:
        self._throttle.check(name)
        self._addresses.check(address)

    async def authenticate(self, token: str) -> Principal:
        """Return whose token it is; raise `UnauthorizedError`, always with the same words."""
        claims = self._tokens.read(token)
        if claims.jti in self._revoked:
            raise UnauthorizedError(NO_TOKEN)
        return _principal(claims, await self._account(claims.username))

    async def logout(self, token: str) -> None:
        """End a token; returns once that is stored."""
        principal = await self.authenticate(token)
        await self._accounts.revoke(principal.jti, principal.expires_ms)
        self._prune()
        self._revoked[principal.jti] = principal.expires_ms
        self._tell(Revocation(username=principal.username, jti=principal.jti))

    async def create(self, username: str, password: str, role: Role) -> None:
        """Make an account; raise `ConflictError` if there is one of that name."""
        if await self._find(username) is not None:
            raise ConflictError(f"there is an account {username!r}")
        hashed = await self._hash(password)
        await self._put(Account(username=username, password_hash=hashed, role=role.word))

    async def change(
        self,
        username: str,
        *,
        password: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
    ) -> None:
        """Change an account and end its tokens; raise `NotFoundError`."""
        account = await self._accounts.account(username)
        await self._put(
            replace(
                account,
                password_hash=account.password_hash
                if password is None
                else await self._hash(password),
                role=account.role if role is None else role.word,
                disabled=account.disabled if disabled is None else disabled,
                version=account.version + 1,
            )
        )
        self._tell(Revocation(username=username))

    def subscribe_revocations(self, receive: Callable[[Revocation], None]) -> Callable[[], None]:
        """Call `receive` whenever tokens end early; return what ends that."""
        self._subscribers[receive] = None

        def unsubscribe() -> None:
            self._subscribers.pop(receive, None)

        return unsubscribe

    def _tell(self, revocation: Revocation) -> None:
        for receive in tuple(self._subscribers):
            receive(revocation)

    async def _verified(self, username: str, password: str) -> Account | None:
        account = await self._find(username)
        stored = account.password_hash if account and not account.disabled else None
        is_right = await self._passwords.is_right(password[:LONGEST], stored)
        return account if is_right and len(password) <= LONGEST else None

    async def _hash(self, password: str) -> str:
        if not 0 < len(password) <= LONGEST:
            raise InvalidError(f"a password has 1 to {LONGEST} characters")
        async with self._passwords.turn():
            return await self._passwords.hash(password)

    async def _find(self, username: str) -> Account | None:
        try:
            return await self._accounts.account(username)
        except NotFoundError:
            return None

    async def _put(self, account: Account) -> None:
        await self._accounts.put_account(account)
        self._remember(account)

    async def _account(self, username: str) -> Account:
        account, until_ms = self._cache.get(username, (None, 0))
        if account is None or until_ms <= self._clock.monotonic_ms():
            account = await self._find(username)
            if account is None:
                raise UnauthorizedError(NO_TOKEN)
            account = self._remember(account)
        return account

    def _remember(self, account: Account) -> Account:
        known, _ = self._cache.get(account.username, (account, 0))
        if known.version > account.version:  # it changed here while the store was being asked
            return known
        if len(self._cache) >= CACHE_SIZE:
            self._cache.clear()
        self._cache[account.username] = account, self._clock.monotonic_ms() + CACHE_MS
        return account

    def _prune(self) -> None:
        if self._clock.monotonic_ms() - self._pruned_ms >= PRUNE_MS:
            self._pruned_ms = self._clock.monotonic_ms()
            now_ms = self._clock.now_ms()
            self._revoked = {jti: end for jti, end in self._revoked.items() if end > now_ms}


def _principal(claims: Claims, account: Account) -> Principal:
    if account.disabled or account.version != claims.version:
        raise UnauthorizedError(NO_TOKEN)
    return Principal(
        username=account.username,
        role=Role.of(account.role),
        jti=claims.jti,
        expires_ms=claims.expires_ms,
    )
