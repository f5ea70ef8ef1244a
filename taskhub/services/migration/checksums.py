"""One number for everything of a kind, the same whatever store it is read from.

A value is encoded as MessagePack with sorted keys and hashed with SHA-256. What belongs to one run
or one task is hashed in its order; these hashes are added up modulo 2^256, so that it does not
matter which run a store gives first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from taskhub.domain.log import LogChunk
from taskhub.ports.store import LogHead, RunRow
from taskhub.services.migration.side import Side

encode: Final = msgspec.msgpack.Encoder(order="sorted").encode
MODULUS: Final = 1 << 256
SHOWN: Final = 12


class Kind(StrEnum):
    """What is counted and summed for itself."""

    RUNS = "runs"
    TASKS = "tasks"
    OUTPUTS = "outputs"
    EVENTS = "events"
    LINES = "lines"
    ACCOUNTS = "accounts"
    TOKENS = "tokens"
    REVOKED = "revoked"
    AUDIT = "audit"
    NUMBER = "last number"


OF_RUNS: Final = (Kind.RUNS, Kind.TASKS, Kind.OUTPUTS, Kind.EVENTS)


class Part(NamedTuple):
    """What one run, one task or one account adds to a kind: how many, and their hash."""

    amount: int
    digest: bytes


NO_PART: Final = Part(0, b"")


@dataclass(slots=True)
class Tally:
    """The count and the sum of all parts of a kind in one store."""

    count: int = 0
    total: int = 0

    def add(self, part: Part) -> None:
        """Take in one more part."""
        self.count += part.amount
        self.total = (self.total + int.from_bytes(part.digest)) % MODULUS

    @property
    def shown(self) -> str:
        """The first hexadecimal digits of the sum."""
        return f"{self.total:064x}"[:SHOWN]


def part_of(value: object) -> Part:
    """Return a value that counts as one."""
    return Part(1, sha256(encode(value)).digest())


class Sum:
    """The hash of values in their order."""

    def __init__(self, owner: object) -> None:
        self._count = 0
        self._hash = sha256(encode(owner))

    def add(self, *values: object) -> None:
        """Take in the next values."""
        self.add_encoded(len(values), b"".join(map(encode, values)))

    def add_encoded(self, count: int, data: bytes) -> None:
        """Take in the next values, encoded already."""
        self._count += count
        self._hash.update(data)

    @property
    def part(self) -> Part:
        """What it is so far; nothing at all adds nothing to a kind."""
        return Part(self._count, self._hash.digest()) if self._count else NO_PART


async def parts_of_run(side: Side, row: RunRow) -> Mapping[Kind, Part]:
    """Read a run and return what it adds to each of `OF_RUNS`."""
    run_id = row.header.run_id
    header, dag = await side.load(run_id)
    made = Sum(run_id)
    made.add(row, header, dag.name, dag.fail_policy, dag.max_parallel, *dag.tasks)
    tasks, outputs, events = Sum(run_id), Sum(run_id), Sum(run_id)
    async for task in side.tasks(run_id):
        tasks.add(task)
    async for pair in side.outputs(row):
        outputs.add(pair)
    async for event in side.events(run_id):
        events.add(event)
    return {
        Kind.RUNS: Part(1, made.part.digest),
        Kind.TASKS: tasks.part,
        Kind.OUTPUTS: outputs.part,
        Kind.EVENTS: events.part,
    }


async def part_of_lines(side: Side, head: LogHead, last_seq: int) -> Part:
    """Read the lines of a task up to a number; how they are divided into chunks does not count."""
    lines = Sum((head.task_id, head.run_id))
    async for chunk in side.chunks(head, last_seq):
        _add_lines(lines, chunk, last_seq)
    return lines.part


def _add_lines(lines: Sum, chunk: LogChunk, last_seq: int) -> None:
    seq = chunk.first_seq
    for segment in chunk.segments:
        shared = encode(
            (
                segment.attempt,
                segment.stream,
                segment.level,
                segment.ts_ms,
                segment.duration_ms,
                segment.fields,
            )
        )
        continued = set(segment.continued)
        wanted = segment.lines[: max(0, last_seq + 1 - seq)]
        encoded = [encode((seq + i, i in continued, shared, line)) for i, line in enumerate(wanted)]
        lines.add_encoded(len(encoded), b"".join(encoded))
        seq += len(segment.lines)
