from __future__ import annotations

import asyncio

import pytest

from taskhub.adapters.memory import MemoryStores
from taskhub.domain.ids import IdSource
from taskhub.domain.log import Level, Stream
from taskhub.engine.bus import Bus, Topic
from taskhub.engine.output import HARD_LIMIT, HIGH_WATER, AttemptLog, LogWriter, OutputLimits
from taskhub.errors import ConflictError, TooLargeError, UnavailableError
from taskhub.testing.clock import FakeClock


class Gate:
    """A log store that can be held up, and can fail."""

    def __init__(self, inner):
        self._inner = inner
        self.open = asyncio.Event()
        self.open.set()
        self.calls = 0
        self.failures = 0

    async def append(self, chunks):
        self.calls += 1
        await self.open.wait()
        await self._inner.append(chunks)
        if self.failures:
            self.failures -= 1
            raise UnavailableError("written, but the answer was lost")

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def bus():
    return Bus()


@pytest.fixture
async def gate():
    return Gate(MemoryStores().logs)


@pytest.fixture
async def writer(gate, bus, clock):
    writer = LogWriter(gate, bus, clock, IdSource())
    task = asyncio.create_task(writer.run(), name="writer")
    yield writer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def open_log(writer, **limits):
    limits = OutputLimits(**limits)
    return AttemptLog(writer, run_id="r", task_id="t", attempt=1, limits=limits)


async def lines(gate):
    return [(r.seq, r.segment.stream, r.message) for r in await gate.read("t", "r", 1, 10**6)]


async def test_lines_are_numbered_over_both_streams(writer, gate):
    log = open_log(writer)
    log.write(Stream.STDOUT, b"one\ntw")
    log.write(Stream.STDERR, b"oh\n")
    log.write(Stream.STDOUT, b"o\nend")
    output = await log.close()
    assert await lines(gate) == [
        (1, Stream.STDOUT, "one"),
        (2, Stream.STDERR, "oh"),
        (3, Stream.STDOUT, "two"),
        (4, Stream.STDOUT, "end"),
    ]
    assert (output.stdout, output.stderr) == ("one\ntwo\nend", "oh\n")


async def test_what_is_published_is_stored_and_in_order(writer, gate, bus):
    heard = []

    def receive(chunk):
        heard.append((chunk.first_seq, chunk.count))

    bus.logs.add(Topic("t", "r"), receive)
    log = open_log(writer)
    for i in range(100):
        log.write(Stream.STDOUT, b"x" * (i * 37 % 300) + b"\n")
        if i % 10 == 0:
            await asyncio.sleep(0)
    await log.close()
    await asyncio.sleep(0)
    expected = 1
    for first, count in heard:
        assert first == expected
        expected += count
    assert expected == 101


async def test_many_small_writes_become_few_chunks(writer, gate):
    log = open_log(writer)
    for _ in range(1000):
        log.write(Stream.STDOUT, b"line\n")
    await log.close()
    assert len(await gate.chunks("r", 0, 1000)) == 1


async def test_a_million_lines_are_cut_into_bounded_chunks(writer, gate):
    log = open_log(writer)
    log.write(Stream.STDOUT, b"line\n" * 100_000)
    await log.close()
    chunks = await gate.chunks("r", 0, 1000)
    assert max(chunk.count for chunk in chunks) <= 4096
    assert sum(chunk.count for chunk in chunks) == 100_000


async def test_output_beyond_the_cap_is_counted_and_marked(writer, gate):
    log = open_log(writer, attempt=10)
    log.write(Stream.STDOUT, b"12345\n6789\nmore\n")
    log.write(Stream.STDOUT, b"and more\n")
    output = await log.close()
    stored = await lines(gate)
    assert [message for _, _, message in stored[:2]] == ["12345", "6789"]
    assert "15 bytes beyond the limit" in stored[-1][2]
    assert log.cut_bytes == 15
    assert output.stdout.endswith("and more\n")


async def test_the_tail_keeps_the_end_and_whole_characters(writer):
    log = open_log(writer, tail=9)
    log.write(Stream.STDOUT, "ääääääää".encode())
    assert (await log.close()).stdout == "ääää"


async def test_a_slow_store_holds_the_writer_back(writer, gate):
    log = open_log(writer)
    gate.open.clear()
    log.write(Stream.STDOUT, b"x\n" * HIGH_WATER)
    waiting = asyncio.create_task(log.drain(), name="drain")
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    gate.open.set()
    await waiting
    await log.close()


async def test_a_writer_that_never_drains_is_refused(writer, gate):
    log = open_log(writer)
    gate.open.clear()
    flood = b"x\n" * HIGH_WATER
    for _ in range(HARD_LIMIT // len(flood) + 1):
        log.write(Stream.STDOUT, flood)
    with pytest.raises(TooLargeError):
        log.write(Stream.STDOUT, b"x")
    gate.open.set()
    await log.close()


async def test_a_store_that_fails_loses_and_doubles_nothing(writer, gate, clock, bus):
    heard = []
    bus.logs.add(Topic("t", ""), heard.append)
    gate.failures = 3
    log = open_log(writer)
    log.write(Stream.STDOUT, b"one\ntwo\n")
    closing = asyncio.create_task(log.close(), name="close")
    await clock.advance(5)
    await closing
    assert [message for _, _, message in await lines(gate)] == ["one", "two"]
    await asyncio.sleep(0)
    assert len(heard) == 1


async def test_a_line_of_the_executors_own_has_level_and_fields(writer, gate):
    log = open_log(writer)
    log.log("hello\nthere \ud800", Level.WARN, {"k": 1})
    await log.close()
    records = await gate.read("t", "r", 1, 10)
    assert [(r.message, r.segment.level, r.fields) for r in records] == [
        ("hello", Level.WARN, {"k": 1}),
        ("there ?", Level.WARN, {"k": 1}),
    ]


async def test_an_attempt_that_prints_nothing_stores_nothing(writer, gate):
    output = await open_log(writer).close()
    assert (output.stdout, gate.calls) == ("", 0)


async def test_lines_of_its_own_count_towards_the_cap(writer, gate):
    log = open_log(writer, attempt=10)
    log.log("12345678")
    log.log("123456")
    await log.close()
    assert (await lines(gate))[0][2] == "12345678"
    assert log.cut_bytes == 6


async def test_fields_that_are_not_json_are_replaced(writer, gate):
    log = open_log(writer)
    log.log("x", fields={"path": object()})
    await log.close()
    (record,) = await gate.read("t", "r", 1, 10)
    assert "not JSON" in record.fields["error"]


async def test_after_its_end_nothing_is_taken(writer, gate):
    log = open_log(writer)
    log.write(Stream.STDOUT, b"one\ntw")
    await log.close()
    log.end()
    with pytest.raises(ConflictError):
        log.write(Stream.STDOUT, b"o\n")
    with pytest.raises(ConflictError):
        log.log("three")
    await log.close()
    assert [message for _, _, message in await lines(gate)] == ["one", "tw"]


async def test_no_tail_is_kept_where_none_is_wanted(writer):
    log = open_log(writer, tail=0)
    log.write(Stream.STDOUT, b"x\n")
    assert (await log.close()).stdout == ""
