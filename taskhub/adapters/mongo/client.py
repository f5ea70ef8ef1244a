"""The only file that knows motor and PyMongo: connecting, and calls whose errors are ours.

Writes are acknowledged by a majority and journalled. A call that takes too long, or that the
deployment cannot answer now, is an `UnavailableError`; what remains is a mistake of this package.
"""

from __future__ import annotations

import asyncio
import logging
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import pymongo
from bson import Binary
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.errors import BSONError
from bson.int64 import Int64
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel, InsertOne, ReadPreference, ReplaceOne, UpdateOne
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidName,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.uri_parser import parse_uri

from taskhub.domain.redaction import without_password
from taskhub.errors import ConfigError, UnavailableError

__all__ = [
    "Binary",
    "Collection_",
    "Database",
    "DuplicateKeyError",
    "RefusedError",
    "ReplaceOne",
    "UpdateOne",
    "address",
    "connect",
]

log = logging.getLogger(__name__)

T = TypeVar("T")
Document = dict[str, Any]
Sort = Sequence[tuple[str, int]]
Change = Mapping[str, Any] | Sequence[Mapping[str, Any]]

DATABASE: Final = "taskhub"
READ_S: Final = 4.0
"""Reads answer or fail within this: a request is told within 5 s that the store is away."""
WRITE_S: Final = 20.0
INDEX_S: Final = 3600.0
"""An upgrade may have to index 100 million rows."""
SELECT_MS: Final = 3500
CONNECT_MS: Final = 2000
HEARTBEAT_MS: Final = 2000
"""How often the driver looks at each server; that is also how soon it notices one's return."""
OLDEST: Final = (5, 0)
"""The first MongoDB with window functions, which reading a task over all its runs needs."""
ADDRESS: Final = re.compile(r"[\w.\[\]:-]+:\d+: ")
DUPLICATE: Final = 11000
NOT_ALLOWED: Final = frozenset({13, 18, 8000})
MISTAKES: Final = frozenset({2, 9, 14, 15, 17, 26, 40, 59, 66, 67, 85, 86, 121, 17280, 10334})
"""Codes that a wrong command gets, whatever the state of the deployment is."""


class RefusedError(UnavailableError):
    """The deployment is there, and does not let us do this: a mistake at the start, later not."""


class PlainInt(TypeDecoder):
    """Reads 64-bit integers as Python's own: BSON's subclass is unknown to encoders of JSON."""

    bson_type = Int64

    def transform_bson(self, value: Int64) -> int:
        return int(value)


