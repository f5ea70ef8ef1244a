"""Settings: `sections` declares them, `sources` reads them, `render` writes them."""

from __future__ import annotations

from taskhub.config.render import sample, to_toml
from taskhub.config.sections import (
    Auth,
    Config,
    Limits,
    Log,
    Retention,
    Server,
    Shutdown,
    Socket,
    Store,
)
from taskhub.config.sources import load

__all__ = [
    "Auth",
    "Config",
    "Limits",
    "Log",
    "Retention",
    "Server",
    "Shutdown",
    "Socket",
    "Store",
    "load",
    "sample",
    "to_toml",
]
