"""The embedded store: two SQLite files, each with one writer thread."""

from taskhub.adapters.sqlite.stores import (
    SqliteAccounts,
    SqliteStores,
    open_sqlite,
    open_sqlite_accounts,
)

__all__ = ["SqliteAccounts", "SqliteStores", "open_sqlite", "open_sqlite_accounts"]