class Collection_:  # noqa: N801  # beside the type of that name
    """One collection; every method raises `UnavailableError` where MongoDB does not do its part."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401  # motor has no types
        self._inner = inner
        self.name: str = inner.name

    async def find_one(
        self, query: Mapping[str, Any], fields: Sequence[str] = (), sort: Sort | None = None
    ) -> Document | None:
        """Return the first document, or None."""
        found: Document | None = await _call(
            READ_S, lambda: self._inner.find_one(query, _projection(fields), sort=sort)
        )
        return found

    async def find(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sort | None = None,
        limit: int = 0,
        fields: Sequence[str] = (),
        hint: str | None = None,
    ) -> list[Document]:
        """Return documents in order."""
        cursor = self._inner.find(query, _projection(fields), sort=sort, limit=limit, hint=hint)
        found: list[Document] = await _call(READ_S, lambda: cursor.to_list(None))
        return found

    async def walk(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sort,
        size: int,
        hint: str | None = None,
    ) -> AsyncIterator[list[Document]]:
        """Yield documents in order, `size` at a time, twice as many each time up to 256."""
        cursor = self._inner.find(query, sort=sort, hint=hint, batch_size=size)
        try:
            while True:
                part: list[Document] = await _call(READ_S, partial(cursor.to_list, size))
                if not part:
                    return
                yield part
                size = min(256, 2 * size)
        finally:
            await cursor.close()

    async def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
        """Return what a pipeline makes of the collection."""
        found: list[Document] = await _call(
            READ_S, lambda: self._inner.aggregate(pipeline).to_list(None)
        )
        return found

    async def explain(self, query: Mapping[str, Any], **options: Any) -> Document:  # noqa: ANN401
        """Return the winning plan of a `find`."""
        plan: Document = await _call(READ_S, lambda: self._inner.find(query, **options).explain())
        return plan

    async def insert_one(self, document: Document) -> None:
        """Insert a document; raise `DuplicateKeyError` where a key is taken."""
        await _call(WRITE_S, lambda: self._inner.insert_one(document))

    async def insert(
        self, documents: Sequence[Document], same: Collection[str] = ("_id",)
    ) -> list[int]:
        """Insert documents; one whose key is there stays as it is there.

        Returns the indices of those. `same` names the fields that make a key of ours: a clash on
        another index is a mistake.
        """
        return await self.write([InsertOne(document) for document in documents], same)

    async def write(self, operations: Sequence[Any], same: Collection[str] = ("_id",)) -> list[int]:
        """Carry out operations in any order; return which of them found their key taken."""
        if not operations:
            return []
        return await _call(WRITE_S, lambda: self._bulk(operations, frozenset(same)))

    async def _bulk(self, operations: Sequence[Any], same: frozenset[str]) -> list[int]:
        try:
            await self._inner.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            taken = details.get("writeErrors", ())
            for each in taken:
                code = each.get("code")
                if code != DUPLICATE and code not in MISTAKES:
                    raise UnavailableError(f"MongoDB: {each.get('errmsg')}") from None
                if code != DUPLICATE or not same & each.get("keyPattern", {}).keys():
                    raise
            if failed := details.get("writeConcernErrors"):
                raise UnavailableError(f"MongoDB: {failed[0].get('errmsg')}") from None
            return [each["index"] for each in taken]
        return []

    async def update_one(
        self, query: Mapping[str, Any], change: Change, *, upsert: bool = False
    ) -> int:
        """Change one document; return how many matched. Raises `DuplicateKeyError`."""
        done = await _call(WRITE_S, lambda: self._inner.update_one(query, change, upsert=upsert))
        return int(done.matched_count)

    async def find_and_update(
        self, query: Mapping[str, Any], change: Change, *, upsert: bool = False
    ) -> Document | None:
        """Change one document and return it as it is then; None if none matched."""
        found: Document | None = await _call(
            WRITE_S,
            lambda: self._inner.find_one_and_update(
                query, change, upsert=upsert, return_document=pymongo.ReturnDocument.AFTER
            ),
        )
        return found

    async def delete(self, query: Mapping[str, Any]) -> int:
        """Delete what matches; return how many."""
        done = await _call(WRITE_S, lambda: self._inner.delete_many(query))
        return int(done.deleted_count)

    async def make_indexes(self, indexes: Sequence[tuple[str, Sort, Mapping[str, Any]]]) -> None:
        """Make the indexes that are missing, each given by name, keys and options."""
        models = [IndexModel(keys, name=name, **options) for name, keys, options in indexes]
        await _call(INDEX_S, lambda: self._inner.create_indexes(models))


class Database:
    """One database of one client."""

    def __init__(self, client: Any, inner: Any) -> None:  # noqa: ANN401  # motor has no types
        self._client = client
        self._inner = inner

    def __getitem__(self, name: str) -> Collection_:
        return Collection_(self._inner[name])

    async def check(self) -> None:
        """Raise `ConfigError` for a deployment that cannot be used, `UnavailableError` for none."""
        info = await _call(READ_S, self._client.server_info)
        if (await _call(READ_S, lambda: self._client.admin.command("hello"))).get("msg"):
            raise ConfigError("a sharded MongoDB cannot be used: connect to one replica set")
        version = tuple(info["versionArray"][:2])
        if version < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise ConfigError(f"MongoDB {info['version']} is too old; {wanted} or newer is needed")

    async def size(self) -> Document:
        """Return `dbStats`."""
        stats: Document = await _call(READ_S, lambda: self._inner.command("dbStats"))
        return stats


def address(url: str, default_database: str = DATABASE) -> str:
    """Return hosts and database of a URL, without user and options; raise `ConfigError`."""
    try:
        parsed = parse_uri(url)
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise ConfigError(f"{without_password(url)}: {without_password(str(error))}") from None
    hosts = ",".join(sorted(f"{host}:{port}" for host, port in parsed["nodelist"]))
    return f"mongodb://{hosts}/{parsed['database'] or default_database}"


@asynccontextmanager
async def connect(url: str, default_database: str = DATABASE) -> AsyncIterator[Database]:
    """Yield the database that the URL names; connects on first use.

    Raises `ConfigError` for a URL or options that make no sense.
    """
    client, inner = _client(url, default_database)
    plain: CodecOptions[Document] = CodecOptions(
        tz_aware=True, type_registry=TypeRegistry([PlainInt()])
    )
    try:
        yield Database(
            client, inner.with_options(codec_options=plain, read_preference=ReadPreference.PRIMARY)
        )
    finally:
        client.close()


def _client(url: str, default_database: str) -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            # of options that are unknown or wrong PyMongo only warns
            warnings.simplefilter("error", UserWarning)
            client: Any = AsyncIOMotorClient(
                url,
                appname="taskhub",
                w="majority",
                journal=True,
                tz_aware=True,
                connect=False,
                connectTimeoutMS=CONNECT_MS,
                serverSelectionTimeoutMS=SELECT_MS,
                heartbeatFrequencyMS=HEARTBEAT_MS,
                io_loop=asyncio.get_running_loop(),
            )
            return client, client.get_default_database(default_database)
    except (ConfigurationError, InvalidURI, InvalidName, UserWarning, ValueError, OSError) as error:
        raise ConfigError(f"store.url: {without_password(str(error))}") from None


async def _call(seconds: float, make: Callable[[], Awaitable[T]]) -> T:
    try:
        with pymongo.timeout(seconds):
            return await make()
    except BulkWriteError:
        raise
    except PyMongoError as error:
        raise _translate(error) from error


def _translate(error: PyMongoError) -> Exception:
    if isinstance(error, DuplicateKeyError):
        return error
    if isinstance(error, OperationFailure):
        if error.code in NOT_ALLOWED:
            log.error("MongoDB refuses the account in store.url", extra={"error": str(error)[:300]})
            return RefusedError("MongoDB refuses the account in store.url")
        if error.code in MISTAKES or isinstance(error, BSONError):
            return error
    said = str(error).partition(" (configured")[0].partition(", full error")[0]
    said = ADDRESS.sub("", said.partition(", Topology Description")[0])  # clients may see it
    return UnavailableError(f"MongoDB: {without_password(said)[:300]}")


def _projection(fields: Sequence[str]) -> Mapping[str, int] | None:
    return dict.fromkeys(fields, 1) if fields else None
