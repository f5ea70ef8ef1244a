"""Who may come in: accounts and their audit, and the administrator of the first start."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskhub.bootstrap.machine import secret_key, write_private
from taskhub.bootstrap.stores import ServerStores
from taskhub.config import Config
from taskhub.errors import ConflictError, NotFoundError
from taskhub.ports.clock import Clock
from taskhub.services.accounts import Accounts
from taskhub.services.audit_log import AuditLog
from taskhub.services.auth import AuthService
from taskhub.services.origin import Origin
from taskhub.services.passwords import Passwords
from taskhub.services.roles import Role
from taskhub.services.throttle import Throttle

ADMIN: Final = "admin"
SERVER: Final = Origin("server")
"""Stands in the audit for what a start does by itself."""
DEV_PASSWORD: Final = "123456"  # noqa: S105  # the seed's, for loopback only
DEV_NOTE: Final = "--dev: admin's password is 123456; the next start without --dev makes a new one"

PASSWORD_FILE: Final = "admin-password"  # noqa: S105  # its name
QUICKER_NOTE: Final = "another server has made admin at the same time; its password counts"
SHARED_NOTE: Final = "--dev: these accounts are shared with other servers; log in as before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The services about who may do what."""

    auth: AuthService
    accounts: Accounts
    audit: AuditLog


@asynccontextmanager
async def open_auth(
    config: Config, clock: Clock, stores: ServerStores, directory: Path
) -> AsyncIterator[Access]:
    """Know the accounts; on the first start, make the one of the administrator."""
    failures, window_ms = config.auth.login_failures, config.auth.login_window_s * 1000
    audit, passwords = AuditLog(stores.audit, clock), Passwords()
    try:
        auth = AuthService(
            stores.accounts,
            await stores.signing_key(lambda: secret_key(directory / "secret.key")),
            clock,
            audit=audit,
            passwords=passwords,
            token_ttl_ms=config.auth.token_ttl_s * 1000,
            throttle=Throttle(clock, failures=failures, window_ms=window_ms),
            addresses=Throttle(clock, failures=10 * failures, window_ms=window_ms),
        )
        accounts = Accounts(stores.accounts, clock, passwords, audit, changed=auth.refresh)
        await audit.start()
        await auth.start()
        is_shared = config.store.url.startswith("mongodb")
        await _provide_admin(accounts, directory, dev=config.dev, is_shared=is_shared)
        yield Access(auth=auth, accounts=accounts, audit=audit)
    finally:
        passwords.close()


async def _provide_admin(
    accounts: Accounts, directory: Path, *, dev: bool, is_shared: bool
) -> None:
    """Make `admin` if there is none; let the well-known password of --dev in with --dev only.

    Accounts that servers share are nobody's own: --dev changes none of them.
    """
    try:
        is_dev_password = await accounts.is_right(ADMIN, DEV_PASSWORD)
    except NotFoundError:
        await _create_admin(accounts, directory, dev=dev)
        return
    if dev == is_dev_password:
        return
    if not dev:
        await accounts.change(ADMIN, password=_new_password(directory), origin=SERVER)
    elif is_shared:
        print(SHARED_NOTE, file=sys.stderr, flush=True)  # noqa: T201
    else:
        await _let_in_with_dev_password(accounts)


async def _let_in_with_dev_password(accounts: Accounts) -> None:
    await accounts.change(
        ADMIN, password=DEV_PASSWORD, role=Role.ADMIN, disabled=False, origin=SERVER, shortest=1
    )
    print(DEV_NOTE, file=sys.stderr, flush=True)  # noqa: T201


async def _create_admin(accounts: Accounts, directory: Path, *, dev: bool) -> None:
    if not dev and await accounts.all():
        return  # somebody removed `admin` on purpose, and others can administer
    password = DEV_PASSWORD if dev else _new_password(directory)
    try:
        await accounts.create(ADMIN, password, Role.ADMIN, SERVER, shortest=1)
    except ConflictError:  # another server on the same store was quicker
        if not dev:
            (directory / PASSWORD_FILE).unlink()
            print(QUICKER_NOTE, file=sys.stderr, flush=True)  # noqa: T201


def _new_password(directory: Path) -> str:
    """Make a password, keep it in a file, show it once; nothing knows of it before."""
    path = directory / PASSWORD_FILE
    password = secrets.token_urlsafe(18)
    write_private(path, f"{password}\n".encode())
    print(f"admin's password is {password} (kept in {path})", file=sys.stderr, flush=True)  # noqa: T201
    return password
