"""`taskhub-server token ...`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from taskhub.cli.account_work import moment, on_accounts, show_table
from taskhub.cli.commands import Commands
from taskhub.cli.users import ROLES
from taskhub.config import Config
from taskhub.services.origin import Origin
from taskhub.services.roles import Role

if TYPE_CHECKING:
    from taskhub.services.accounts import Accounts

HEADINGS: Final = ("ID", "USER", "NAME", "ROLE", "CREATED (UTC)", "EXPIRES (UTC)")


def add_to(commands: Commands) -> None:
    """Add the commands about API tokens."""
    actions = commands.group("token", "manage API tokens; works while the server runs")
    add = actions.add("add", "make an API token, and print it, this once", _add)
    add.add_argument("user")
    add.add_argument("--name", required=True, help="what it is for")
    add.add_argument("--role", choices=ROLES, help="default: the user's")
    add.add_argument("--days", type=int, help="how long it lives; default: for ever")
    show = actions.add("list", "show the API tokens of a user, or of all", _list)
    show.add_argument("user", nargs="?")
    revoke = actions.add("revoke", "end an API token", _revoke)
    revoke.add_argument("id", help="as shown by token list")


def _add(options: argparse.Namespace, config: Config) -> int:
    role = None if options.role is None else Role.of(options.role)

    async def work(accounts: Accounts, origin: Origin) -> None:
        token, text = await accounts.add_token(
            options.user, options.name, role, options.days, origin
        )
        print(text)
        note = f"token {token.id} of {token.username}, {token.role}; it is not shown again"
        print(note, file=sys.stderr)

    return on_accounts(config, work)


def _list(options: argparse.Namespace, config: Config) -> int:
    async def work(accounts: Accounts, _: Origin) -> None:
        rows = [
            (
                token.id,
                token.username,
                token.name,
                token.role,
                moment(token.created_ms, "-"),
                moment(token.expires_ms, "never"),
            )
            for token in await accounts.tokens(options.user)
        ]
        show_table(HEADINGS, rows)

    return on_accounts(config, work)


def _revoke(options: argparse.Namespace, config: Config) -> int:
    async def work(accounts: Accounts, origin: Origin) -> None:
        await accounts.remove_token(options.id, origin)
        print(f"revoked {options.id}")

    return on_accounts(config, work)
