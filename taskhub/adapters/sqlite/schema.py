"""What the two files hold, and every step by which they came to hold it.

A migration is never changed once released: a file remembers how many of them it has seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskhub.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One kind of file: its mark in the header, and its migrations in order."""

    application_id: int
    migrations: Sequence[Sequence[str]]


STATE_1: Final = (
    """CREATE TABLE runs (
        ord INTEGER PRIMARY KEY, run_id TEXT NOT NULL, name TEXT NOT NULL, folded TEXT NOT NULL,
        source TEXT NOT NULL, created_ms INTEGER NOT NULL, first_task_id INTEGER NOT NULL,
        owner TEXT NOT NULL, parent_run_id TEXT NOT NULL, unique_key TEXT NOT NULL,
        dag TEXT NOT NULL, total INTEGER NOT NULL, status INTEGER NOT NULL,
        start_ts_ms INTEGER NOT NULL, end_ts_ms INTEGER NOT NULL, success_count INTEGER NOT NULL,
        failed_count INTEGER NOT NULL, skipped_count INTEGER NOT NULL, message TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX runs_id ON runs (run_id)",
    "CREATE UNIQUE INDEX runs_key ON runs (unique_key) WHERE unique_key <> ''",
    "CREATE INDEX runs_active ON runs (ord) WHERE status = 0",
    "CREATE INDEX runs_ended ON runs (end_ts_ms) WHERE status <> 0",
    "CREATE INDEX runs_start ON runs (start_ts_ms)",
    """CREATE TABLE task_runs (
        id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, task_id TEXT NOT NULL, name TEXT NOT NULL,
        spec TEXT NOT NULL, status INTEGER NOT NULL, attempt INTEGER NOT NULL,
        exit_code INTEGER NOT NULL, duration_ms INTEGER NOT NULL, message TEXT NOT NULL,
        start_ts_ms INTEGER NOT NULL, end_ts_ms INTEGER NOT NULL, metadata TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX task_runs_run ON task_runs (run_id, task_id)",
    "CREATE INDEX task_runs_name ON task_runs (name)",
    """CREATE TABLE outputs (
        id INTEGER PRIMARY KEY, stdout TEXT NOT NULL, stderr TEXT NOT NULL)""",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, seq INTEGER NOT NULL,
        ts_ms INTEGER NOT NULL, name TEXT NOT NULL, task_id TEXT NOT NULL, extra TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX events_run ON events (run_id, seq)",
    "CREATE INDEX events_task ON events (task_id)",
    "CREATE INDEX events_name ON events (name)",
    """CREATE TABLE dying (
        ord INTEGER PRIMARY KEY, run_id TEXT NOT NULL, first_task_id INTEGER NOT NULL,
        total INTEGER NOT NULL)""",
    """CREATE TABLE epochs (
        epoch INTEGER PRIMARY KEY, boot_id TEXT NOT NULL UNIQUE, started_ms INTEGER NOT NULL)""",
    """CREATE TABLE accounts (
        username TEXT PRIMARY KEY, password_hash TEXT NOT NULL, role TEXT NOT NULL,
        version INTEGER NOT NULL, disabled INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE revoked (
        jti TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) WITHOUT ROWID""",
)
STATE_2: Final = ("CREATE INDEX events_time ON events (ts_ms, name)",)
STATE_3: Final = (
    "ALTER TABLE runs ADD COLUMN number INTEGER NOT NULL DEFAULT 0",
    "CREATE UNIQUE INDEX runs_number ON runs (number) WHERE number > 0",
    "ALTER TABLE task_runs ADD COLUMN number INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX task_runs_number ON task_runs (status, number) WHERE number > 0",
    """CREATE TABLE sequences (
        name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID""",
    "ALTER TABLE accounts ADD COLUMN created_ms INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE tokens (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, username TEXT NOT NULL, role TEXT NOT NULL,
        digest TEXT NOT NULL, created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL)
        WITHOUT ROWID""",
    "CREATE INDEX tokens_user ON tokens (username)",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, ts_ms INTEGER NOT NULL,
        actor TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, address TEXT NOT NULL,
        outcome TEXT NOT NULL, detail TEXT NOT NULL)""",
    "CREATE INDEX audit_actor ON audit (actor)",
    "CREATE INDEX audit_action ON audit (action)",
    "CREATE INDEX audit_target ON audit (target)",
    "CREATE INDEX audit_refused ON audit (outcome) WHERE outcome <> 'ok'",
    "CREATE INDEX audit_time ON audit (ts_ms)",
)

LOGS_1: Final = (
    """CREATE TABLE chunks (
        id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, task_id TEXT NOT NULL,
        first_seq INTEGER NOT NULL, count INTEGER NOT NULL, size INTEGER NOT NULL,
        ts_ms INTEGER NOT NULL, meta TEXT NOT NULL, text TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX chunks_lines ON chunks (run_id, task_id, first_seq)",
    "CREATE INDEX chunks_run ON chunks (run_id)",
    """CREATE TABLE heads (
        task_id TEXT NOT NULL, ord INTEGER NOT NULL, run_id TEXT NOT NULL,
        lines INTEGER NOT NULL, bytes INTEGER NOT NULL, last_seq INTEGER NOT NULL,
        last_ms INTEGER NOT NULL, PRIMARY KEY (task_id, ord)) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX heads_run ON heads (run_id, task_id)",
    """CREATE TABLE dying (
        run_id TEXT NOT NULL, task_id TEXT NOT NULL, last_id INTEGER NOT NULL)""",
)
LOGS_2: Final = ("CREATE INDEX heads_age ON heads (last_ms, bytes)",)
LOGS_3: Final = ("CREATE UNIQUE INDEX heads_ord ON heads (ord)",)

STATE: Final = Schema(application_id=0x54486231, migrations=(STATE_1, STATE_2, STATE_3))
LOGS: Final = Schema(application_id=0x5448624C, migrations=(LOGS_1, LOGS_2, LOGS_3))


def migrate(connection: sqlite3.Connection, schema: Schema, path: Path) -> None:
    """Bring a file to the newest version, in one transaction; an empty one is filled.

    Raises `ConfigError` if the file is not of this kind or comes from a newer TaskHub.
    """
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        version = version_of(connection, schema, path)
        if version == len(schema.migrations):
            return
        for migration in schema.migrations[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.application_id}")
        connection.execute(f"PRAGMA user_version = {len(schema.migrations)}")


def version_of(connection: sqlite3.Connection, schema: Schema, path: Path) -> int:
    """Return how many migrations a file has seen; raises what `migrate` does."""
    mark = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    known = len(schema.migrations)
    if mark != schema.application_id and (mark or version or tables):
        raise ConfigError(f"{path} is another program's SQLite file, not TaskHub's")
    if version > known:
        message = f"{path} has schema version {version}, this TaskHub knows up to {known}"
        raise ConfigError(f"{message}: it was written by a newer TaskHub")
    return version


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
