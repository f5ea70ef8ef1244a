"""From one store to the other, in commits of a few megabytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from typing import Final

from taskhub.domain.audit import AuditEntry
from taskhub.domain.event import EventName
from taskhub.domain.log import LogChunk
from taskhub.ports.store import Batch, RunRow, TaskOutput
from taskhub.services.migration.checksums import Kind, encode
from taskhub.services.migration.listening import Listener, Phase
from taskhub.services.migration.side import ENTRIES, Side
from taskhub.services.migration.survey import Found

COMMIT_SIZE: Final = 4 << 20
"""Characters in one commit, unless a single row has more."""
ROW_SIZE: Final = 512
"""What a row counts beside its text, so that a commit has at most 8,192 rows."""


class _Load:
    """Rows on their way: committed whenever they are many or large."""

    def __init__(self, target: Side) -> None:
        self._target = target
        self._batch = Batch()
        self._size = 0

    async def room_for(self, size: int) -> Batch:
        """Return the batch that the next row of such a size goes into."""
        size += ROW_SIZE
        if self._size and self._size + size > COMMIT_SIZE:
            await self.send()
        self._size += size
        return self._batch

    async def send(self) -> None:
        """Commit what there is."""
        if self._size:
            await self._target.commit(self._batch)
        self._batch, self._size = Batch(), 0


class Copy:
    """Everything that the survey did not find in the target.

    A run's rows go first, in their last state; its outputs and events follow.
    """

    def __init__(self, source: Side, target: Side, found: Found, listener: Listener) -> None:
        self._source = source
        self._target = target
        self._found = found
        self._listener = listener

    async def everything(self, now_ms: int) -> None:
        """Copy all kinds; what is `now_ms` or later is not expired yet."""
        await self._runs()
        await self._lines()
        await self._people(now_ms)

    async def _runs(self) -> None:
        counts: Counter[str] = Counter({Kind.RUNS: 0})
        load = _Load(self._target)
        async for row in self._source.runs():
            if row.header.ord not in self._found.runs:
                counts[Kind.RUNS] += 1
                await self._run(row, load, counts)
                self._listener.progress(Phase.RUNS, counts, over=False)
        await load.send()
        await self._target.commit(Batch(last_number=await self._source.last_number()))
        await self._epochs()
        self._listener.progress(Phase.RUNS, counts, over=True)

    async def _run(self, row: RunRow, load: _Load, counts: Counter[str]) -> None:
        header, dag = await self._source.load(row.header.run_id)
        batch = await load.room_for(sum(len(encode(task)) + ROW_SIZE for task in dag.tasks))
        batch.new_runs.append((header, dag))
        batch.runs.append(row.state)
        async for task in self._source.tasks(header.run_id):
            batch = await load.room_for(len(encode(task.state)))
            batch.tasks.append(task.state)
            counts[Kind.TASKS] += 1
        async for i, output in self._source.outputs(row):
            batch = await load.room_for(len(output.stdout) + len(output.stderr))
            batch.outputs.append(TaskOutput(i, header.run_id, output))
            counts[Kind.OUTPUTS] += 1
        async for event in self._source.events(header.run_id):
            batch = await load.room_for(len(encode(event)))
            batch.events.append(event)
            counts[Kind.EVENTS] += 1
            if not counts[Kind.EVENTS] % 1000:
                self._listener.progress(Phase.RUNS, counts, over=False)

    async def _epochs(self) -> None:
        """Let the target count starts on from where the source is.

        What recovery knows of an open run is told by the numbers of the servers that had it; they
        must not come again.
        """
        last = 0
        for run_id in await self._source.active():
            async for event in self._source.events(run_id):
                epoch = event.extra.get("epoch")
                if event.name is EventName.ATTEMPT_START and isinstance(epoch, int):
                    last = max(last, epoch)
        for number in count(1):
            if not last or await self._target.open_epoch(f"migrated/{number}") >= last:
                return

    async def _lines(self) -> None:
        counts: Counter[str] = Counter()
        chunks: list[LogChunk] = []
        size = 0
        async for chunk in self._missing_chunks():
            more = chunk.size + ROW_SIZE * len(chunk.segments)
            if chunks and size + more > COMMIT_SIZE:
                await self._target.append_chunks(chunks)
                chunks, size = [], 0
            chunks.append(chunk)
            size += more
            counts[Kind.LINES] += chunk.count
            self._listener.progress(Phase.LINES, counts, over=False)
        if chunks:
            await self._target.append_chunks(chunks)
        self._listener.progress(Phase.LINES, counts, over=True)

    async def _missing_chunks(self) -> AsyncIterator[LogChunk]:
        async for head in self._source.heads():
            if head.ord not in self._found.heads:
                async for chunk in self._source.chunks(head, head.last_seq):
                    yield chunk

    async def _people(self, now_ms: int) -> None:
        counts: Counter[str] = Counter()
        accounts = list((await self._source.accounts()).values())
        tokens = list((await self._source.tokens()).values())
        await self._target.restore(accounts, tokens, await self._source.revoked(now_ms))
        counts.update({Kind.ACCOUNTS: len(accounts), Kind.TOKENS: len(tokens)})
        if not self._found.has_audit:
            await self._audit(counts)
        self._listener.progress(Phase.PEOPLE, counts, over=True)

    async def _audit(self, counts: Counter[str]) -> None:
        entries: list[AuditEntry] = []
        async for entry in self._source.entries():
            entries.append(entry)
            if len(entries) == ENTRIES:
                await self._target.append_entries(entries)
                counts[Kind.AUDIT] += len(entries)
                self._listener.progress(Phase.PEOPLE, counts, over=False)
                entries = []
        await self._target.append_entries(entries)
        counts[Kind.AUDIT] += len(entries)
