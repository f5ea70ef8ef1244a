"""Use cases about users and API tokens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from taskhub.domain.task import ID_PATTERN, ID_RULE
from taskhub.errors import ConflictError, InvalidError, NotFoundError, Problem
from taskhub.ports.accounts import Account, AccountStore, ApiToken
from taskhub.ports.clock import Clock
from taskhub.services.audit_log import AuditLog
from taskhub.services.origin import Origin
from taskhub.services.passwords import LONGEST, Passwords
from taskhub.services.people import API_PREFIX, digest_of
from taskhub.services.roles import Role
from taskhub.services.throttle import Throttle

SHORTEST: Final = 8
SECRET_BYTES: Final = 32
LONGEST_NAME: Final = 128
DAY_MS: Final = 86_400_000
MOST_DAYS: Final = 3650
MOST_ACCOUNTS: Final = 10_000
TOKEN_CHANGES: Final = 60
"""API tokens that one user may make and revoke in a minute."""
MOST_TOKENS: Final = 100
MOST_TOKENS_IN_ALL: Final = 10_000
"""API tokens of one user, and of all: they are kept in memory."""
RESERVED: Final = frozenset({"anonymous", "server"})
CLI_PREFIX: Final = "cli:"
"""What the audit calls those who have no account; no user may pass for one of them."""


async def _nobody() -> None:
    return None


class Accounts:
    """Makes, changes and removes accounts and API tokens; `changed` is called after each of these.

    Each change is in the audit. The last administrator who can log in stays one.
    """

    def __init__(
        self,
        store: AccountStore,
        clock: Clock,
        passwords: Passwords,
        audit: AuditLog,
        changed: Callable[[], Awaitable[None]] = _nobody,
    ) -> None:
        self._store = store
        self._clock = clock
        self._passwords = passwords
        self._audit = audit
        self._changed = changed
        self._turn = asyncio.Lock()
        self._changes = Throttle(clock, failures=TOKEN_CHANGES, window_ms=60_000)

    async def all(self) -> Sequence[Account]:
        """Return all accounts, by name."""
        return await self._store.accounts()

    async def get(self, username: str) -> Account:
        """Return an account; raise `NotFoundError`."""
        return await self._store.account(username)

    async def create(
        self, username: str, password: str, role: Role, origin: Origin, *, shortest: int = SHORTEST
    ) -> Account:
        """Make an account; raise `InvalidError`, or `ConflictError` if there is one of that name.

        A password has at least `shortest` characters.
        """
        problems = [*_name_problems(username), *_password_problems(password, shortest)]
        if problems:
            raise InvalidError(problems)
        if len(await self._store.accounts()) >= MOST_ACCOUNTS:
            raise ConflictError(f"there are {MOST_ACCOUNTS} accounts already")
        now = self._clock.now_ms()
        account = Account(
            username=username,
            password_hash=await self._hash(password),
            role=role.word,
            version=now,
            created_ms=now,
        )
        entry = self._audit.entry(origin, "user.add", username, detail={"role": role.word})
        await self._store.add_account(account, entry)
        await self._changed()
        return account

    async def change(
        self,
        username: str,
        *,
        password: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        origin: Origin,
        shortest: int = SHORTEST,
    ) -> Account:
        """Change an account and end its login tokens; return it as it is now.

        Raises `NotFoundError`, `InvalidError`, or `ConflictError` where nobody could administer
        any more, or somebody else changed the account at the same moment.
        """
        if password is not None and (problems := _password_problems(password, shortest)):
            raise InvalidError(problems)
        hashed = None if password is None else await self._hash(password)
        async with self._turn:
            account = await self._store.account(username)
            changed = replace(
                account,
                password_hash=account.password_hash if hashed is None else hashed,
                role=account.role if role is None else role.word,
                disabled=account.disabled if disabled is None else disabled,
                version=account.version + 1,
            )
            if _can_administer(account) and not _can_administer(changed):
                await self._refuse_if_last(username)
            given = {
                "password": None if password is None else "changed",
                "role": None if role is None else role.word,
                "disabled": disabled,
            }
            detail = {name: value for name, value in given.items() if value is not None}
            entry = self._audit.entry(origin, "user.change", username, detail=detail)
            await self._store.change_account(changed, entry)
        await self._changed()
        return changed

    async def remove(self, username: str, origin: Origin) -> None:
        """Remove an account and its API tokens; raise `NotFoundError` or `ConflictError`."""
        async with self._turn:
            if _can_administer(await self._store.account(username)):
                await self._refuse_if_last(username)
            entry = self._audit.entry(origin, "user.remove", username)
            await self._store.remove_account(username, entry)
        await self._changed()

    async def is_right(self, username: str, password: str) -> bool:
        """Compare a password with an account's; takes as long as a login."""
        stored = (await self._store.account(username)).password_hash
        async with self._passwords.turn():
            is_right = await self._passwords.is_right(password[:LONGEST], stored)
        return is_right and len(password) <= LONGEST

    async def add_token(
        self, username: str, name: str, role: Role | None, days: int | None, origin: Origin
    ) -> tuple[ApiToken, str]:
        """Make an API token for a user; return it and its text, which is not kept.

        Without a `role` it has the user's, without `days` it never expires. Raises `NotFoundError`
        or `InvalidError`, also for a role above the user's.
        """
        self._check_pace(origin)
        account = await self._store.account(username)
        role = Role.of(account.role) if role is None else role
        problems = list(_token_problems(name, role, Role.of(account.role), days))
        if problems:
            raise InvalidError(problems)
        tokens = await self._store.tokens()
        if len(tokens) >= MOST_TOKENS_IN_ALL:
            raise ConflictError(f"there are {MOST_TOKENS_IN_ALL} API tokens already")
        if sum(token.username == username for token in tokens) >= MOST_TOKENS:
            raise ConflictError(f"{username} has {MOST_TOKENS} API tokens already")
        now, secret = self._clock.now_ms(), secrets.token_urlsafe(SECRET_BYTES)
        token = ApiToken(
            id=secrets.token_hex(8),
            name=name,
            username=username,
            role=role.word,
            digest=digest_of(secret),
            created_ms=now,
            expires_ms=0 if days is None else now + days * DAY_MS,
        )
        detail = {"user": username, "name": name, "role": role.word}
        entry = self._audit.entry(origin, "token.add", token.id, detail=detail)
        await self._store.add_token(token, entry)
        await self._changed()
        return token, f"{API_PREFIX}{token.id}_{secret}"

    async def tokens(self, username: str | None = None) -> Sequence[ApiToken]:
        """Return the API tokens (of one user), oldest first; raise `NotFoundError`."""
        if username is not None:
            await self._store.account(username)
        users = {account.username: account for account in await self._store.accounts()}
        tokens = await self._store.tokens(username)
        return [
            _as_good(token, users[token.username]) for token in tokens if token.username in users
        ]

    async def remove_token(self, token_id: str, origin: Origin, owner: str | None = None) -> None:
        """End an API token; raise `NotFoundError`, also for one of another than `owner`."""
        self._check_pace(origin)
        token = await self._store.token(token_id)
        if owner is not None and token.username != owner:
            raise NotFoundError("token", token_id)
        detail = {"user": token.username, "name": token.name}
        entry = self._audit.entry(origin, "token.revoke", token_id, detail=detail)
        await self._store.remove_token(token_id, entry)
        await self._changed()

    def _check_pace(self, origin: Origin) -> None:
        """Count a change of tokens; each is kept in the audit, which nobody may fill."""
        self._changes.check(origin.actor)
        self._changes.failed(origin.actor)

    async def _hash(self, password: str) -> str:
        async with self._passwords.turn():
            return await self._passwords.hash(password)

    async def _refuse_if_last(self, username: str) -> None:
        others = (a for a in await self._store.accounts() if a.username != username)
        if not any(map(_can_administer, others)):
            raise ConflictError(f"{username} is the only administrator who can log in")


