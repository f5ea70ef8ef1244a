"""What the commands about users and tokens share: the accounts, a password, a table."""

from __future__ import annotations

import asyncio
import getpass
import io
import os
import pwd
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from taskhub.config import Config
from taskhub.errors import InvalidError
from taskhub.services.origin import Origin

if TYPE_CHECKING:
    from taskhub.services.accounts import Accounts


MOST_TYPED: Final = 4096
"""Characters read of a password: more than any has, so that a longer one is refused as it is."""


def on_accounts(config: Config, work: Callable[[Accounts, Origin], Awaitable[None]]) -> int:
    """Open the accounts, beside the server if one runs, and do `work` on them; return 0."""
    from taskhub.bootstrap.accounts import open_account_service  # noqa: PLC0415  # as in serving

    async def run() -> None:
        async with open_account_service(config) as accounts:
            await work(accounts, _origin())

    asyncio.run(run())
    return 0


def read_password(name: str) -> str:
    """Ask for a password twice on a terminal, else read one line; raise `InvalidError`."""
    try:
        password = _asked(name) if sys.stdin.isatty() else _line()
        password.encode()
    except (EOFError, KeyboardInterrupt):
        raise InvalidError("no password was given") from None
    except UnicodeError:
        raise InvalidError("the password is not UTF-8") from None
    return password


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings, in columns; what stdout has no signs for, as escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    table = [headings, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(headings))]
    for row in table:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def moment(ts_ms: int, otherwise: str) -> str:
    """Return a time to the minute, in UTC; `otherwise` for 0."""
    if not ts_ms:
        return otherwise
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _asked(name: str) -> str:
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("The same again: ") != password:
        raise InvalidError("these were two different passwords")
    return password


def _line() -> str:
    line = sys.stdin.readline(MOST_TYPED)
    if not line:
        raise EOFError
    return line.removesuffix("\n").removesuffix("\r")


def _origin() -> Origin:
    """Return who runs the command; the environment could say anything, so it is not asked."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # as in a container
        name = str(number)
    return Origin(f"cli:{name}", "local")
