"""The parts of a server: each built from the configuration, running while its block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any

from taskhub.background.account_watch import AccountWatch
from taskhub.background.task_news import TaskNews
from taskhub.bootstrap.auth import Access
from taskhub.bootstrap.engine import Engine
from taskhub.bootstrap.stores import ServerStores
from taskhub.config import Config
from taskhub.domain.secrets import Secrets
from taskhub.errors import ConfigError
from taskhub.ports.clock import Clock
from taskhub.ports.executor import Executors
from taskhub.services.live import LiveHub, LiveLimits
from taskhub.services.logs import LogService
from taskhub.services.runs import RunService
from taskhub.services.standing import Standing
from taskhub.services.system import SystemService
from taskhub.services.task_changes import TaskChanges
from taskhub.services.tasks import TaskService
from taskhub.web.app import Services
from taskhub.web.task_views import simple_task_item


def executor_settings(
    config: Config, directory: Path, installed: Executors
) -> Mapping[str, Mapping[str, Any]]:
    """Return each executor's own table of the configuration, and `state_dir`, a folder for it.

    Raises `ConfigError` for a table that no installed executor would read.
    """
    tables = {name.lower(): table for name, table in config.executors.items()}
    if unknown := tables.keys() - installed.keys():
        names = ", ".join(row.name for row in installed.values())
        raise ConfigError(f"[executors.{min(unknown)}]: no such executor; installed: {names}")
    return {
        name: {**tables.get(name, {}), "state_dir": str(directory / "executors" / name)}
        for name in installed
    }


def refuse_bad_settings(config: Config, started: Executors) -> None:
    """Raise `ConfigError` if an executor that the configuration speaks of did not start with it."""
    for name in config.executors:
        row = started[name.lower()]
        if row.error:
            raise ConfigError(f"[executors.{row.name}]: {row.error}")


@asynccontextmanager
async def open_services(
    config: Config,
    clock: Clock,
    stores: ServerStores,
    executors: Executors,
    engine: Engine,
    access: Access,
    standing: Standing,
    masked: Secrets,
) -> AsyncIterator[Services]:
    """Offer what users can ask for."""
    limits = config.socket
    live_limits = LiveLimits(
        sockets=limits.connections,
        subscriptions=limits.subscriptions,
        messages=limits.queue_messages,
        bytes=limits.queue_bytes,
        stall_s=limits.stall_s,
    )
    live = LiveHub(engine.bus, stores.logs, stores.runs, clock, live_limits, standing)
    changes = TaskChanges(engine.bus, live)
    runs = RunService(
        store=stores.runs,
        supervisor=engine.supervisor,
        clock=clock,
        ids=engine.ids,
        random=SystemRandom(),
        queued_limit=config.limits.queued_runs,
        watch=changes.watch,
        audit=access.audit,
        standing=standing,
    )
    tasks = TaskService(store=stores.runs, runs=runs, supervisor=engine.supervisor)

    engine.to_load.append(tasks.load)
    engine.at_activation.append(lambda: changes.follow(engine.supervisor.runs.values()))
    watch = AccountWatch(access.auth, clock)
    engine.loops.start("accounts", watch.run())
    item = partial(simple_task_item, secrets=masked)
    engine.loops.start("task news", TaskNews(tasks, live, clock, item).run())
    try:
        yield Services(
            runs=runs,
            tasks=tasks,
            auth=access.auth,
            accounts=access.accounts,
            audit=access.audit,
            system=SystemService(
                clock, is_failing=lambda: watch.is_away or engine.is_failing(), standing=standing
            ),
            logs=LogService(stores.logs),
            executors=executors,
            live=live,
        )
    finally:
        live.close()
        await runs.close()
