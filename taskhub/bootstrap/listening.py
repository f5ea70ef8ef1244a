"""Accepting connections."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.web import Application

from taskhub.config import Config
from taskhub.domain.secrets import Secrets
from taskhub.errors import ConfigError
from taskhub.spec.limits import SpecLimits
from taskhub.web.app import Services, make_app, make_ws_app
from taskhub.web.gate import WebSettings
from taskhub.web.offload import Offload
from taskhub.web.socket import SocketSettings

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
BUFFERED_BYTES: Final = 64 << 10
"""What a handler that does not stream gets of a body; those of the API stream, and count."""
HEADER_BYTES: Final = 64 << 10
IDLE_S: Final = 60.0
BODY_S: Final = 120.0
"""Seconds that a connection may wait for its next request, and a body may take to arrive."""


@asynccontextmanager
async def listen(
    config: Config,
    services: Services,
    listener: socket.socket,
    ws_listener: socket.socket | None,
    masked: Secrets,
) -> AsyncIterator[None]:
    """Accept connections."""
    if config.auth.mode == "seed":
        log.warning("auth.mode is seed: whoever reaches this port may run commands")
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
    try:
        yield
    finally:
        for server in servers:
            server.stop()
        services.live.close()
        for server in servers:
            await server.close_all_connections()
        offload.close()


def refuse_beyond_loopback(config: Config, listener: socket.socket) -> None:
    """Raise `ConfigError` if others can reach a server that lets in whoever reaches it.

    The settings were checked by name; this looks at the address that the name turned out to be.
    """
    address = listener.getsockname()[0]
    if ipaddress.ip_address(address).is_loopback:
        return
    if config.dev:
        raise ConfigError(f"--dev has a known password, and {address} is not loopback")
    if config.auth.mode == "seed":
        raise ConfigError(f"auth.mode is seed, and {address} is not loopback")


def url_of(listener: socket.socket) -> str:
    """Return where a listener is reached from this machine."""
    host, port = listener.getsockname()[:2]
    return _url(host, port)


def public_url_of(listener: socket.socket) -> str:
    """Return where a listener is reached from others, as well as that is known here."""
    host, port = listener.getsockname()[:2]
    everywhere = ipaddress.ip_address(host).is_unspecified
    return _url(socket.gethostname() if everywhere else host, port)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _web_settings(config: Config, listener: socket.socket, masked: Secrets) -> WebSettings:
    limits = config.limits
    return WebSettings(
        body_bytes=limits.body_bytes,
        json_depth=limits.json_depth,
        is_loopback=ipaddress.ip_address(listener.getsockname()[0]).is_loopback,
        allowed_hosts=frozenset(config.server.allowed_hosts),
        is_seed=config.auth.mode == "seed",
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
