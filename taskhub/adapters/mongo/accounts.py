"""Accounts, API tokens and revoked login tokens.

Each change is one document, and the entry of the audit is another: the entry is stored first, and
taken back where the change is refused. `entry_key` in a document names the last change that was
made to it, so that a repeated call finds its own work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from typing import Any

from taskhub.adapters.mongo.audit import append_entry
from taskhub.adapters.mongo.client import Database, DuplicateKeyError, ReplaceOne, UpdateOne
from taskhub.domain.audit import AuditEntry
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.accounts import Account, ApiToken

Document = dict[str, Any]
REVISION = "accounts"


class MongoAccountStore:
    """Implements `taskhub.ports.accounts.AccountStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._accounts = database["accounts"]
        self._tokens = database["tokens"]
        self._revoked = database["revoked"]
        self._meta = database["meta"]

    async def account(self, username: str) -> Account:
        found = await self._accounts.find_one({"_id": username})
        if found is None:
            raise NotFoundError("account", username)
        return _account(found)

    async def accounts(self) -> Sequence[Account]:
        return [_account(d) for d in await self._accounts.find({}, sort=[("_id", 1)])]

    async def add_account(self, account: Account, entry: AuditEntry) -> None:
        async with self._changing(entry):
            await self._add(self._accounts, _account_document(account, entry.key), "an account")

    async def _add(self, collection: Any, document: Document, what: str) -> None:  # noqa: ANN401
        try:
            await collection.insert_one(document)
        except DuplicateKeyError:
            stored = await collection.find_one({"_id": document["_id"]}, ("entry_key",))
            if stored is None or stored["entry_key"] != document["entry_key"]:
                raise ConflictError(f"there is {what} {document['_id']!r}") from None

    async def change_account(self, account: Account, entry: AuditEntry) -> None:
        name = account.username
        document = _account_document(account, entry.key)
        async with self._changing(entry):
            query = {"_id": name, "version": account.version - 1}
            if await self._accounts.update_one(query, {"$set": document}):
                return
            stored = await self._accounts.find_one({"_id": name}, ("entry_key",))
            if stored is None:
                raise NotFoundError("account", name)
            if stored["entry_key"] != entry.key:
                raise ConflictError(f"the account {name!r} was changed meanwhile; try again")

    async def remove_account(self, username: str, entry: AuditEntry) -> None:
        async with self._changing(entry) as is_repeated:
            if not await self._accounts.delete({"_id": username}) and not is_repeated:
                raise NotFoundError("account", username)
            await self._tokens.delete({"username": username})

    async def token(self, token_id: str) -> ApiToken:
        found = await self._tokens.find_one({"_id": token_id})
        if found is None:
            raise NotFoundError("token", token_id)
        return _token(found)

    async def tokens(self, username: str | None = None) -> Sequence[ApiToken]:
        query = {} if username is None else {"username": username}
        found = await self._tokens.find(query, sort=[("created_ms", 1), ("_id", 1)])
        return [_token(document) for document in found]

    async def add_token(self, token: ApiToken, entry: AuditEntry) -> None:
        async with self._changing(entry):
            await self._add(self._tokens, _token_document(token, entry.key), "a token")

    async def remove_token(self, token_id: str, entry: AuditEntry) -> None:
        async with self._changing(entry) as is_repeated:
            if not await self._tokens.delete({"_id": token_id}) and not is_repeated:
                raise NotFoundError("token", token_id)

    async def revoke(self, jti: str, expires_ms: int, entry: AuditEntry) -> None:
        async with self._changing(entry):
            await self._put_revoked({jti: expires_ms})

    async def revoked(self, now_ms: int) -> Mapping[str, int]:
        await self._revoked.delete({"expires_ms": {"$lte": now_ms}})
        return {d["_id"]: d["expires_ms"] for d in await self._revoked.find({})}

    async def revision(self) -> int:
        found = await self._meta.find_one({"_id": REVISION})
        return found["value"] if found else 0

    async def restore(
        self,
        accounts: Sequence[Account],
        tokens: Sequence[ApiToken],
        revoked: Mapping[str, int],
    ) -> None:
        await self._put(self._accounts, [_account_document(each, "") for each in accounts])
        await self._put(self._tokens, [_token_document(each, "") for each in tokens])
        await self._put_revoked(revoked)
        await self._note_change()

    async def _put(self, collection: Any, documents: Sequence[Document]) -> None:  # noqa: ANN401
        await collection.write([ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in documents])

    async def _put_revoked(self, revoked: Mapping[str, int]) -> None:
        documents = [{"_id": jti, "expires_ms": expires_ms} for jti, expires_ms in revoked.items()]
        await self._put(self._revoked, documents)

    @asynccontextmanager
    async def _changing(self, entry: AuditEntry) -> AsyncIterator[bool]:
        """Keep the entry with the change in the block; yields whether the entry was there."""
        audit = self._database["audit"]
        is_repeated = await audit.find_one({"key": entry.key}, ("_id",)) is not None
        if not is_repeated:
            await append_entry(self._database, entry)
        await self._note_change()  # first too: whoever dies in between has told of the change
        try:
            yield is_repeated
        except (ConflictError, NotFoundError):
            if not is_repeated:  # else it may have been made, before another change
                await audit.delete({"key": entry.key})
            raise
        await self._note_change()

    async def _note_change(self) -> None:
        """Tell other processes that something changes, and, so that they find it, that it has."""
        await self._meta.write([UpdateOne({"_id": REVISION}, {"$inc": {"value": 1}}, upsert=True)])


def _account_document(account: Account, entry_key: str) -> Document:
    document = {**asdict(account), "entry_key": entry_key}
    document["_id"] = document.pop("username")
    return document


def _account(document: Document) -> Account:
    values = {f.name: document[f.name] for f in fields(Account) if f.name != "username"}
    return Account(username=document["_id"], **values)


def _token_document(token: ApiToken, entry_key: str) -> Document:
    document = {**asdict(token), "entry_key": entry_key}
    document["_id"] = document.pop("id")
    return document


def _token(document: Document) -> ApiToken:
    values = {f.name: document[f.name] for f in fields(ApiToken) if f.name != "id"}
    return ApiToken(id=document["_id"], **values)
