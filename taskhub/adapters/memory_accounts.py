"""Accounts and the audit in dictionaries, for as long as the process lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TypeVar

from taskhub.domain.audit import AuditEntry
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.accounts import Account, ApiToken, AuditQuery
from taskhub.ports.store import Page

T = TypeVar("T")


class MemoryAuditStore:
    """Implements `taskhub.ports.accounts.AuditStore`."""

    def __init__(self) -> None:
        self._entries: dict[int, AuditEntry] = {}
        self._keys: dict[str, int] = {}

    def has(self, key: str) -> bool:
        """Say whether an entry is stored."""
        return key in self._keys

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        for entry in entries:
            if entry.key not in self._keys:
                free = next(i for i in count(entry.id) if i not in self._entries)
                self._entries[free] = entry._replace(id=free)
                self._keys[entry.key] = free

    async def entries(
        self, query: AuditQuery, limit: int, before: int | None = None
    ) -> Page[AuditEntry]:
        rows = [entry for entry in self._entries.values() if _matches(query, entry)]
        return newest(rows, lambda entry: entry.id, limit, before)

    async def expire(self, before_ms: int, limit: int = 1000) -> int:
        old = [entry for entry in self._entries.values() if entry.ts_ms < before_ms]
        old = sorted(old, key=lambda entry: entry.ts_ms)[:limit]
        for entry in old:
            del self._entries[entry.id], self._keys[entry.key]
        return len(old)


def _matches(query: AuditQuery, entry: AuditEntry) -> bool:
    return (
        query.actor in {None, entry.actor}
        and query.action in {None, entry.action}
        and query.target in {None, entry.target}
        and query.outcome in {None, entry.outcome}
        and is_within(entry.ts_ms, query.start_ts_ms, query.end_ts_ms)
    )


class MemoryAccountStore:
    """Implements `taskhub.ports.accounts.AccountStore`."""

    def __init__(self, audit: MemoryAuditStore | None = None) -> None:
        self.audit = audit or MemoryAuditStore()
        self._accounts: dict[str, Account] = {}
        self._tokens: dict[str, ApiToken] = {}
        self._revoked: dict[str, int] = {}
        self._revision = 0

    async def account(self, username: str) -> Account:
        return _find(self._accounts, "account", username)

    async def accounts(self) -> Sequence[Account]:
        return sorted(self._accounts.values(), key=lambda account: account.username)

    async def add_account(self, account: Account, entry: AuditEntry) -> None:
        if self.audit.has(entry.key):
            return
        if account.username in self._accounts:
            raise ConflictError(f"there is an account {account.username!r}")
        self._accounts[account.username] = account
        await self._note(entry)

    async def change_account(self, account: Account, entry: AuditEntry) -> None:
        if self.audit.has(entry.key):
            return
        name = account.username
        if _find(self._accounts, "account", name).version != account.version - 1:
            raise ConflictError(f"the account {name!r} was changed meanwhile; try again")
        self._accounts[name] = account
        await self._note(entry)

    async def remove_account(self, username: str, entry: AuditEntry) -> None:
        if self.audit.has(entry.key):
            return
        _find(self._accounts, "account", username)
        del self._accounts[username]
        self._tokens = {k: t for k, t in self._tokens.items() if t.username != username}
        await self._note(entry)

    async def token(self, token_id: str) -> ApiToken:
        return _find(self._tokens, "token", token_id)

    async def tokens(self, username: str | None = None) -> Sequence[ApiToken]:
        found = [each for each in self._tokens.values() if username in {None, each.username}]
        return sorted(found, key=lambda token: (token.created_ms, token.id))

    async def add_token(self, token: ApiToken, entry: AuditEntry) -> None:
        if self.audit.has(entry.key):
            return
        if token.id in self._tokens:
            raise ConflictError(f"there is a token {token.id!r}")
        self._tokens[token.id] = token
        await self._note(entry)

    async def remove_token(self, token_id: str, entry: AuditEntry) -> None:
        if self.audit.has(entry.key):
            return
        _find(self._tokens, "token", token_id)
        del self._tokens[token_id]
        await self._note(entry)

    async def revoke(self, jti: str, expires_ms: int, entry: AuditEntry) -> None:
        self._revoked[jti] = expires_ms
        await self._note(entry)

    async def revoked(self, now_ms: int) -> Mapping[str, int]:
        self._revoked = {jti: until for jti, until in self._revoked.items() if until > now_ms}
        return dict(self._revoked)

    async def revision(self) -> int:
        return self._revision

    async def restore(
        self,
        accounts: Sequence[Account],
        tokens: Sequence[ApiToken],
        revoked: Mapping[str, int],
    ) -> None:
        self._accounts |= {account.username: account for account in accounts}
        self._tokens |= {token.id: token for token in tokens}
        self._revoked |= revoked
        self._revision += 1

    async def _note(self, entry: AuditEntry) -> None:
        await self.audit.append([entry])
        self._revision += 1


def _find(found: Mapping[str, T], kind: str, name: str) -> T:
    if name not in found:
        raise NotFoundError(kind, name)
    return found[name]


def is_within(ts_ms: int, start: int | None, end: int | None) -> bool:
    """Say whether a time is in a range whose ends may be open."""
    return (start is None or start <= ts_ms) and (end is None or ts_ms <= end)


def newest(rows: Sequence[T], key: Callable[[T], int], limit: int, before: int | None) -> Page[T]:
    """Return a page of the rows whose key is below `before`, by descending key."""
    rows = sorted(rows, key=key, reverse=True)
    rows = [row for row in rows if before is None or key(row) < before]
    more = len(rows) > limit > 0
    return Page(items=rows[:limit], next_before=key(rows[limit - 1]) if more else None)
