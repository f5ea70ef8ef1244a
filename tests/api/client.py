"""What tests ask of the `api` fixture again and again."""

from __future__ import annotations

import asyncio
from typing import Any


async def data(api: Any, path: str) -> Any:
    """Return the data of a GET that must succeed."""
    status, body = await api.get(path)
    assert (status, body["code"]) == (200, 0), body
    return body["data"]


async def ended(api: Any, run_id: str) -> Any:
    """Return a run once it has ended."""
    async with asyncio.timeout(30):
        while True:
            (run,) = (await data(api, f"/api/dag/runs?run_id={run_id}"))["items"]
            if run["status"]:
                return await data(api, f"/api/dag/runs/{run_id}")
            await asyncio.sleep(0.01)
