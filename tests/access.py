"""Accounts, API tokens and logins on stores in memory, with passwords that cost nothing."""

from __future__ import annotations

from dataclasses import dataclass

from taskhub.adapters.memory_accounts import MemoryAccountStore
from taskhub.ports.accounts import AuditQuery
from taskhub.services.accounts import Accounts
from taskhub.services.audit_log import AuditLog
from taskhub.services.auth import AuthService
from taskhub.services.origin import Origin
from taskhub.services.passwords import Passwords

KEY = bytes(range(32))
TEST = Origin("test", "192.0.2.1")


@dataclass
class Access:
    """What a server knows of who may come in."""

    store: MemoryAccountStore
    audit: AuditLog
    auth: AuthService
    accounts: Accounts
    passwords: Passwords

    async def add(self, name, password, role):
        """Make an account whose password may be short."""
        return await self.accounts.create(name, password, role, TEST, shortest=1)

    async def change(self, name, **changes):
        """Change an account."""
        return await self.accounts.change(name, origin=TEST, shortest=1, **changes)

    async def actions(self):
        """Return actor, action, target and outcome of all entries, oldest first."""
        entries = (await self.audit.page(AuditQuery(), 1000, None)).items
        return [(e.actor, e.action, e.target, e.outcome.value) for e in reversed(entries)]

    def close(self):
        self.passwords.close()


def access(clock, store=None, *, passwords=None, **settings):
    """Return services on a store; call `auth.start` before they are used."""
    store = MemoryAccountStore() if store is None else store
    passwords = passwords or Passwords(log_n=4)
    audit = AuditLog(store.audit, clock)
    auth = AuthService(store, KEY, clock, audit=audit, passwords=passwords, **settings)
    accounts = Accounts(store, clock, passwords, audit, changed=auth.refresh)
    return Access(store, audit, auth, accounts, passwords)
