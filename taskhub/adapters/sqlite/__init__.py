"""The embedded store: two SQLite files, each with one writer thread."""

from taskhub.adapters.sqlite.stores import SqliteStores, open_sqlite, open_sqlite_accounts

__all__ = ["SqliteStores", "open_sqlite", "open_sqlite_accounts"]
