"""How commands are added to the parser, and the flags that all of them take."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from taskhub.config import Config

PROGRAM: Final = "taskhub-server"
INTERRUPTED: Final = 130
"""What shells report for a program that SIGINT ended: 128 + 2."""

Act = Callable[[argparse.Namespace, Config], int]


class Commands:
    """The commands of a parser, or the actions of a command; one of them must be given."""

    def __init__(self, parser: argparse.ArgumentParser, metavar: str, *, required: bool) -> None:
        self._group = parser.add_subparsers(
            metavar=metavar, required=required, parser_class=argparse.ArgumentParser
        )

    def add(
        self, name: str, summary: str, act: Act, description: str = ""
    ) -> argparse.ArgumentParser:
        """Add a command that `act` does; returns its parser, for its arguments.

        `act` gets the arguments and the settings, returns the exit code, and may raise any
        `TaskHubError`, which is shown in one line each. It may be interrupted, and so may be
        whoever reads its output.
        """
        parser = self._group.add_parser(
            name, help=summary, description=description or f"{summary}.", allow_abbrev=False
        )
        add_places(parser)
        parser.set_defaults(act=partial(_perform, act))
        return parser

    def group(self, name: str, summary: str) -> Commands:
        """Add a command that has actions of its own."""
        parser = self._group.add_parser(
            name, help=summary, description=f"{summary}.", allow_abbrev=False
        )
        return Commands(parser, "ACTION", required=True)


def _perform(act: Act, options: argparse.Namespace, config: Config) -> int:
    try:
        code = act(options, config)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; it may have been done or not", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # as of `... | head -1`
        with Path(os.devnull).open("w") as nowhere:  # what is left would be flushed at the exit
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 1
    return code


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the data is; given before the command, they hold as well."""
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add("--config", metavar="FILE", default=unset, help="settings file (or TASKHUB_CONFIG)")
    add("--data-dir", metavar="DIR", default=unset, help="where the server keeps what it knows")
    add(
        "--store",
        metavar="URL",
        default=unset,
        help='"sqlite:", files in the data directory, or "mongodb://..."',
    )
