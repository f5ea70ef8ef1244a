"""What can be said on the command line. A new command: a module with `add_to`, called here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from taskhub import __version__
from taskhub.cli import migrate, serving, tokens, users
from taskhub.cli.commands import PROGRAM, Commands, add_places
from taskhub.config import Config, load

HELP: Final = frozenset({"-h", "--help"})
FLAGS: Final = ("host", "port", "data_dir", "store")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what the arguments say; `act` of it does what was asked for. May exit, with 2."""
    parser = new_parser()
    flags = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    _add_flags(flags)
    _, rest = flags.parse_known_args(argv)
    if rest and rest[0].startswith("-") and rest[0] not in HELP:
        parser.error(
            f"unknown flag {rest[0].partition('=')[0]}"
        )  # else its value would be taken for a command
    options = parser.parse_args(argv)
    if not all(map(_is_text, vars(options).values())):
        parser.error("an argument is not UTF-8")
    return options


def new_parser() -> argparse.ArgumentParser:
    """Return the parser of the server and of all commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A self-hosted job server: DAGs over REST, live logs over WebSocket.",
        epilog="Without a command it serves. Every setting, its variable and its default: "
        "docs/settings.md.",
        allow_abbrev=False,
    )
    _add_flags(parser)
    parser.set_defaults(act=serving.act)
    commands = Commands(parser, "COMMAND", required=False)
    users.add_to(commands)
    tokens.add_to(commands)
    migrate.add_to(commands)
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_places(parser)
    add("--host", help="address to listen on")
    add("--port", help="port to listen on; 0 takes a free one")
    add("--dev", action="store_true", help="admin/123456 may log in; loopback only")
    add("--print-config", action="store_true", help="print the settings in force, and exit")
    add("--version", action="version", version=f"TaskHub {__version__}")


def load_config(options: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    """Return the settings in force; raise `ConfigError`."""
    given = {name: getattr(options, name, None) for name in FLAGS}
    flags = {
        f"--{name.replace('_', '-')}": text for name, text in given.items() if text is not None
    }
    file = getattr(options, "config", None) or environ.get("TASKHUB_CONFIG")
    return load(Path(file) if file else None, environ, flags, dev=options.dev)


def _is_text(value: object) -> bool:
    """Say whether an argument can be stored and shown: any bytes can stand on a command line."""
    return not isinstance(value, str) or not any("\ud800" <= char <= "\udfff" for char in value)
