"""What every `LogStore` has to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from taskhub.domain.log import Level, LogRecord, LogSegment, Stream
from taskhub.ports.store import LogHead, LogStore
from taskhub.ports.stores import Stores
from taskhub.testing.store_samples import INT64_MAX, NASTY, T0, chunk, segment


class LogStoreContract:
    """Subclass it and give a fixture `stores`; see `taskhub.testing.store_contracts`."""

    async def test_an_empty_store_has_nothing(self, stores: Stores) -> None:
        assert await stores.logs.last_seq("t", "r") == 0
        assert await stores.logs.last_id() == 0
        assert list(await stores.logs.read("t", "r", 1, 10)) == []
        assert list(await stores.logs.read_task("t", 1, 10)) == []
        assert list(await stores.logs.chunks("r", 0, 10)) == []
        assert list(await stores.logs.heads(0, 10)) == []
        await stores.logs.append([])

    async def test_a_chunk_comes_back_as_it_was(self, stores: Stores) -> None:
        own = LogSegment(
            attempt=2, stream=Stream.NONE, level=Level.ERROR, ts_ms=T0 + 1, duration_ms=INT64_MAX,
            lines=["one", "", NASTY], continued=[1], fields={"k": [1, {"ä": None}]},
        )  # fmt: skip
        stored = replace(chunk(1, 1, ["a"]), count=4, size=99, segments=(segment(["a"]), own))
        await stores.logs.append([stored])
        assert list(await stores.logs.chunks("r", 0, 10)) == [stored]
        first, second, third, fourth = await stores.logs.read("t", "r", 1, 10)
        assert [r.message for r in (first, second, third, fourth)] == ["a", "one", "", NASTY]
        assert (first.seq, fourth.seq) == (1, 4)
        assert third.fields == {"k": [1, {"ä": None}], "continued": True}
        assert fourth.segment == own

    @pytest.mark.parametrize("lines", [[""], ["", ""], ["", "", "x"], [" "], ["\r"], ["x" * 20000]])
    async def test_empty_lines_count(self, stores: Stores, lines: list[str]) -> None:
        await stores.logs.append([chunk(1, 1, lines), chunk(2, 1 + len(lines), ["end"])])
        records = await stores.logs.read("t", "r", 1, 10)
        assert [record.message for record in records] == [*lines, "end"]

    async def test_a_big_chunk_is_fine(self, stores: Stores) -> None:
        lines = ["ä" * 100] * 1300
        await stores.logs.append([chunk(1, 1, lines)])
        assert _text(await stores.logs.read("t", "r", 1, 2000)) == lines

    async def test_lines_are_read_from_anywhere(self, stores: Stores) -> None:
        lines = await fill(stores.logs, count=100, step=7)
        for start in (-5, 0, 1, 2, 7, 8, 50, 99, 100, 101, INT64_MAX):
            for limit in (1, 7, 30, 1000):
                first = max(start, 1)
                expected = lines[first - 1 : first - 1 + limit]
                records = await stores.logs.read("t", "r", start, limit)
                assert _text(records) == expected
                assert [r.seq for r in records] == list(range(first, first + len(expected)))

    async def test_pages_have_no_holes_and_no_repeats(self, stores: Stores) -> None:
        lines = await fill(stores.logs, count=500, step=13)
        seen: list[str] = []
        while records := await stores.logs.read("t", "r", len(seen) + 1, 17):
            seen += _text(records)
        assert seen == lines

    async def test_the_same_chunks_twice_are_as_once(self, stores: Stores) -> None:
        chunks = [chunk(1, 1, ["a", "b"]), chunk(2, 3, ["c"]), chunk(3, 1, ["x"], task="u")]
        for _ in range(2):
            await stores.logs.append(chunks)
        await stores.logs.append([*chunks, chunk(4, 4, ["d"])])
        assert _text(await stores.logs.read("t", "r", 1, 10)) == ["a", "b", "c", "d"]
        assert [p for p, _ in await stores.logs.read_task("t", 1, 10)] == [1, 2, 3, 4]
        assert await stores.logs.last_seq("t", "r") == 4
        assert await stores.logs.last_seq("u", "r") == 1
        assert [c.id for c in await stores.logs.chunks("r", 0, 10)] == [1, 2, 3, 4]

    async def test_last_id_is_the_highest(self, stores: Stores) -> None:
        await stores.logs.append([chunk(2**53 - 1, 1, ["a"])])
        assert await stores.logs.last_id() == 2**53 - 1

    async def test_tasks_and_runs_are_kept_apart(self, stores: Stores) -> None:
        await stores.logs.append(
            [chunk(1, 1, ["a"]), chunk(2, 1, ["b"], task="u"), chunk(3, 1, ["c"], run="s")]
        )
        assert _text(await stores.logs.read("t", "r", 1, 9)) == ["a"]
        assert _text(await stores.logs.read("u", "r", 1, 9)) == ["b"]
        assert _text(await stores.logs.read("t", "s", 1, 9)) == ["c"]
        assert list(await stores.logs.read("u", "s", 1, 9)) == []
        assert list(await stores.logs.read("T", "r", 1, 9)) == []

    async def test_a_task_is_read_over_all_its_runs(self, stores: Stores) -> None:
        lines = []
        for number in range(1, 6):
            text = [f"{number}-{i}" for i in range(number * 3)]
            run = f"r{9 - number}"
            await stores.logs.append([chunk(number * 10, 1, text[:2], run=run)])
            await stores.logs.append([chunk(number * 10 + 1, 3, text[2:], run=run)])
            await stores.logs.append([chunk(number * 10 + 2, 1, ["no"], run=run, task="other")])
            lines += text
        for start in (-1, 0, 1, 2, 3, 4, 9, 20, 45, 46, INT64_MAX):
            for limit in (1, 5, 100):
                found = await stores.logs.read_task("t", start, limit)
                first = max(start, 1)
                expected = list(enumerate(lines, 1))[first - 1 : first - 1 + limit]
                assert [(p, record.message) for p, record in found] == expected

    async def test_runs_that_write_in_turn_keep_their_places(self, stores: Stores) -> None:
        for i in range(4):
            await stores.logs.append([chunk(2 * i + 1, i + 1, [f"a{i}"], run="a")])
            await stores.logs.append([chunk(2 * i + 2, i + 1, [f"b{i}"], run="b")])
        found = [record.message for _, record in await stores.logs.read_task("t", 1, 99)]
        assert found == ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]

    async def test_chunks_of_a_run_come_by_id(self, stores: Stores) -> None:
        stored = [chunk(i, 1 + i // 2, [str(i)], task="tu"[i % 2]) for i in range(2, 12)]
        stored = [replace(c, first_seq=i // 2 + 1) for i, c in enumerate(stored)]
        await stores.logs.append([*stored, chunk(50, 1, ["x"], run="s")])
        assert list(await stores.logs.chunks("r", 0, 99)) == stored
        assert list(await stores.logs.chunks("r", 4, 3)) == stored[3:6]
        assert list(await stores.logs.chunks("r", 4, 2, "u")) == stored[3:6:2]
        assert list(await stores.logs.chunks("r", 0, 99, "nobody")) == []
        assert list(await stores.logs.chunks("r", 11, 99)) == []

    async def test_a_reader_never_sees_half_a_call(self, stores: Stores) -> None:
        async def write() -> None:
            for i in range(1, 60):
                pair = [chunk(2 * i, i, ["a"], task="t"), chunk(2 * i + 1, i, ["b"], task="u")]
                await stores.logs.append(pair)

        writer = asyncio.create_task(write(), name="writer")
        while not writer.done():
            await asyncio.sleep(0)
            assert len(await stores.logs.chunks("r", 0, 1000)) % 2 == 0
        await writer

    async def test_what_is_old_expires(self, stores: Stores) -> None:
        await stores.logs.append([chunk(1, 1, ["a"], run="old", ts_ms=T0)])
        await stores.logs.append([chunk(2, 1, ["b"], run="lives", ts_ms=T0)])
        await stores.logs.append([chunk(3, 2, ["c"], run="lives", ts_ms=T0 + 10)])
        await stores.logs.append([chunk(4, 1, ["d"], run="new", ts_ms=T0 + 10)])
        assert await stores.logs.expire(T0 + 10, INT64_MAX) == 1
        assert list(await stores.logs.read("t", "old", 1, 10)) == []
        assert await stores.logs.last_seq("t", "old") == 0
        assert list(await stores.logs.chunks("old", 0, 10)) == []
        found = [(p, record.message) for p, record in await stores.logs.read_task("t", 1, 10)]
        assert found == [(1, "b"), (2, "c"), (3, "d")]
        assert await stores.logs.expire(T0 + 10, INT64_MAX) == 0

    async def test_the_oldest_go_while_there_is_too_much(self, stores: Stores) -> None:
        for i in range(1, 6):
            await stores.logs.append([chunk(i, 1, ["x" * 100], run=f"r{i}", ts_ms=T0 + i)])
        assert await stores.logs.expire(0, 500) == 0
        assert await stores.logs.expire(0, 250) == 3
        found = [record.run_id for _, record in await stores.logs.read_task("t", 1, 10)]
        assert found == ["r4", "r5"]
        assert await stores.logs.expire(0, 0) == 2

    async def test_lines_of_kept_runs_stay(self, stores: Stores) -> None:
        await stores.logs.append([chunk(i, 1, ["x"], run=f"r{i}") for i in (1, 2, 3)])
        assert await stores.logs.expire(T0 + 10, 0, keep=["r1", "r3"]) == 1
        found = [record.run_id for _, record in await stores.logs.read_task("t", 1, 10)]
        assert found == ["r1", "r3"]
        assert await stores.logs.expire(T0 + 10, 0, keep=["r1", "r3"]) == 0

    async def test_no_more_expire_than_asked(self, stores: Stores) -> None:
        for i in range(1, 6):
            await stores.logs.append([chunk(i, 1, ["x" * 100], run=f"r{6 - i}", ts_ms=T0 - i)])
        assert await stores.logs.expire(T0, INT64_MAX, limit=2) == 2
        found = {record.run_id for _, record in await stores.logs.read_task("t", 1, 10)}
        assert found == {"r3", "r4", "r5"}

    async def test_many_chunks_expire_at_once(self, stores: Stores) -> None:
        await fill(stores.logs, count=3000, step=5)
        await stores.logs.append([chunk(10_000, 1, ["x"], task="u", ts_ms=T0 + 2)])
        assert await stores.logs.expire(T0 + 1, INT64_MAX) == 1
        assert list(await stores.logs.read("t", "r", 1, 10)) == []
        assert _text(await stores.logs.read("u", "r", 1, 10)) == ["x"]

    async def test_numbers_go_on_after_lines_expired(self, stores: Stores) -> None:
        await stores.logs.append([chunk(1, 1, ["a", "b"])])
        assert await stores.logs.expire(T0 + 1, INT64_MAX) == 1
        await stores.logs.append([chunk(2, 3, ["c"], ts_ms=T0 + 2), chunk(3, 4, ["d"])])
        assert [(r.seq, r.message) for r in await stores.logs.read("t", "r", 1, 10)] == [
            (3, "c"),
            (4, "d"),
        ]
        found = [(p, r.seq) for p, r in await stores.logs.read_task("t", 1, 10)]
        assert found == [(1, 3), (2, 4)]
        assert await stores.logs.last_seq("t", "r") == 4

    async def test_heads_say_what_is_stored_of_each_task_of_each_run(self, stores: Stores) -> None:
        chunks = [
            chunk(10, 1, ["a", "b"], run="r9"), chunk(20, 1, ["x"], run="r1"),
            chunk(30, 1, ["y"], run="r1", task="u"), chunk(40, 3, ["c"], run="r9"),
        ]  # fmt: skip
        for one in (*chunks, *chunks):
            await stores.logs.append([one])
        assert list(await stores.logs.heads(0, 10)) == [
            LogHead(10, "t", "r9", 3, 3),
            LogHead(20, "t", "r1", 1, 1),
            LogHead(30, "u", "r1", 1, 1),
        ]

    async def test_heads_come_in_pages_by_ord(self, stores: Stores) -> None:
        pairs = [(i, f"t{i % 7}", f"r{100 - i}") for i in range(1, 51)]
        await stores.logs.append([chunk(i, 1, ["x"], task=t, run=r) for i, t, r in pairs])
        seen: list[LogHead] = []
        while page := await stores.logs.heads(seen[-1].ord if seen else 0, 8):
            assert len(page) <= 8
            seen += page
        assert [(head.ord, head.task_id, head.run_id) for head in seen] == pairs
        assert list(await stores.logs.heads(INT64_MAX, 10)) == []

    async def test_a_head_goes_with_its_lines_and_comes_again_with_new_ones(
        self, stores: Stores
    ) -> None:
        await stores.logs.append([chunk(1, 1, ["a", "b"]), chunk(2, 1, ["k"], task="u")])
        assert await stores.logs.expire(T0 + 1, INT64_MAX, limit=1) == 1
        (left,) = await stores.logs.heads(0, 10)
        gone = "t" if left.task_id == "u" else "u"
        await stores.logs.append([chunk(3, 3, ["c"], task=gone, ts_ms=T0 + 2)])
        assert list(await stores.logs.heads(0, 10)) == [left, LogHead(3, gone, "r", 1, 3)]


async def fill(store: LogStore, count: int, step: int) -> list[str]:
    """Store lines of one task in chunks; return the lines."""
    lines = [f"line {i}" for i in range(1, count + 1)]
    await store.append([chunk(i + 1, i + 1, lines[i : i + step]) for i in range(0, count, step)])
    return lines


def _text(records: Sequence[LogRecord]) -> list[str]:
    return [record.message for record in records]
