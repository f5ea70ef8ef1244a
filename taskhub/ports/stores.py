"""The stores of one server together, whatever keeps them."""

from __future__ import annotations

from typing import Protocol

from taskhub.ports.accounts import AccountStore, AuditStore
from taskhub.ports.store import LogStore, RunStore


class AccountStores(Protocol):
    """Who may do what, and who did what."""

    @property
    def accounts(self) -> AccountStore:
        """Accounts, API tokens, revoked tokens."""
        ...

    @property
    def audit(self) -> AuditStore:
        """Who did what."""
        ...


class Stores(AccountStores, Protocol):
    """All that a server keeps."""

    @property
    def runs(self) -> RunStore:
        """Runs, their tasks, outputs and events."""
        ...

    @property
    def logs(self) -> LogStore:
        """What tasks printed."""
        ...
