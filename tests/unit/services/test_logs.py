from __future__ import annotations

import pytest

from taskhub.adapters.memory import MemoryLogStore
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.services.logs import LogService


def chunk(number: int, run_id: str, first_seq: int, *lines: str) -> LogChunk:
    segment = LogSegment(
        attempt=1, stream=Stream.STDOUT, level=Level.INFO, ts_ms=1, duration_ms=1, lines=lines
    )
    return LogChunk(
        id=number,
        run_id=run_id,
        task_id="t1",
        first_seq=first_seq,
        count=len(lines),
        size=1,
        ts_ms=1,
        segments=(segment,),
    )


@pytest.fixture
async def logs():
    store = MemoryLogStore()
    chunks = [chunk(1, "r1", 1, "a", "b"), chunk(2, "r2", 1, "c"), chunk(3, "r1", 3, "d")]
    await store.append(chunks)
    return LogService(store)


async def page(logs, *args):
    return [(number, record.message) for number, record in await logs.page("t1", *args)]


async def test_lines_of_a_run_are_shown_under_their_own_numbers(logs):
    assert await page(logs, "r1", 2, 10) == [(2, "b"), (3, "d")]


async def test_lines_of_all_runs_are_shown_under_their_positions(logs):
    assert await page(logs, None, 2, 10) == [(2, "b"), (3, "d"), (4, "c")]


@pytest.mark.parametrize("run_id", ["r1", None])
async def test_what_is_asked_for_is_brought_within_bounds(logs, run_id):
    assert await page(logs, run_id, -5, 0) == [(1, "a")]


async def test_a_page_has_2000_lines_at_most():
    store = MemoryLogStore()
    await store.append([chunk(1, "r1", 1, *["x"] * 2500)])
    assert len(await LogService(store).page("t1", "r1", 1, 10**9)) == 2000


async def test_nothing_is_an_empty_page(logs):
    assert await page(logs, "r9", 1, 10) == []
