"""Accounts, API tokens and revoked login tokens, in the file of the runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any, Final

from taskhub.adapters.sqlite.audit import append_entries, has_entry
from taskhub.adapters.sqlite.database import Database
from taskhub.domain.audit import AuditEntry
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.accounts import Account, ApiToken

ACCOUNT: Final = ", ".join(field.name for field in fields(Account))
TOKEN: Final = ", ".join(field.name for field in fields(ApiToken))
FIND: Final = f"SELECT {ACCOUNT} FROM accounts WHERE username = ?"  # noqa: S608  # constants
ALL: Final = f"SELECT {ACCOUNT} FROM accounts ORDER BY username"  # noqa: S608  # as above
PUT: Final = f"INSERT OR REPLACE INTO accounts ({ACCOUNT}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608
FIND_TOKEN: Final = f"SELECT {TOKEN} FROM tokens WHERE id = ?"  # noqa: S608
TOKENS: Final = f"""SELECT {TOKEN} FROM tokens WHERE ?1 IS NULL OR username = ?1
    ORDER BY created_ms, id"""  # noqa: S608
PUT_TOKEN: Final = f"INSERT OR REPLACE INTO tokens ({TOKEN}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
REVOKE: Final = "INSERT OR REPLACE INTO revoked (jti, expires_ms) VALUES (?, ?)"
CHANGED: Final = """INSERT INTO sequences (name, value) VALUES ('accounts', 1)
    ON CONFLICT (name) DO UPDATE SET value = value + 1"""
REVISION: Final = "SELECT value FROM sequences WHERE name = 'accounts'"

Change = Callable[[sqlite3.Connection], None]


class SqliteAccountStore:
    """Implements `taskhub.ports.accounts.AccountStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def account(self, username: str) -> Account:
        return await self._database.read(lambda connection: _find(connection, username))

    async def accounts(self) -> Sequence[Account]:
        rows = await self._database.read(lambda connection: connection.execute(ALL).fetchall())
        return [_account(row) for row in rows]

    async def add_account(self, account: Account, entry: AuditEntry) -> None:
        def add(connection: sqlite3.Connection) -> None:
            if connection.execute(FIND, (account.username,)).fetchone():
                raise ConflictError(f"there is an account {account.username!r}")
            connection.execute(PUT, astuple(account))

        await self._change(add, entry)

    async def change_account(self, account: Account, entry: AuditEntry) -> None:
        def change(connection: sqlite3.Connection) -> None:
            if _find(connection, account.username).version != account.version - 1:
                message = f"the account {account.username!r} was changed meanwhile; try again"
                raise ConflictError(message)
            connection.execute(PUT, astuple(account))

        await self._change(change, entry)

    async def remove_account(self, username: str, entry: AuditEntry) -> None:
        def remove(connection: sqlite3.Connection) -> None:
            _find(connection, username)
            connection.execute("DELETE FROM accounts WHERE username = ?", (username,))
            connection.execute("DELETE FROM tokens WHERE username = ?", (username,))

        await self._change(remove, entry)

    async def token(self, token_id: str) -> ApiToken:
        return await self._database.read(lambda connection: _find_token(connection, token_id))

    async def tokens(self, username: str | None = None) -> Sequence[ApiToken]:
        rows = await self._database.read(lambda c: c.execute(TOKENS, (username,)).fetchall())
        return [_token(row) for row in rows]

    async def add_token(self, token: ApiToken, entry: AuditEntry) -> None:
        def add(connection: sqlite3.Connection) -> None:
            if connection.execute(FIND_TOKEN, (token.id,)).fetchone():
                raise ConflictError(f"there is a token {token.id!r}")
            connection.execute(PUT_TOKEN, astuple(token))

        await self._change(add, entry)

    async def remove_token(self, token_id: str, entry: AuditEntry) -> None:
        def remove(connection: sqlite3.Connection) -> None:
            _find_token(connection, token_id)
            connection.execute("DELETE FROM tokens WHERE id = ?", (token_id,))

        await self._change(remove, entry)

    async def revoke(self, jti: str, expires_ms: int, entry: AuditEntry) -> None:
        await self._change(lambda c: _do(c.execute(REVOKE, (jti, expires_ms))), entry)

    async def revoked(self, now_ms: int) -> Mapping[str, int]:
        def forget_and_list(connection: sqlite3.Connection) -> dict[str, int]:
            connection.execute("DELETE FROM revoked WHERE expires_ms <= ?", (now_ms,))
            return dict(connection.execute("SELECT jti, expires_ms FROM revoked").fetchall())

        return await self._database.write(forget_and_list)

    async def revision(self) -> int:
        row = await self._database.read(lambda connection: connection.execute(REVISION).fetchone())
        return row[0] if row else 0

    async def restore(
        self,
        accounts: Sequence[Account],
        tokens: Sequence[ApiToken],
        revoked: Mapping[str, int],
    ) -> None:
        def put(connection: sqlite3.Connection) -> None:
            connection.executemany(PUT, [astuple(account) for account in accounts])
            connection.executemany(PUT_TOKEN, [astuple(token) for token in tokens])
            connection.executemany(REVOKE, list(revoked.items()))
            connection.execute(CHANGED)

        await self._database.write(put)

    async def _change(self, change: Change, entry: AuditEntry) -> None:
        """Make a change and store its entry in one transaction; nothing if both are there."""

        def work(connection: sqlite3.Connection) -> None:
            if not has_entry(connection, entry.key):
                change(connection)
                append_entries(connection, [entry])
                connection.execute(CHANGED)

        await self._database.write(work)


def _do(_done: object) -> None:
    return None


def _find(connection: sqlite3.Connection, username: str) -> Account:
    row = connection.execute(FIND, (username,)).fetchone()
    if row is None:
        raise NotFoundError("account", username)
    return _account(row)


def _find_token(connection: sqlite3.Connection, token_id: str) -> ApiToken:
    row = connection.execute(FIND_TOKEN, (token_id,)).fetchone()
    if row is None:
        raise NotFoundError("token", token_id)
    return _token(row)


def _account(row: Sequence[Any]) -> Account:
    values: dict[str, Any] = dict(zip(ACCOUNT.split(", "), row, strict=True))
    return Account(**{**values, "disabled": bool(values["disabled"])})


def _token(row: Sequence[Any]) -> ApiToken:
    values: dict[str, Any] = dict(zip(TOKEN.split(", "), row, strict=True))
    return ApiToken(**values)
