"""What the target holds before anything is copied: which part of the source, and what else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from taskhub.ports.accounts import Account
from taskhub.ports.store import LogHead
from taskhub.services.migration.checksums import (
    Kind,
    encode,
    part_of_lines,
    parts_of_run,
)
from taskhub.services.migration.listening import Listener, Phase
from taskhub.services.migration.pairing import pair_entries, pair_events, pair_heads, pair_runs
from taskhub.services.migration.side import Side

T = TypeVar("T")
EXAMPLES: Final = 5


@dataclass(slots=True)
class Examples:
    """How many there are of something, and the first few of them."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if self.count <= EXAMPLES:
            self.names.append(name)

    def __str__(self) -> str:
        more = self.count - len(self.names)
        return ", ".join(self.names) + (f" and {more:,} more" if more else "")


@dataclass(slots=True)
class Found:
    """What need not be copied: the `ord` of runs and of heads; and what forbids to copy."""

    runs: set[int] = field(default_factory=set)
    heads: set[int] = field(default_factory=set)
    has_audit: bool = True
    foreign: Examples = field(default_factory=Examples)
    counts: Counter[str] = field(default_factory=Counter)


async def survey(source: Side, target: Side, listener: Listener, now_ms: int) -> Found:
    """Compare what the target holds with the source.

    What is only in the target is foreign, and so is what went on there: more events or lines, a
    newer version of an account. An older or incomplete copy is neither foreign nor found.
    """
    found = Found()
    await _runs(source, target, found, listener)
    await _lines(source, target, found, listener)
    await _audit(source, target, found)
    await _people(source, target, found, now_ms)
    if await target.last_number() > await source.last_number():
        found.foreign.add("higher numbers of simple tasks")
    listener.progress(Phase.COMPARE, found.counts, over=True)
    return found


async def _runs(source: Side, target: Side, found: Found, listener: Listener) -> None:
    async for ours, theirs in pair_runs(source, target):
        if theirs is None:
            continue
        run_id = theirs.header.run_id
        found.counts[Kind.RUNS] += 1
        if ours is None:
            found.foreign.add(f"run {run_id}")
        elif await parts_of_run(source, ours) == await parts_of_run(target, theirs):
            found.runs.add(ours.header.ord)
        elif not await _is_part(source, target, run_id):
            found.foreign.add(f"run {run_id}, with other events")
        listener.progress(Phase.COMPARE, found.counts, over=False)


async def _is_part(source: Side, target: Side, run_id: str) -> bool:
    """Whether the source has every event that the target has of a run."""
    is_part = True
    async for ours, theirs in pair_events(source, target, run_id):
        if theirs is not None and (ours is None or encode(ours) != encode(theirs)):
            is_part = False
    return is_part


async def _lines(source: Side, target: Side, found: Found, listener: Listener) -> None:
    async for ours, theirs in pair_heads(source, target):
        if theirs is None:
            continue
        name = f"lines of task {theirs.task_id} in run {theirs.run_id}"
        found.counts[Kind.LINES] += theirs.lines
        if ours is None:
            found.foreign.add(name)
        elif not await _is_beginning(source, target, ours, theirs):
            found.foreign.add(f"other {name}")
        elif ours == theirs:
            found.heads.add(ours.ord)
        listener.progress(Phase.COMPARE, found.counts, over=False)


async def _is_beginning(source: Side, target: Side, ours: LogHead, theirs: LogHead) -> bool:
    """Whether the lines of the target are the first lines of the source."""
    last_seq = theirs.last_seq
    if last_seq > ours.last_seq:
        return False
    stored = await part_of_lines(target, theirs, last_seq)
    return stored == await part_of_lines(source, ours, last_seq)


async def _audit(source: Side, target: Side, found: Found) -> None:
    async for ours, theirs in pair_entries(source, target):
        if theirs is None:
            found.has_audit = False
            continue
        found.counts[Kind.AUDIT] += 1
        if ours is None or encode(ours) != encode(theirs):
            found.foreign.add(f"audit entry {theirs.id}")


async def _people(source: Side, target: Side, found: Found, now_ms: int) -> None:
    accounts = await source.accounts(), await target.accounts()
    tokens = await source.tokens(), await target.tokens()
    revoked = await source.revoked(now_ms), await target.revoked(now_ms)
    found.counts[Kind.ACCOUNTS] += len(accounts[1])
    found.counts[Kind.TOKENS] += len(tokens[1])
    _refuse(found, "account", *accounts, _is_older)
    _refuse(found, "API token", *tokens, lambda _ours, _theirs: False)
    _refuse(found, "revoked token", *revoked, lambda ours, theirs: ours > theirs)


def _refuse(
    found: Found,
    what: str,
    ours: Mapping[str, T],
    theirs: Mapping[str, T],
    is_older: Callable[[T, T], bool],
) -> None:
    for name, value in theirs.items():
        own = ours.get(name)
        if own is None or (own != value and not is_older(own, value)):
            found.foreign.add(f"{what} {name}")


def _is_older(ours: Account, theirs: Account) -> bool:
    return theirs.version < ours.version