def _as_good(token: ApiToken, user: Account) -> ApiToken:
    """Return a token with the role that it gives now: the user's, if that has become lower."""
    return replace(token, role=min(Role.of(token.role), Role.of(user.role)).word)


def _can_administer(account: Account) -> bool:
    return account.role == Role.ADMIN.word and not account.disabled


def name_problem(username: str) -> str:
    """Return what is wrong with the name of a new user; empty if nothing is."""
    if not ID_PATTERN.fullmatch(username):
        return f"must be {ID_RULE}"
    if username in RESERVED or username.startswith(CLI_PREFIX):
        return "is reserved"
    return ""


def token_name_problem(name: str) -> str:
    """Return what is wrong with the name of a new token; empty if nothing is."""
    if 0 < len(name) <= LONGEST_NAME and name.isprintable():
        return ""
    return f"must be 1 to {LONGEST_NAME} characters, none of them a control character"


def is_good_password(password: str, shortest: int = SHORTEST) -> bool:
    """Say whether a new password may be this one."""
    return shortest <= len(password) <= LONGEST and _is_unicode(password)


def password_rule(shortest: int) -> str:
    """Return what `is_good_password` asks for."""
    return f"must have {shortest} to {LONGEST} characters"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, from a terminal with another encoding
        return False
    return True


def _name_problems(username: str) -> Sequence[Problem]:
    problem = name_problem(username)
    return [Problem("/username", problem)] if problem else []


def _password_problems(password: str, shortest: int) -> Sequence[Problem]:
    if is_good_password(password, shortest):
        return []
    return [Problem("/password", password_rule(shortest))]


def _token_problems(name: str, role: Role, most: Role, days: int | None) -> Iterator[Problem]:
    if problem := token_name_problem(name):
        yield Problem("/name", problem)
    if role > most:
        yield Problem("/role", f"must not be above the user's own, {most.word}")
    if days is not None and not 0 < days <= MOST_DAYS:
        yield Problem("/days", f"must be 1 to {MOST_DAYS}")
