"""Accounts and revoked tokens, in the file of the runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import astuple
from typing import Final

from taskhub.adapters.sqlite.database import Database
from taskhub.errors import NotFoundError
from taskhub.ports.accounts import Account

FIND: Final = """SELECT username, password_hash, role, version, disabled
    FROM accounts WHERE username = ?"""
PUT: Final = """INSERT OR REPLACE INTO accounts (username, password_hash, role, version, disabled)
    VALUES (?, ?, ?, ?, ?)"""
REVOKE: Final = "INSERT OR REPLACE INTO revoked (jti, expires_ms) VALUES (?, ?)"


class SqliteAccountStore:
    """Implements `taskhub.ports.store.AccountStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def account(self, username: str) -> Account:
        row = await self._database.read(lambda c: c.execute(FIND, (username,)).fetchone())
        if row is None:
            raise NotFoundError("account", username)
        name, password_hash, role, version, disabled = row
        return Account(
            username=name,
            password_hash=password_hash,
            role=role,
            version=version,
            disabled=bool(disabled),
        )

    async def put_account(self, account: Account) -> None:
        await self._database.write(lambda connection: connection.execute(PUT, astuple(account)))

    async def revoke(self, jti: str, expires_ms: int) -> None:
        await self._database.write(lambda connection: connection.execute(REVOKE, (jti, expires_ms)))

    async def revoked(self, now_ms: int) -> Mapping[str, int]:
        def forget_and_list(connection: sqlite3.Connection) -> dict[str, int]:
            connection.execute("DELETE FROM revoked WHERE expires_ms <= ?", (now_ms,))
            return dict(connection.execute("SELECT jti, expires_ms FROM revoked").fetchall())

        return await self._database.write(forget_and_list)
