"""Deleting old runs, in an order that a crash may cut anywhere."""

from __future__ import annotations

from typing import Any, Final

from taskhub.adapters.mongo.client import Database

SLICE: Final = 1000


async def expire(database: Database, before_ms: int, limit: int) -> int:
    """Delete runs as `RunStore.expire` says; goes on with what an earlier call left undone."""
    old = await database["runs"].find(
        {"status": {"$gt": 0}, "end_ms": {"$lt": before_ms}},
        sort=[("end_ms", 1)],
        limit=limit,
        fields=("run_id", "first_task_id", "total"),
        hint="ended",
    )
    await database["dying"].insert(old)
    await database["runs"].delete({"_id": {"$in": [run["_id"] for run in old]}})
    for run in await database["dying"].find({}):
        await _sweep(database, run)
        await database["dying"].delete({"_id": run["_id"]})
    return len(old)


async def _sweep(database: Database, run: dict[str, Any]) -> None:
    first, end = run["first_task_id"], run["first_task_id"] + run["total"]
    for start in range(first, end, SLICE):
        ids = {"_id": {"$gte": start, "$lt": min(start + SLICE, end)}}
        await database["outputs"].delete(ids)
        await database["tasks"].delete(ids)
    await database["events"].delete({"run_id": run["run_id"]})
