"""The collections and their indexes; every query of the API goes by one of them.

| collection | a document is | |
|---|---|---|
| runs | a run's row | `_id` is its `ord` |
| tasks | a task_run's row | `_id` is its id; those of a run are consecutive |
| outputs | the end of a task's output | `_id` is the task_run's id |
| events | up to 256 events of one run from one commit | `_id` is the first one's id |
| chunks | consecutive lines of a task in a run | `_id` is the chunk's id |
| heads | what is stored of a task in a run | `_id` is its first chunk's id |
| accounts, tokens, revoked, audit | what their names say | |
| ledgers, parts | commits that are not applied yet | see `ledger` |
| meta | the lease, counters, bounds of clocks | |
"""

from __future__ import annotations

from typing import Any, Final, cast

from taskhub.adapters.mongo.client import Database, Sort
from taskhub.errors import ConfigError

VERSION: Final = 1

Index = tuple[str, Sort, dict[str, Any]]

INDEXES: Final[tuple[tuple[str, str, Sort, dict[str, Any]], ...]] = (
    ("runs", "run_id", [("run_id", 1)], {"unique": True}),
    ("runs", "key", [("key", 1)], {"unique": True, "sparse": True}),
    ("runs", "number", [("number", 1)], {"unique": True, "sparse": True}),
    ("runs", "name", [("_id", -1), ("folded", 1)], {}),
    ("runs", "active", [("status", 1), ("_id", 1)], {}),
    ("runs", "ended", [("end_ms", 1)], {"partialFilterExpression": {"status": {"$gt": 0}}}),
    ("tasks", "name", [("name", 1), ("_id", -1)], {}),
    ("tasks", "number", [("number", -1), ("folded", 1)], {"sparse": True}),
    ("tasks", "status", [("status", 1), ("number", -1), ("folded", 1)], {
        "partialFilterExpression": {"number": {"$gt": 0}}}),
    ("events", "run", [("run_id", 1), ("seq", 1)], {"unique": True}),
    ("events", "last_id", [("last_id", -1)], {"unique": True}),
    ("events", "task", [("tasks", 1), ("last_id", -1)], {}),
    ("events", "event", [("names", 1), ("last_id", -1)], {}),
    ("chunks", "lines", [("run_id", 1), ("task_id", 1), ("last_seq", 1)], {"unique": True}),
    ("chunks", "task", [("run_id", 1), ("task_id", 1), ("_id", 1)], {}),
    ("chunks", "run", [("run_id", 1), ("_id", 1)], {}),
    ("heads", "pair", [("run_id", 1), ("task_id", 1)], {"unique": True}),
    ("heads", "task", [
        ("task_id", 1), ("_id", 1), ("lines", 1), ("last_seq", 1), ("run_id", 1)], {}),
    ("heads", "age", [("last_ms", 1), ("bytes", 1)], {}),
    ("epochs", "epoch", [("epoch", 1)], {"unique": True}),
    ("tokens", "username", [("username", 1), ("created_ms", 1), ("_id", 1)], {}),
    ("tokens", "created", [("created_ms", 1), ("_id", 1)], {}),
    ("revoked", "expires", [("expires_ms", 1)], {}),
    ("audit", "key", [("key", 1)], {"unique": True}),
    ("audit", "actor", [("actor", 1), ("_id", -1)], {}),
    ("audit", "action", [("action", 1), ("_id", -1)], {}),
    ("audit", "target", [("target", 1), ("_id", -1)], {}),
    ("audit", "outcome", [("outcome", 1), ("_id", -1)], {}),
    ("audit", "time", [("ts_ms", 1)], {}),
)  # fmt: skip


async def prepare(database: Database) -> None:
    """Make what is missing; raise `ConfigError` if a newer TaskHub wrote the database."""
    meta = database["meta"]
    await meta.insert([{"_id": "schema", "version": VERSION}])
    found = await meta.find_one({"_id": "schema"})
    version = found["version"] if found else VERSION
    if version > VERSION:
        message = f"the database has schema version {version}, this TaskHub knows up to {VERSION}"
        raise ConfigError(f"{message}: it was written by a newer TaskHub")
    by_collection: dict[str, list[Index]] = {}
    for collection, *index in INDEXES:
        by_collection.setdefault(collection, []).append(cast(Index, tuple(index)))
    for collection, indexes in by_collection.items():
        await database[collection].make_indexes(indexes)
