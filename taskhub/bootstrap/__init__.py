"""The composition root: builds every object once, tears them down in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from taskhub.adapters.systemclock import SystemClock
from taskhub.bootstrap.auth import open_auth
from taskhub.bootstrap.duty import Duty
from taskhub.bootstrap.engine import Engine, open_engine
from taskhub.bootstrap.listening import listen, public_url_of, refuse_beyond_loopback, url_of
from taskhub.bootstrap.machine import (
    bound,
    forbid_dumps,
    make_directory,
    raise_descriptor_limit,
)
from taskhub.bootstrap.parts import (
    executor_settings,
    open_services,
    refuse_bad_settings,
)
from taskhub.bootstrap.stores import Patience, ServerStores, open_stores
from taskhub.config import Config
from taskhub.domain.secrets import Secrets
from taskhub.ports.clock import Clock
from taskhub.ports.executor import Executors
from taskhub.registry import discover, started
from taskhub.services.runs import RunService
from taskhub.services.standing import Standing

log = logging.getLogger(__name__)

BROKEN: Final = "the server is stopping; what it did not confirm may or may not have happened"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    engine: Engine
    runs: RunService
    standing: Standing

    async def wait(self, stop: asyncio.Event) -> bool:
        """Return True once `stop` is set, False if the server cannot go on."""
        await self._while_alive(stop.wait())
        return not self.engine.loops.is_dead

    async def stop(self, grace_s: float) -> None:
        """End in order what this server drives; if it cannot store any more, end it at once."""
        loops, supervisor = self.engine.loops, self.engine.supervisor
        if not loops.is_dead and self.standing.is_active:
            log.info("server stops", extra={"running": supervisor.running})
            await self._while_alive(supervisor.stop(grace_s))
        elif not loops.is_dead:
            await loops.close()  # it must not take over now
        if loops.is_superseded:
            self.standing.lose()
        if loops.is_dead:
            await self.engine.abandon(self.standing.refusal or BROKEN)

    async def _while_alive(self, work: Coroutine[Any, Any, object]) -> None:
        """Return when the work is done, or cannot be because a loop has died."""
        working = asyncio.create_task(work, name="while alive")
        died = asyncio.create_task(self.engine.loops.wait_for_death(), name="wait for death")
        try:
            await asyncio.wait({working, died}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            working.cancel()
            died.cancel()


@asynccontextmanager
async def serve(
    config: Config,
    *,
    clock: Clock | None = None,
    stores: ServerStores | None = None,
    executors: Executors | None = None,
) -> AsyncIterator[Server]:
    """Run TaskHub while the block runs; it accepts connections from the block's start on.

    It drives runs if no other server on the same stores does; else it stands by. Raises
    `ConfigError` or `OSError` where the machine or the store does not let it start. At the end of
    the block nothing new is taken, what runs gets `shutdown.grace_s` to end, and all is stored.
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
        refuse_beyond_loopback(config, listener)
        ws_port = server.ws_port
        ws_listener = stack.enter_context(bound(server.host, ws_port)) if ws_port else None
        patiently = Patience(config, clock)
        if stores is None:
            opened = await patiently(lambda: enter(open_stores(config, directory)))
        else:
            opened = stores
        standing = Standing()
        duty = Duty(opened.lease, standing, clock)
        stack.push_async_callback(duty.end)
        access = await patiently(lambda: enter(open_auth(config, clock, opened, directory)))
        installed = discover() if executors is None else executors
        settings = executor_settings(config, directory, installed)
        secrets = Secrets(config.auth.secret_names)
        installed = await enter(started(installed, settings, secrets=secrets))
        refuse_bad_settings(config, installed)
        engine = await enter(open_engine(config, clock, opened, installed, secrets))
        services = await enter(
            open_services(config, clock, opened, installed, engine, access, standing, secrets)
        )
        await patiently(lambda: duty.begin(engine, public_url_of(listener)))
        await enter(listen(config, services, listener, ws_listener, secrets))
        running = Server(url_of(listener), engine, services.runs, standing)
        yield running
        await running.stop(config.shutdown.grace_s)
