"""What drives runs: built at the start, at work from `activate` on."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from taskhub.background.retention import Retention
from taskhub.bootstrap.machine import boot_id
from taskhub.bootstrap.stores import ServerStores
from taskhub.config import Config
from taskhub.domain.ids import IdSource
from taskhub.domain.secrets import Secrets
from taskhub.engine.bus import Bus
from taskhub.engine.journal import Journal
from taskhub.engine.launcher import Launcher
from taskhub.engine.loops import Loops
from taskhub.engine.output import LogWriter, OutputLimits
from taskhub.engine.recovery import recover
from taskhub.engine.scheduler import Scheduler
from taskhub.engine.supervisor import Supervisor
from taskhub.engine.timers import Timers
from taskhub.ports.clock import Clock
from taskhub.ports.executor import Executors


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What drives runs on the active server, and is at rest on the others."""

    start_id: str
    stores: ServerStores
    clock: Clock
    bus: Bus
    ids: IdSource
    chunk_ids: IdSource
    journal: Journal
    writer: LogWriter
    timers: Timers
    launcher: Launcher
    supervisor: Supervisor
    retention: Retention
    loops: Loops
    to_load: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What services load from the store before runs are taken up; may be repeated."""
    at_activation: list[Callable[[], None]] = field(default_factory=list)
    """What services do once the runs are known, and before anything moves."""

    def is_failing(self) -> bool:
        """Whether the store does not take what it is given at present."""
        return self.journal.is_failing or self.writer.is_failing

    async def activate(self) -> None:
        """Load where an earlier server stopped, take up the runs it left, and drive them.

        Raises `UnavailableError`, and can be repeated then: nothing has begun before the last wait.
        """
        runs = self.stores.runs
        self.supervisor.begin(await runs.open_epoch(self.start_id, self.clock.now_ms()))
        self.ids.skip_to(await runs.last_id())
        self.chunk_ids.skip_to(await self.stores.logs.last_id())
        for load in self.to_load:
            await load()
        await recover(runs, self.supervisor)
        for do in self.at_activation:
            do()
        self.loops.start("log writer", self.writer.run())
        self.loops.start("timers", self.timers.run())
        self.loops.start("supervisor", self.supervisor.run())
        self.loops.start("retention", self.retention.run())

    async def abandon(self, reason: str) -> None:
        """Store nothing more, tell whoever waits why, and end what is running."""
        await self.loops.close()
        self.supervisor.abandon(reason)
        await self.launcher.close()


@asynccontextmanager
async def open_engine(
    config: Config, clock: Clock, stores: ServerStores, executors: Executors, masked: Secrets
) -> AsyncIterator[Engine]:
    """Build what drives runs; end what it has begun when the block ends."""
    bus, ids, chunk_ids = Bus(), IdSource(), IdSource()
    writer = LogWriter(stores.logs, bus, clock, chunk_ids)
    journal = Journal(stores.runs, bus, clock, ids)
    timers = Timers(clock)
    launcher = Launcher(executors, writer, timers, _output_limits(config), secrets=masked)
    scheduler = Scheduler(config.limits.running_attempts)
    engine = Engine(
        start_id=f"{boot_id()}/{secrets.token_hex(8)}",
        stores=stores,
        clock=clock,
        bus=bus,
        ids=ids,
        chunk_ids=chunk_ids,
        journal=journal,
        writer=writer,
        timers=timers,
        launcher=launcher,
        supervisor=Supervisor(
            journal=journal, launcher=launcher, timers=timers, scheduler=scheduler
        ),
        retention=_retention(config, clock, stores),
        loops=Loops(),
    )
    try:
        yield engine
    finally:
        await engine.loops.close()
        await launcher.close()


def _output_limits(config: Config) -> OutputLimits:
    limits = config.limits
    return OutputLimits(
        line=limits.line_bytes, attempt=limits.output_bytes, tail=limits.answer_output_bytes
    )


def _retention(config: Config, clock: Clock, stores: ServerStores) -> Retention:
    keep = config.retention
    return Retention(
        stores.runs,
        stores.logs,
        clock,
        stores.audit,
        run_days=keep.run_days,
        log_days=keep.log_days,
        log_bytes=keep.log_bytes,
        audit_days=keep.audit_days,
        interval_s=keep.interval_s,
    )
