"""The parts of a server: each built from the configuration, running while its block runs."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.web import Application

from taskhub.adapters.memory import MemoryStores
from taskhub.adapters.sqlite import SqliteStores, open_sqlite
from taskhub.background.retention import Retention
from taskhub.background.task_news import TaskNews
from taskhub.bootstrap.machine import boot_id, secret_key, write_private
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
from taskhub.errors import ConfigError, NotFoundError
from taskhub.ports.clock import Clock
from taskhub.ports.executor import Executors
from taskhub.services.auth import ADMIN, AuthService, Role
from taskhub.services.live import LiveHub, LiveLimits
from taskhub.services.logs import LogService
from taskhub.services.runs import RunService
from taskhub.services.system import SystemService
from taskhub.services.task_changes import TaskChanges
from taskhub.services.tasks import TaskService
from taskhub.services.throttle import Throttle
from taskhub.spec.limits import SpecLimits
from taskhub.web.app import Services, make_app, make_ws_app
from taskhub.web.gate import WebSettings
from taskhub.web.offload import Offload
from taskhub.web.socket import SocketSettings
from taskhub.web.task_views import simple_task_item

DEV_PASSWORD: Final = "123456"  # noqa: S105  # the seed's, for loopback only
DEV_NOTE: Final = "--dev: admin's password is 123456; the next start without --dev makes a new one"
BACKLOG: Final = 1024
BUFFERED_BYTES: Final = 64 << 10
"""What a handler that does not stream gets of a body; those of the API stream, and count."""
HEADER_BYTES: Final = 64 << 10
IDLE_S: Final = 60.0
BODY_S: Final = 120.0
"""Seconds that a connection may wait for its next request, and a body may take to arrive."""

Stores = MemoryStores | SqliteStores


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What drives runs."""

    bus: Bus
    ids: IdSource
    journal: Journal
    writer: LogWriter
    supervisor: Supervisor
    loops: Loops

    def is_failing(self) -> bool:
        """Whether the store does not take what it is given at present."""
        return self.journal.is_failing or self.writer.is_failing


@asynccontextmanager
async def open_stores(config: Config, directory: Path) -> AsyncIterator[Stores]:
    """Open the stores that the configuration names."""
    if config.store.url == "memory:":
        yield MemoryStores()
        return
    async with open_sqlite(
        directory, sync=config.store.sync, min_free_bytes=config.limits.free_disk_bytes
    ) as stores:
        yield stores


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
async def run_engine(
    config: Config, clock: Clock, stores: Stores, executors: Executors, masked: Secrets
) -> AsyncIterator[Engine]:
    """Take up what an earlier server left, and drive runs."""
    ids = IdSource(await stores.runs.last_id())
    start = f"{boot_id()}/{secrets.token_hex(8)}"
    epoch = await stores.runs.open_epoch(start, clock.now_ms())
    bus = Bus()
    writer = LogWriter(stores.logs, bus, clock, IdSource(await stores.logs.last_id()))
    journal = Journal(stores.runs, bus, clock, ids)
    timers = Timers(clock)
    launcher = Launcher(executors, writer, timers, _output_limits(config), secrets=masked)
    supervisor = Supervisor(
        journal=journal,
        launcher=launcher,
        timers=timers,
        scheduler=Scheduler(config.limits.running_attempts),
        epoch=epoch,
    )
    await recover(stores.runs, supervisor)
    loops = Loops()
    loops.start("log writer", writer.run())
    loops.start("timers", timers.run())
    loops.start("supervisor", supervisor.run())
    loops.start("retention", _retention(config, clock, stores).run())
    try:
        yield Engine(
            bus=bus, ids=ids, journal=journal, writer=writer, supervisor=supervisor, loops=loops
        )
    finally:
        await loops.close()
        await launcher.close()


def _output_limits(config: Config) -> OutputLimits:
    limits = config.limits
    return OutputLimits(
        line=limits.line_bytes, attempt=limits.output_bytes, tail=limits.answer_output_bytes
    )


def _retention(config: Config, clock: Clock, stores: Stores) -> Retention:
    keep = config.retention
    return Retention(
        stores.runs,
        stores.logs,
        clock,
        run_days=keep.run_days,
        log_days=keep.log_days,
        log_bytes=keep.log_bytes,
        interval_s=keep.interval_s,
    )


@asynccontextmanager
async def open_auth(
    config: Config, clock: Clock, stores: Stores, directory: Path
) -> AsyncIterator[AuthService]:
    """Know the accounts; on the first start, make the one of the administrator."""
    failures, window_ms = config.auth.login_failures, config.auth.login_window_s * 1000
    auth = AuthService(
        stores.accounts,
        secret_key(directory / "secret.key"),
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
    live = LiveHub(engine.bus, stores.logs, stores.runs, clock, live_limits)
    changes = TaskChanges(engine.bus, live)
    changes.follow(engine.supervisor.runs.values())  # at once: none of them must end before
    runs = RunService(
        store=stores.runs,
        supervisor=engine.supervisor,
        clock=clock,
        ids=engine.ids,
        random=SystemRandom(),
        queued_limit=config.limits.queued_runs,
        watch=changes.watch,
    )
    tasks = TaskService(store=stores.runs, runs=runs, supervisor=engine.supervisor)
    await tasks.load()
    engine.loops.start("task news", TaskNews(tasks, live, clock, simple_task_item).run())
    try:
        yield Services(
            runs=runs,
            tasks=tasks,
            auth=auth,
            system=SystemService(clock, is_failing=engine.is_failing),
            logs=LogService(stores.logs),
            executors=executors,
            live=live,
        )
    finally:
        live.close()
        await runs.close()


@asynccontextmanager
async def listen(
    config: Config,
    services: Services,
    listener: socket.socket,
    ws_listener: socket.socket | None,
    masked: Secrets,
) -> AsyncIterator[str]:
    """Accept connections; yields the URL."""
    offload = Offload()
    settings = _web_settings(config, listener, masked)
    sockets = SocketSettings(
        auth_timeout_s=config.socket.auth_timeout_s,
        ping_s=config.socket.ping_s,
        commands=config.socket.commands,
        window_s=config.socket.command_window_s,
    )
    servers = [_serve_on(listener, make_app(services, settings, sockets, offload))]
    if ws_listener is not None:
        servers.append(_serve_on(ws_listener, make_ws_app(services, sockets, settings, offload)))
    host, port = listener.getsockname()[:2]
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        for server in servers:
            server.stop()
        services.live.close()
        for server in servers:
            await server.close_all_connections()
        offload.close()


def _web_settings(config: Config, listener: socket.socket, masked: Secrets) -> WebSettings:
    limits = config.limits
    return WebSettings(
        body_bytes=limits.body_bytes,
        json_depth=limits.json_depth,
        is_loopback=ipaddress.ip_address(listener.getsockname()[0]).is_loopback,
        allowed_hosts=frozenset(config.server.allowed_hosts),
        spec=SpecLimits(
            tasks=limits.dag_tasks,
            exec_command_bytes=limits.exec_command_bytes,
            exec_params_bytes=limits.exec_params_bytes,
            retries=limits.retries,
            secrets=masked,
        ),
    )


def _serve_on(listener: socket.socket, app: Application) -> HTTPServer:
    listener.listen(BACKLOG)
    server = HTTPServer(
        app,
        idle_connection_timeout=IDLE_S,
        body_timeout=BODY_S,
        max_body_size=BUFFERED_BYTES,
        max_header_size=HEADER_BYTES,
    )
    server.add_socket(listener)
    return server
