"""Where accounts, API tokens and the audit are kept.

Every method may raise `UnavailableError`, as those of `taskhub.ports.store` do. Several processes
use these stores at once: servers, and the command line beside a running server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.ports.store import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who may log in.

    `version` grows by one with each change, which ends the login tokens made before; it starts at
    the time of creation in milliseconds, so that a name used again never meets its old tokens.
    """

    username: str
    password_hash: str
    role: str
    version: int = 1
    disabled: bool = False
    created_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token for a machine: acts for `username`, with `role` or that user's if it is lower.

    `digest` is the SHA-256 of the secret in hexadecimal; `expires_ms` 0 means never.
    """

    id: str
    name: str
    username: str
    role: str
    digest: str
    created_ms: int
    expires_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries: all conditions hold, None means any; times are inclusive."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    outcome: Outcome | None = None
    start_ts_ms: int | None = None
    end_ts_ms: int | None = None


class AccountStore(Protocol):
    """Who may do what, and which tokens are no longer good.

    A method with an `entry` stores it with the change: never the change without the entry, and
    no entry where the change was refused. What was refused has changed nothing. An entry gets the
    next free id, as with `AuditStore.append`.

    A call whose `entry.key` is stored is one that was made before, whose answer its caller did
    not see: it succeeds, and after it things are as after the first. So the repetition of an
    addition or a change is no conflict, and that of a removal no `NotFoundError`. Where others have
    changed the same account or token since, it may be a `ConflictError` all the same.
    """

    async def account(self, username: str) -> Account:
        """Return an account; raise `NotFoundError`."""
        ...

    async def accounts(self) -> Sequence[Account]:
        """Return all accounts, by name."""
        ...

    async def add_account(self, account: Account, entry: AuditEntry) -> None:
        """Create an account; raise `ConflictError` if there is one of that name."""
        ...

    async def change_account(self, account: Account, entry: AuditEntry) -> None:
        """Replace an account whose stored version is one below; else raise `ConflictError`.

        Raises `NotFoundError` if there is none.
        """
        ...

    async def remove_account(self, username: str, entry: AuditEntry) -> None:
        """Delete an account and its API tokens; raise `NotFoundError`."""
        ...

    async def token(self, token_id: str) -> ApiToken:
        """Return an API token; raise `NotFoundError`."""
        ...

    async def tokens(self, username: str | None = None) -> Sequence[ApiToken]:
        """Return the API tokens (of one user), oldest first by `created_ms`, then by id."""
        ...

    async def add_token(self, token: ApiToken, entry: AuditEntry) -> None:
        """Store an API token; raise `ConflictError` if there is one of that id."""
        ...

    async def remove_token(self, token_id: str, entry: AuditEntry) -> None:
        """Delete an API token; raise `NotFoundError`."""
        ...

    async def revoke(self, jti: str, expires_ms: int, entry: AuditEntry) -> None:
        """Remember a login token as revoked until it would have expired anyway. Idempotent."""
        ...

    async def revoked(self, now_ms: int) -> Mapping[str, int]:
        """Return the revoked tokens that have not expired, with their expiry; forget the others."""
        ...

    async def revision(self) -> int:
        """Return a number that grows with every change that any process made here; cheap.

        What was refused may make it grow, and so may a repeated call.
        """
        ...

    async def restore(
        self,
        accounts: Sequence[Account],
        tokens: Sequence[ApiToken],
        revoked: Mapping[str, int],
    ) -> None:
        """Put all of these, replacing what has the same name or id. For migrations.

        No entry is made; `revision` grows.
        """
        ...


class AuditStore(Protocol):
    """Who did what; only ever appended to, and cut off at its old end."""

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Store entries, flushed; an entry whose `key` is there stays as it is.

        An entry whose id another one has gets the next free one. Where this raises, some may be
        stored; the same call, repeated, stores the rest.
        """
        ...

    async def entries(
        self, query: AuditQuery, limit: int, before: int | None = None
    ) -> Page[AuditEntry]:
        """Return entries by descending id, those below `before`; `limit` is positive."""
        ...

    async def expire(self, before_ms: int, limit: int = 1000) -> int:
        """Delete up to `limit` entries from before a time, oldest first; return how many."""
        ...
