"""How far clocks and ids are apart: what lets a time range be a range of ids.

Ids carry the millisecond they were given in (`domain.ids`), lists are sorted by id, and a range of
times must not be sorted by hand out of 100 million. So the least and the greatest difference ever
seen between a row's time and that of its id is kept; the rows of a time range then lie between
two ids, whatever the clock did, and exactly those in between are looked at.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from taskhub.adapters.mongo.client import Database, UpdateOne
from taskhub.domain.ids import ID_SHIFT
from taskhub.ports.store import Batch

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
KNOWN_RUNS: Final = 20_000


class Skew:
    """The bounds for `runs` (by `start_ts_ms`) and `events` (by `ts_ms`)."""

    def __init__(self, database: Database) -> None:
        self._meta = database["meta"]
        self._runs = database["runs"]
        self._known: dict[str, tuple[int, int]] = {}
        self._ords: OrderedDict[str, int] = OrderedDict()

    async def id_range(
        self, kind: str, start_ms: int | None, end_ms: int | None
    ) -> dict[str, int] | None:
        """Return the condition on `_id` that holds for all rows of a time range."""
        if start_ms is None and end_ms is None:
            return None
        bounds = await self._read(kind)
        if bounds is None:
            return None
        low, high = bounds
        condition: dict[str, int] = {}
        if start_ms is not None:
            condition["$gte"] = _clamp((start_ms - high) << ID_SHIFT)
        if end_ms is not None:
            condition["$lt"] = _clamp((end_ms - low + 1) << ID_SHIFT)
        return condition

    async def widen(self, batch: Batch) -> None:
        """Take a batch into account, before its rows can be read."""
        await self._widen("events", [e.ts_ms - (e.id >> ID_SHIFT) for e in batch.events])
        await self._learn_ords(batch)
        differences = [
            run.start_ts_ms - (self._ords[run.run_id] >> ID_SHIFT)
            for run in batch.runs
            if run.run_id in self._ords
        ]
        await self._widen("runs", differences)

    async def _learn_ords(self, batch: Batch) -> None:
        for header, _ in batch.new_runs:
            self._ords[header.run_id] = header.ord
        if unknown := [run.run_id for run in batch.runs if run.run_id not in self._ords]:
            query = {"run_id": {"$in": unknown}}
            for document in await self._runs.find(query, fields=("run_id",)):
                self._ords[document["run_id"]] = document["_id"]
        while len(self._ords) > KNOWN_RUNS:
            self._ords.popitem(last=False)

    async def _widen(self, kind: str, differences: list[int]) -> None:
        if not differences:
            return
        low, high = _clamp(min(differences)), _clamp(max(differences))
        known = self._known.get(kind) or await self._read(kind)
        if known is None or low < known[0] or high > known[1]:
            query, change = {"_id": f"skew {kind}"}, {"$min": {"low": low}, "$max": {"high": high}}
            await self._meta.write([UpdateOne(query, change, upsert=True)])
            known = await self._read(kind)
        if known is not None:
            self._known[kind] = known

    async def _read(self, kind: str) -> tuple[int, int] | None:
        found: dict[str, Any] | None = await self._meta.find_one({"_id": f"skew {kind}"})
        return (found["low"], found["high"]) if found else None


def _clamp(value: int) -> int:
    return max(INT64_MIN, min(INT64_MAX, value))
