"""The composition root: builds every object once, tears them down in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from taskhub.adapters.systemclock import SystemClock
from taskhub.bootstrap.machine import (
    bound,
    forbid_dumps,
    make_directory,
    raise_descriptor_limit,
)
from taskhub.bootstrap.parts import (
    Engine,
    Stores,
    executor_settings,
    listen,
    open_auth,
    open_services,
    open_stores,
    refuse_bad_settings,
    run_engine,
)
from taskhub.config import Config
from taskhub.domain.secrets import Secrets
from taskhub.ports.clock import Clock
from taskhub.ports.executor import Executors
from taskhub.registry import discover, started
from taskhub.services.runs import RunService

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    engine: Engine
    runs: RunService

    async def wait(self, stop: asyncio.Event) -> bool:
        """Return True once `stop` is set, False if the server cannot go on."""
        asked = asyncio.create_task(stop.wait(), name="wait for stop")
        died = asyncio.create_task(self.engine.loops.wait_for_death(), name="wait for death")
        try:
            await asyncio.wait({asked, died}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            died.cancel()
        return not self.engine.loops.is_dead


@asynccontextmanager
async def serve(
    config: Config,
    *,
    clock: Clock | None = None,
    stores: Stores | None = None,
    executors: Executors | None = None,
) -> AsyncIterator[Server]:
    """Run TaskHub while the block runs; it accepts connections from the block's start on.

    Raises `ConfigError` or `OSError` where the machine does not let it start. At the end of the
    block nothing new is taken, what runs gets `shutdown.grace_s` to end, and all is stored.
    """
    clock = clock or SystemClock()
    server = config.server
    raise_descriptor_limit()
    if not config.dev:
        forbid_dumps()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        directory = make_directory(server.data_dir)
        listener = stack.enter_context(bound(server.host, server.port))
        ws_port = server.ws_port
        ws_listener = stack.enter_context(bound(server.host, ws_port)) if ws_port else None
        if stores is None:
            stores = await enter(open_stores(config, directory))
        auth = await enter(open_auth(config, clock, stores, directory))
        installed = discover() if executors is None else executors
        settings = executor_settings(config, directory, installed)
        secrets = Secrets(config.auth.secret_names)
        installed = await enter(started(installed, settings, secrets=secrets))
        refuse_bad_settings(config, installed)
        engine = await enter(run_engine(config, clock, stores, installed, secrets))
        services = await enter(open_services(config, clock, stores, installed, engine, auth))
        url = await enter(listen(config, services, listener, ws_listener, secrets))
        yield Server(url, engine, services.runs)
        if not engine.loops.is_dead:
            log.info("server stops", extra={"running": engine.supervisor.running})
            await engine.supervisor.stop(config.shutdown.grace_s)
