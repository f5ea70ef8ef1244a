"""The parts of a server: each built from the configuration, running while its block runs."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from taskhub.background.task_news import TaskNews
from taskhub.bootstrap.engine import Engine
from taskhub.bootstrap.machine import secret_key, write_private
from taskhub.bootstrap.stores import Stores
from taskhub.config import Config
from taskhub.errors import ConfigError, NotFoundError
from taskhub.ports.clock import Clock
from taskhub.ports.executor import Executors
from taskhub.services.auth import ADMIN, AuthService, Role
from taskhub.services.live import LiveHub, LiveLimits
from taskhub.services.logs import LogService
from taskhub.services.runs import RunService
from taskhub.services.standing import Standing
from taskhub.services.system import SystemService
from taskhub.services.task_changes import TaskChanges
from taskhub.services.tasks import TaskService
from taskhub.services.throttle import Throttle
from taskhub.web.app import Services
from taskhub.web.task_views import simple_task_item

DEV_PASSWORD: Final = "123456"  # noqa: S105  # the seed's, for loopback only
DEV_NOTE: Final = "--dev: admin's password is 123456; the next start without --dev makes a new one"


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
async def open_auth(
    config: Config, clock: Clock, stores: Stores, directory: Path
) -> AsyncIterator[AuthService]:
    """Know the accounts; on the first start, make the one of the administrator."""
    failures, window_ms = config.auth.login_failures, config.auth.login_window_s * 1000
    auth = AuthService(
        stores.accounts,
        await stores.signing_key(lambda: secret_key(directory / "secret.key")),
        clock,
        token_ttl_ms=config.auth.token_ttl_s * 1000,
        throttle=Throttle(clock, failures=failures, window_ms=window_ms),
        addresses=Throttle(clock, failures=10 * failures, window_ms=window_ms),
    )
    await auth.start()
    try:
        await _provide_admin(auth, stores, directory, dev=config.dev)
        yield auth
    finally:
        await auth.close()


async def _provide_admin(auth: AuthService, stores: Stores, directory: Path, *, dev: bool) -> None:
    """Make `admin` if there is none; let the well-known password of --dev in with --dev only."""
    marker = directory / "dev-password"
    try:
        await stores.accounts.account(ADMIN)
    except NotFoundError:
        if dev:
            marker.touch(mode=0o600)
        await auth.create(ADMIN, DEV_PASSWORD if dev else _new_password(directory), Role.ADMIN)
        return
    if dev and not marker.exists():
        marker.touch(mode=0o600)
        await auth.change(ADMIN, password=DEV_PASSWORD)
        print(DEV_NOTE, file=sys.stderr, flush=True)  # noqa: T201
    elif marker.exists() and not dev:
        await auth.change(ADMIN, password=_new_password(directory))
        marker.unlink()


def _new_password(directory: Path) -> str:
    """Make a password, keep it in a file, show it once; nothing knows of it before."""
    path = directory / "admin-password"
    password = secrets.token_urlsafe(18)
    write_private(path, f"{password}\n".encode())
    print(f"admin's password is {password} (kept in {path})", file=sys.stderr, flush=True)  # noqa: T201
    return password


@asynccontextmanager
async def open_services(
    config: Config,
    clock: Clock,
    stores: Stores,
    executors: Executors,
    engine: Engine,
    auth: AuthService,
    standing: Standing,
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
        standing=standing,
    )
    tasks = TaskService(store=stores.runs, runs=runs, supervisor=engine.supervisor)

    async def take_up_tasks() -> None:
        await tasks.load()
        changes.follow(engine.supervisor.runs.values())

    engine.at_activation.append(take_up_tasks)
    engine.loops.start("task news", TaskNews(tasks, live, clock, simple_task_item).run())
    try:
        yield Services(
            runs=runs,
            tasks=tasks,
            auth=auth,
            system=SystemService(clock, is_failing=engine.is_failing, standing=standing),
            logs=LogService(stores.logs),
            executors=executors,
            live=live,
        )
    finally:
        live.close()
        await runs.close()
