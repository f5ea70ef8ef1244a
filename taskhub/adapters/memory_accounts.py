"""Accounts and the audit as long as the process lives; see `taskhub.adapters.memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskhub.domain.audit import AuditEntry
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.accounts import Account, ApiToken, AuditQuery
from taskhub.ports.store import Page


class MemoryAuditStore:
    """Implements `taskhub.ports.accounts.AuditStore`."""

    def __init__(self) -> None:
        self._entries: dict[int, AuditEntry] = {}
        self._keys: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether an entry of that key is here."""
        return key in self._keys

    def add(self, entries: Sequence[AuditEntry]) -> None:
        """Store entries, each once, each with an id of its own."""
        for entry in entries:
            if entry.key in self._keys:
                continue
            i = entry.id
            while i in self._entries:
                i += 1
            self._entries[i] = entry._replace(id=i)
            self._keys.add(entry.key)

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        self.add(entries)

    async def entries(
        self, query: AuditQuery, limit: int, before: int | None = None
    ) -> Page[AuditEntry]:
        found = [
            self._entries[i]
            for i in sorted(self._entries, reverse=True)
            if (before is None or i < before) and _matches(query, self._entries[i])
        ]
        more = len(found) > limit > 0
        return Page(items=found[:limit], next_before=found[limit - 1].id if more else None)

    async def expire(self, before_ms: int, limit: int = 1000) -> int:
        old = sorted((e.ts_ms, i) for i, e in self._entries.items() if e.ts_ms < before_ms)[:limit]
        for _, i in old:
            self._keys.discard(self._entries.pop(i).key)
        return len(old)


def _matches(query: AuditQuery, entry: AuditEntry) -> bool:
    return (
        query.actor in {None, entry.actor}
        and query.action in {None, entry.action}
        and query.target in {None, entry.target}
        and query.outcome in {None, entry.outcome}
        and (query.start_ts_ms is None or query.start_ts_ms <= entry.ts_ms)
        and (query.end_ts_ms is None or entry.ts_ms <= query.end_ts_ms)
    )


class MemoryAccountStore:
    """Implements `taskhub.ports.accounts.AccountStore`."""

    def __init__(self, audit: MemoryAuditStore | None = None) -> None:
        self._audit = audit or MemoryAuditStore()
        self._accounts: dict[str, Account] = {}
        self._tokens: dict[str, ApiToken] = {}
        self._revoked: dict[str, int] = {}
        self._revision = 0

    async def account(self, username: str) -> Account:
        if username not in self._accounts:
            raise NotFoundError("account", username)
        return self._accounts[username]

    async def accounts(self) -> Sequence[Account]:
        return [self._accounts[name] for name in sorted(self._accounts)]

    async def add_account(self, account: Account, entry: AuditEntry) -> None:
        if self._audit.has(entry.key):
            return
        if account.username in self._accounts:
            raise ConflictError(f"there is an account {account.username!r}")
        self._accounts[account.username] = account
        self._note(entry)

    async def change_account(self, account: Account, entry: AuditEntry) -> None:
        if self._audit.has(entry.key):
            return
        stored = await self.account(account.username)
        if stored.version != account.version - 1:
            message = f"the account {account.username!r} was changed meanwhile; try again"
            raise ConflictError(message)
        self._accounts[account.username] = account
        self._note(entry)

    async def remove_account(self, username: str, entry: AuditEntry) -> None:
        if self._audit.has(entry.key):
            return
        await self.account(username)
        del self._accounts[username]
        self._tokens = {i: t for i, t in self._tokens.items() if t.username != username}
        self._note(entry)

    async def token(self, token_id: str) -> ApiToken:
        if token_id not in self._tokens:
            raise NotFoundError("token", token_id)
        return self._tokens[token_id]

    async def tokens(self, username: str | None = None) -> Sequence[ApiToken]:
        found = [t for t in self._tokens.values() if username in {None, t.username}]
        return sorted(found, key=lambda token: (token.created_ms, token.id))

    async def add_token(self, token: ApiToken, entry: AuditEntry) -> None:
        if self._audit.has(entry.key):
            return
        if token.id in self._tokens:
            raise ConflictError(f"there is a token {token.id!r}")
        self._tokens[token.id] = token
        self._note(entry)

    async def remove_token(self, token_id: str, entry: AuditEntry) -> None:
        if self._audit.has(entry.key):
            return
        await self.token(token_id)
        del self._tokens[token_id]
        self._note(entry)

    async def revoke(self, jti: str, expires_ms: int, entry: AuditEntry) -> None:
        self._revoked[jti] = expires_ms
        self._note(entry)

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

    def _note(self, entry: AuditEntry) -> None:
        self._audit.add([entry])
        self._revision += 1
