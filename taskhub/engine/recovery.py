"""What a server does before it drives runs: take up the runs that an earlier one left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from taskhub.domain.event import Event
from taskhub.domain.run import Run
from taskhub.engine.supervisor import Supervisor
from taskhub.ports.store import RunStore

log = logging.getLogger(__name__)

PAGE: Final = 2_000
SLICE: Final = 500
AT_ONCE: Final = 16
"""Runs that are rebuilt side by side: a store far away answers them at once."""


async def recover(store: RunStore, supervisor: Supervisor) -> int:
    """Rebuild every run that has not ended from its events and hand it on; return how many.

    Raises `UnavailableError` before anything was handed on, so that it can be repeated. The server
    may be answering reads meanwhile, so the loop is never kept for long.
    """
    run_ids = await store.active()
    runs: list[Run] = []
    for start in range(0, len(run_ids), AT_ONCE):
        part = (_rebuilt(store, run_id) for run_id in run_ids[start : start + AT_ONCE])
        for found in await asyncio.gather(*part, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            runs.append(found)
    for run in runs:
        supervisor.adopt(run)
        log.info("run recovered", extra={"run_id": run.id, "seq": run.seq, "left": run.left})
        await asyncio.sleep(0)
    return len(runs)


async def _rebuilt(store: RunStore, run_id: str) -> Run:
    header, spec = await store.load(run_id)
    large = len(spec.tasks) > SLICE
    run = await asyncio.to_thread(Run, header, spec) if large else Run(header, spec)
    async for event in _history(store, run_id):
        run.apply(event)
        if run.seq % SLICE == 0:
            await asyncio.sleep(0)
    return run


async def _history(store: RunStore, run_id: str) -> AsyncIterator[Event]:
    after = 0
    while page := await store.history(run_id, after, PAGE):
        for event in page:
            yield event
        if len(page) < PAGE:
            return
        after = page[-1].seq
