"""Accounts, API tokens and revoked login tokens, in the file of the runs.

Each change is one transaction that begins with its entry of the audit: whether the entry is there
already says whether the change was made before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any, Final

from taskhub.adapters.sqlite.audit import add_entry
from taskhub.adapters.sqlite.database import Database
from taskhub.domain.audit import AuditEntry
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.accounts import Account, ApiToken

FIND: Final = """SELECT username, password_hash, role, version, disabled, created_ms
    FROM accounts WHERE username = ?"""
LIST: Final = """SELECT username, password_hash, role, version, disabled, created_ms
    FROM accounts ORDER BY username"""
PUT: Final = """INSERT OR REPLACE INTO accounts
    (username, password_hash, role, version, disabled, created_ms) VALUES (?, ?, ?, ?, ?, ?)"""
REMOVE: Final = "DELETE FROM accounts WHERE username = ?"
FIND_KEY: Final = """SELECT id, name, username, role, digest, created_ms, expires_ms
    FROM tokens WHERE id = ?"""
LIST_KEYS: Final = """SELECT id, name, username, role, digest, created_ms, expires_ms
    FROM tokens WHERE ?1 IS NULL OR username = ?1 ORDER BY created_ms, id"""
PUT_KEY: Final = """INSERT OR REPLACE INTO tokens
    (id, name, username, role, digest, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"""
REMOVE_KEY: Final = "DELETE FROM tokens WHERE id = ?"
REMOVE_KEYS_OF: Final = "DELETE FROM tokens WHERE username = ?"
REVOKE: Final = "INSERT OR REPLACE INTO revoked (jti, expires_ms) VALUES (?, ?)"
NOTE_CHANGE: Final = """INSERT INTO sequences (name, value) VALUES ('accounts', 1)
    ON CONFLICT (name) DO UPDATE SET value = value + 1"""
REVISION: Final = "SELECT coalesce((SELECT value FROM sequences WHERE name = 'accounts'), 0)"


class SqliteAccountStore:
    """Implements `taskhub.ports.accounts.AccountStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def account(self, username: str) -> Account:
        return await self._database.read(lambda c: _find_account(c, username))

    async def accounts(self) -> Sequence[Account]:
        return await self._database.read(lambda c: [_account(row) for row in c.execute(LIST)])

    async def add_account(self, account: Account, entry: AuditEntry) -> None:
        def add(connection: sqlite3.Connection) -> None:
            if connection.execute(FIND, (account.username,)).fetchone():
                raise ConflictError(f"there is an account {account.username!r}")
            connection.execute(PUT, astuple(account))

        await self._change(entry, add)

    async def change_account(self, account: Account, entry: AuditEntry) -> None:
        name = account.username

        def change(connection: sqlite3.Connection) -> None:
            if _find_account(connection, name).version != account.version - 1:
                raise ConflictError(f"the account {name!r} was changed meanwhile; try again")
            connection.execute(PUT, astuple(account))

        await self._change(entry, change)

    async def remove_account(self, username: str, entry: AuditEntry) -> None:
        def remove(connection: sqlite3.Connection) -> None:
            if not connection.execute(REMOVE, (username,)).rowcount:
                raise NotFoundError("account", username)
            connection.execute(REMOVE_KEYS_OF, (username,))

        await self._change(entry, remove)

    async def token(self, token_id: str) -> ApiToken:
        row = await self._database.read(lambda c: c.execute(FIND_KEY, (token_id,)).fetchone())
        if row is None:
            raise NotFoundError("token", token_id)
        return _token(row)

    async def tokens(self, username: str | None = None) -> Sequence[ApiToken]:
        values = (username,)
        return await self._database.read(
            lambda c: [_token(row) for row in c.execute(LIST_KEYS, values)]
        )

    async def add_token(self, token: ApiToken, entry: AuditEntry) -> None:
        def add(connection: sqlite3.Connection) -> None:
            if connection.execute(FIND_KEY, (token.id,)).fetchone():
                raise ConflictError(f"there is a token {token.id!r}")
            connection.execute(PUT_KEY, astuple(token))

        await self._change(entry, add)

    async def remove_token(self, token_id: str, entry: AuditEntry) -> None:
        def remove(connection: sqlite3.Connection) -> None:
            if not connection.execute(REMOVE_KEY, (token_id,)).rowcount:
                raise NotFoundError("token", token_id)

        await self._change(entry, remove)

    async def revoke(self, jti: str, expires_ms: int, entry: AuditEntry) -> None:
        await self._change(entry, lambda c: c.execute(REVOKE, (jti, expires_ms)))

    async def revoked(self, now_ms: int) -> Mapping[str, int]:
        def forget_and_list(connection: sqlite3.Connection) -> dict[str, int]:
            connection.execute("DELETE FROM revoked WHERE expires_ms <= ?", (now_ms,))
            return dict(connection.execute("SELECT jti, expires_ms FROM revoked").fetchall())

        return await self._database.write(forget_and_list)

    async def revision(self) -> int:
        return await self._database.read(lambda c: int(c.execute(REVISION).fetchone()[0]))

    async def restore(
        self,
        accounts: Sequence[Account],
        tokens: Sequence[ApiToken],
        revoked: Mapping[str, int],
    ) -> None:
        def put(connection: sqlite3.Connection) -> None:
            connection.executemany(PUT, [astuple(account) for account in accounts])
            connection.executemany(PUT_KEY, [astuple(token) for token in tokens])
            connection.executemany(REVOKE, list(revoked.items()))
            connection.execute(NOTE_CHANGE)

        await self._database.write(put)

    async def _change(
        self, entry: AuditEntry, change: Callable[[sqlite3.Connection], object]
    ) -> None:
        def write(connection: sqlite3.Connection) -> None:
            if add_entry(connection, entry):
                change(connection)
                connection.execute(NOTE_CHANGE)

        await self._database.write(write)


def _find_account(connection: sqlite3.Connection, username: str) -> Account:
    row = connection.execute(FIND, (username,)).fetchone()
    if row is None:
        raise NotFoundError("account", username)
    return _account(row)


def _account(row: Sequence[Any]) -> Account:
    name, password_hash, role, version, disabled, created_ms = row
    return Account(
        username=name,
        password_hash=password_hash,
        role=role,
        version=version,
        disabled=bool(disabled),
        created_ms=created_ms,
    )


def _token(row: Sequence[Any]) -> ApiToken:
    names = (field.name for field in fields(ApiToken))
    return ApiToken(**dict(zip(names, row, strict=True)))
