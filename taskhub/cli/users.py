"""`taskhub-server user ...`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from taskhub.cli.account_work import moment, on_accounts, read_password, show_table
from taskhub.cli.commands import Commands
from taskhub.config import Config
from taskhub.services.origin import Origin
from taskhub.services.roles import Role

if TYPE_CHECKING:
    from taskhub.services.accounts import Accounts

ROLES: Final = [role.word for role in Role]
HEADINGS: Final = ("NAME", "ROLE", "STATE", "CREATED (UTC)")


def add_to(commands: Commands) -> None:
    """Add the commands about users."""
    actions = commands.group("user", "manage users; works while the server runs")
    add = actions.add("add", "make a user; the password is asked for, or a line of stdin", _add)
    add.add_argument("name")
    add.add_argument("--role", choices=ROLES, default=Role.VIEWER.word, help="default: viewer")
    actions.add("list", "show all users", _list)
    passwd = actions.add("passwd", "set a password, which ends the user's logins", _passwd)
    passwd.add_argument("name")
    role = actions.add("role", "change what a user may do", _role)
    role.add_argument("name")
    role.add_argument("role", choices=ROLES)
    for name, act, summary in (
        ("disable", _disable, "keep a user out, API tokens included"),
        ("enable", _enable, "let a disabled user in again"),
        ("remove", _remove, "remove a user and the user's API tokens"),
    ):
        actions.add(name, summary, act).add_argument("name")


def _add(options: argparse.Namespace, config: Config) -> int:
    password = read_password(options.name)

    async def work(accounts: Accounts, origin: Origin) -> None:
        await accounts.create(options.name, password, Role.of(options.role), origin)
        print(f"added {options.name}, {options.role}")

    return on_accounts(config, work)


def _list(_: argparse.Namespace, config: Config) -> int:
    async def work(accounts: Accounts, _: Origin) -> None:
        rows = [
            (
                account.username,
                account.role,
                "disabled" if account.disabled else "enabled",
                moment(account.created_ms, "-"),
            )
            for account in await accounts.all()
        ]
        show_table(HEADINGS, rows)

    return on_accounts(config, work)


def _passwd(options: argparse.Namespace, config: Config) -> int:
    password = read_password(options.name)
    return _change(options.name, "has a new password", config, password=password)


def _role(options: argparse.Namespace, config: Config) -> int:
    return _change(options.name, f"is now {options.role}", config, role=Role.of(options.role))


def _disable(options: argparse.Namespace, config: Config) -> int:
    return _change(options.name, "is disabled", config, disabled=True)


def _enable(options: argparse.Namespace, config: Config) -> int:
    return _change(options.name, "is enabled", config, disabled=False)


def _change(name: str, done: str, config: Config, **change: Any) -> int:  # noqa: ANN401  # as given
    async def work(accounts: Accounts, origin: Origin) -> None:
        await accounts.change(name, **change, origin=origin)
        print(f"{name} {done}")

    return on_accounts(config, work)


def _remove(options: argparse.Namespace, config: Config) -> int:
    async def work(accounts: Accounts, origin: Origin) -> None:
        await accounts.remove(options.name, origin)
        print(f"removed {options.name}")

    return on_accounts(config, work)
