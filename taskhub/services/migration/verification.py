"""Reading both stores and comparing them, kind by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from taskhub.ports.store import LogHead, RunRow
from taskhub.services.migration.checksums import (
    NO_PART,
    OF_RUNS,
    Kind,
    Part,
    Tally,
    part_of,
    part_of_lines,
    parts_of_run,
)
from taskhub.services.migration.listening import Listener, Phase
from taskhub.services.migration.pairing import pair_entries, pair_heads, pair_runs
from taskhub.services.migration.side import Side
from taskhub.services.migration.survey import Examples

NOTHING: Final[Mapping[Kind, Part]] = dict.fromkeys(OF_RUNS, NO_PART)


@dataclass(slots=True)
class KindReport:
    """What each store holds of a kind, and the ids of what is not the same."""

    kind: Kind
    source: Tally = field(default_factory=Tally)
    target: Tally = field(default_factory=Tally)
    differing: Examples = field(default_factory=Examples)

    def add(self, name: str, ours: Part, theirs: Part) -> None:
        """Take in what goes by one name in both stores."""
        self.source.add(ours)
        self.target.add(theirs)
        if ours != theirs:
            self.differing.add(name)

    @property
    def is_same(self) -> bool:
        """Whether the kind was copied faithfully."""
        return self.source == self.target and not self.differing.count


class Verification:
    """Both stores, read from one end to the other."""

    def __init__(self, source: Side, target: Side, listener: Listener) -> None:
        self._source = source
        self._target = target
        self._listener = listener
        self._counts: Counter[str] = Counter()
        self.reports = {kind: KindReport(kind) for kind in Kind}

    async def runs(self) -> None:
        """Compare runs with their tasks, outputs and events."""
        async for ours, theirs in pair_runs(self._source, self._target):
            one = await self._parts(self._source, ours)
            other = await self._parts(self._target, theirs)
            if row := ours or theirs:
                for kind in OF_RUNS:
                    self.reports[kind].add(row.header.run_id, one[kind], other[kind])
            self._note(Kind.RUNS, 1)

    async def _parts(self, side: Side, row: RunRow | None) -> Mapping[Kind, Part]:
        return await parts_of_run(side, row) if row else NOTHING

    async def lines(self) -> None:
        """Compare lines, and which task of which run they are listed under."""
        async for ours, theirs in pair_heads(self._source, self._target):
            one = await self._lines(self._source, ours)
            other = await self._lines(self._target, theirs)
            if head := ours or theirs:
                name = f"{head.task_id} in run {head.run_id}"
                self.reports[Kind.LINES].add(name, one, other)
            self._note(Kind.LINES, one.amount)

    async def _lines(self, side: Side, head: LogHead | None) -> Part:
        if head is None:
            return NO_PART
        lines = await part_of_lines(side, head, head.last_seq)
        return Part(lines.amount, part_of((head, lines.digest)).digest)

    async def audit(self) -> None:
        """Compare the audits."""
        async for ours, theirs in pair_entries(self._source, self._target):
            if entry := ours or theirs:
                self._add(Kind.AUDIT, str(entry.id), ours, theirs)

    async def people(self, now_ms: int) -> None:
        """Compare accounts, API tokens and revoked tokens."""
        source, target = self._source, self._target
        self._all(Kind.ACCOUNTS, await source.accounts(), await target.accounts())
        self._all(Kind.TOKENS, await source.tokens(), await target.tokens())
        self._all(Kind.REVOKED, await source.revoked(now_ms), await target.revoked(now_ms))

    async def number(self) -> None:
        """Compare how far simple tasks are numbered."""
        numbers = [await side.last_number() for side in (self._source, self._target)]
        one, other = (Part(number, part_of(number).digest) for number in numbers)
        self.reports[Kind.NUMBER].add(str(numbers[0]), one, other)

    def _all(self, kind: Kind, ours: Mapping[str, object], theirs: Mapping[str, object]) -> None:
        for name in sorted(ours.keys() | theirs.keys()):
            self._add(kind, name, ours.get(name), theirs.get(name))

    def _add(self, kind: Kind, name: str, ours: object, theirs: object) -> None:
        one, other = (
            NO_PART if value is None else part_of((name, value)) for value in (ours, theirs)
        )
        self.reports[kind].add(name, one, other)
        self._note(kind, 1)

    def _note(self, kind: Kind, count: int) -> None:
        self._counts[kind] += count
        self._listener.progress(Phase.VERIFY, self._counts, over=False)

    def end(self) -> tuple[KindReport, ...]:
        """Return the report."""
        self._listener.progress(Phase.VERIFY, self._counts, over=True)
        return tuple(self.reports.values())


async def verify(
    source: Side, target: Side, listener: Listener, now_ms: int
) -> tuple[KindReport, ...]:
    """Compare all that two stores hold; revoked tokens that expired by `now_ms` do not count."""
    verification = Verification(source, target, listener)
    await verification.runs()
    await verification.lines()
    await verification.people(now_ms)
    await verification.audit()
    await verification.number()
    return verification.end()
