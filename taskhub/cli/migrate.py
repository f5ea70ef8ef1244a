"""`taskhub-server migrate --from URL --to URL`: copy a store into another.

Exit codes: 0 the copy is the same, 1 it is not, or not yet whole; 2 refused before anything was
written; 128 + the signal's number if interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from taskhub.cli.commands import Commands
from taskhub.config import Config
from taskhub.errors import ConfigError, ConflictError, SupersededError, UnavailableError
from taskhub.logconfig import configure

if TYPE_CHECKING:
    from taskhub.services.migration import KindReport, Listener

    Between = Callable[[str, str, Config, Listener], Awaitable[Sequence[KindReport]]]

HELP: Final = "copy everything from one store to another, and compare the two"
DESCRIPTION: Final = f"""{HELP}. Stop the servers of both first. A store is "sqlite:", the data
directory, "sqlite:/folder", or "mongodb://host/name"; "env:NAME" is what a variable holds, for
other users of the machine can read a command line. The source is only read. Whatever ends this
early, the same command goes on where it was."""
GO_ON: Final = "what was copied stays; the same command goes on from there"
EMPTY_IT: Final = "the target is no faithful copy: empty it and run the command again"
EMPTY_NEEDED: Final = "give it an empty target, or one that an earlier call began to fill"
SAME: Final = "The target holds the same as the source."
UNCHANGED: Final = "Nothing was changed at the source."


def add_to(commands: Commands) -> None:
    """Add the command."""
    add = commands.add("migrate", HELP, _act, DESCRIPTION).add_argument
    add("--from", dest="source", required=True, metavar="URL", help="the store to copy")
    add(
        "--to", dest="target", required=True, metavar="URL", help="where to; empty, or begun before"
    )


def _act(options: argparse.Namespace, config: Config) -> int:
    configure(config.log.level, config.log.format)
    from taskhub.bootstrap.migration import migrate_between  # noqa: PLC0415  # as in serving

    return asyncio.run(run(options, config, migrate_between))


async def run(options: argparse.Namespace, config: Config, between: Between) -> int:
    """Copy, print what came of it, and return the exit code; raise `ConfigError` if refused."""
    received = _cancel_on_signals()
    try:
        code = await _run(options, config, between)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not received or task is None:
            raise
        task.uncancel()
        _complain(f"interrupted; {GO_ON}")
        code = 128 + received[0]
    if code != 2:  # noqa: PLR2004  # refused: nothing was read either
        print(UNCHANGED, flush=True)
    return code


def _cancel_on_signals() -> Sequence[int]:
    """Cancel the current task on SIGINT and SIGTERM; return where their numbers will be."""
    received: list[int] = []
    task = asyncio.current_task()

    def on_signal(number: int) -> None:
        received.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return received


async def _run(options: argparse.Namespace, config: Config, between: Between) -> int:
    from taskhub.adapters.systemclock import SystemClock  # noqa: PLC0415  # as in `main`
    from taskhub.cli.migration_text import Printer, table  # noqa: PLC0415  # as in `main`

    printer = Printer(SystemClock())
    try:
        source, target = _url(options.source), _url(options.target)
        reports = await between(source, target, config, printer)
    except ConflictError as error:
        _complain(str(error), EMPTY_NEEDED)
        return 2
    except (UnavailableError, SupersededError) as error:
        _complain(str(error), GO_ON)
        return 1
    print("\n".join(table(reports)))
    return _judge(reports)


def _url(given: str) -> str:
    """Return a URL, or what the variable holds that `env:NAME` names; raise `ConfigError`."""
    kind, _, name = given.partition(":")
    if kind != "env":
        return given
    if not os.environ.get(name):
        raise ConfigError(f"{given}: there is no such variable, or it is empty")
    return os.environ[name]


def _judge(reports: Sequence[KindReport]) -> int:
    differing = [report for report in reports if not report.is_same]
    for report in differing:
        _complain(f"{report.kind} differ: {report.differing}")
    if differing:
        _complain(EMPTY_IT)
        return 1
    print(SAME)
    return 0


def _complain(*lines: str) -> None:
    for line in lines:
        print(f"taskhub-server: {line}", file=sys.stderr, flush=True)
