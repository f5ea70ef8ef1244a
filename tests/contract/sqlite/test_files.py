"""SQLite: the directory, the files in it, and what may go wrong with them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from taskhub.adapters.sqlite import open_sqlite, open_sqlite_accounts
from taskhub.adapters.sqlite.schema import LOGS, STATE, migrate
from taskhub.errors import ConfigError, ConflictError, NotFoundError
from taskhub.ports.accounts import Account, AuditQuery
from taskhub.ports.store import EventQuery
from taskhub.testing.store_samples import (
    T0,
    audit_entry,
    chunk,
    full_batch,
    new_run,
    run_id,
    snapshot,
)

ANN = Account(username="ann", password_hash="h", role="viewer")
CHILD = Path(__file__).with_name("sqlite_child.py")


def write_file(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def old_file(path: Path, schema, version: int) -> None:
    """Make a file as the TaskHub of that schema version left it."""
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, replace(schema, migrations=schema.migrations[:version]), path)
    connection.close()


def indexes(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
    connection.close()
    return {name for (name,) in rows}


async def refusal(directory: Path, **settings) -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_sqlite(directory, **settings):
            pass
    return str(caught.value)


def start_child(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, CHILD, directory], stdout=subprocess.PIPE, text=True)


async def test_everything_is_there_after_it_was_reopened(tmp_path):
    async with open_sqlite(tmp_path) as stores:
        await stores.runs.commit(full_batch(1, unique_key="k"))
        await stores.logs.append([chunk(1, 1, ["a", "b"])])
        account = Account(username="a", password_hash="h", role="r")
        await stores.accounts.add_account(account, audit_entry(1))
        await stores.accounts.revoke("j", T0, audit_entry(2))
        before = await snapshot(stores.runs, 1)
        assert await stores.runs.open_epoch("one", T0) == 1
    async with open_sqlite(tmp_path) as stores:
        assert await snapshot(stores.runs, 1) == before
        assert await stores.runs.run_by_key("k") == run_id(1)
        assert [line.message for line in await stores.logs.read("t", "r", 1, 9)] == ["a", "b"]
        assert (await stores.accounts.account("a")).role == "r"
        assert await stores.accounts.revoked(T0 - 1) == {"j": T0}
        assert await stores.accounts.revision() == 2
        entries = (await stores.audit.entries(AuditQuery(), 9)).items
        assert list(entries) == [audit_entry(2), audit_entry(1)]
        assert await stores.runs.open_epoch("two", T0) == 2


async def test_a_missing_directory_is_made_and_files_are_private(tmp_path):
    directory = tmp_path / "a%20b ?#" / "ä"
    async with open_sqlite(directory) as stores:
        await stores.runs.commit(new_run(1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert set(modes) >= {"taskhub.db", "logs.db", "taskhub.lock", "taskhub.db-wal"}
    assert set(modes.values()) == {0o600}


async def test_every_thread_is_gone_when_it_is_closed(tmp_path):
    before = set(threading.enumerate())
    async with open_sqlite(tmp_path):
        names = {thread.name for thread in set(threading.enumerate()) - before}
        assert {"taskhub-writer-0", "logs-writer-0", "logs-reader-1"} <= names
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(("name", "schema"), [("taskhub.db", STATE), ("logs.db", LOGS)])
async def test_an_older_file_is_upgraded(tmp_path, name, schema):
    old_file(tmp_path / name, schema, 1)
    before = indexes(tmp_path / name)
    async with open_sqlite(tmp_path) as stores:
        await stores.runs.commit(new_run(1))
        await stores.runs.events(EventQuery(start_ts_ms=1), 1)
        await stores.logs.expire(1, 1)
    assert indexes(tmp_path / name) > before
    connection = sqlite3.connect(tmp_path / name)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.migrations),)
    connection.close()


UNDO_2 = ("DROP INDEX events_time",)
UNDO_3 = (
    *("DROP INDEX runs_number", "ALTER TABLE runs DROP COLUMN number"),
    *("DROP INDEX task_runs_number", "ALTER TABLE task_runs DROP COLUMN number"),
    "ALTER TABLE accounts DROP COLUMN created_ms",
    *("DROP TABLE sequences", "DROP TABLE tokens", "DROP TABLE audit"),
)


async def test_what_an_older_file_holds_survives_the_upgrade(tmp_path):
    async with open_sqlite(tmp_path) as stores:
        await stores.runs.commit(full_batch(1))
        await stores.accounts.add_account(ANN, audit_entry(1))
        before = await snapshot(stores.runs, 1)
    write_file(tmp_path / "taskhub.db", *UNDO_3, *UNDO_2, "PRAGMA user_version = 1")
    async with open_sqlite(tmp_path) as stores:
        assert await snapshot(stores.runs, 1) == before
        page = await stores.runs.events(EventQuery(start_ts_ms=T0), 10)
        assert len(page.items) == 2
        assert await stores.accounts.account("ann") == ANN


async def test_an_upgrade_that_fails_leaves_the_old_file(tmp_path):
    old_file(tmp_path / "taskhub.db", STATE, 1)
    before = indexes(tmp_path / "taskhub.db")
    write_file(tmp_path / "taskhub.db", "CREATE TABLE events_time (a)")
    assert "cannot be used" in await refusal(tmp_path)
    assert indexes(tmp_path / "taskhub.db") == before
    write_file(tmp_path / "taskhub.db", "DROP TABLE events_time")
    async with open_sqlite(tmp_path):
        pass


async def test_a_newer_file_is_refused(tmp_path):
    old_file(tmp_path / "taskhub.db", STATE, 2)
    write_file(tmp_path / "taskhub.db", "PRAGMA user_version = 99")
    message = await refusal(tmp_path)
    assert "schema version 99" in message
    assert f"knows up to {len(STATE.migrations)}" in message


async def test_another_programs_file_is_refused_and_left_alone(tmp_path):
    write_file(tmp_path / "taskhub.db", "CREATE TABLE theirs (a)", "PRAGMA user_version = 1")
    before = (tmp_path / "taskhub.db").read_bytes()
    assert "another program's" in await refusal(tmp_path)
    assert (tmp_path / "taskhub.db").read_bytes() == before


async def test_the_two_files_are_not_confused(tmp_path):
    async with open_sqlite(tmp_path):
        pass
    (tmp_path / "logs.db").rename(tmp_path / "taskhub.db")
    assert "another program's" in await refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"not a database " * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
async def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "logs.db").write_bytes(content)
    message = await refusal(tmp_path)
    assert str(tmp_path / "logs.db") in message
    assert "\n" not in message


async def test_an_unusable_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write to" in await refusal(tmp_path / "file" / "data")
    (tmp_path / "taskhub.db").mkdir()
    assert "cannot write to" in await refusal(tmp_path)


async def test_an_unknown_sync_is_refused(tmp_path):
    assert "NEVER" in await refusal(tmp_path, sync="NEVER")


async def test_a_second_server_is_refused_until_the_first_is_gone(tmp_path):
    async with open_sqlite(tmp_path):
        message = await refusal(tmp_path)
        used = f"{tmp_path} is in use by another TaskHub server (pid {os.getpid()})"
        assert message == f"{used}; stop it first"
    async with open_sqlite(tmp_path):
        pass


@pytest.mark.parametrize("rounds", [1, 4, 9])
async def test_a_killed_server_leaves_whole_batches_and_no_lock(tmp_path, rounds):
    process = start_child(tmp_path)
    stored = 0
    while stored < rounds:
        stored = int(process.stdout.readline())
    assert f"(pid {process.pid})" in await refusal(tmp_path)
    process.kill()
    process.communicate()
    async with open_sqlite(tmp_path) as stores:
        number = stored
        assert len(await stores.logs.read("t0", "r", 1, 10_000)) >= stored
        while True:
            try:
                await stores.runs.load(run_id(number))
            except NotFoundError:
                assert await stores.runs.history(run_id(number)) == []
                break
            assert len(await stores.runs.history(run_id(number))) in {400, 401}
            number += 1
        both = [await stores.logs.last_seq(task, "r") for task in ("t0", "t1")]
        assert both[0] == both[1] >= stored


async def test_accounts_are_changed_beside_a_running_server(tmp_path):
    async with open_sqlite(tmp_path) as server:
        before = await server.accounts.revision()
        async with open_sqlite_accounts(tmp_path) as beside:
            await beside.accounts.add_account(ANN, audit_entry(1))
            assert await server.accounts.account("ann") == ANN
            assert await server.accounts.revision() > before
            await server.accounts.remove_account("ann", audit_entry(2))
            assert list(await beside.accounts.accounts()) == []
            assert len((await beside.audit.entries(AuditQuery(), 9)).items) == 2
        assert list(await server.accounts.accounts()) == []


async def test_two_that_add_the_same_account_at_once_are_told_apart(tmp_path):
    async with open_sqlite(tmp_path) as one, open_sqlite_accounts(tmp_path) as other:
        results = await asyncio.gather(
            *(s.accounts.add_account(ANN, audit_entry(i)) for i, s in enumerate((one, other))),
            return_exceptions=True,
        )
        assert sorted(map(type, results), key=str) == [type(None), ConflictError]
        assert len((await one.audit.entries(AuditQuery(), 9)).items) == 1


async def beside(directory: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_sqlite_accounts(directory):
            pass
    return str(caught.value)


async def test_accounts_alone_need_a_file_of_ours(tmp_path):
    assert "never started" in await beside(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    write_file(tmp_path / "taskhub.db", "CREATE TABLE theirs (a)")
    assert "another program's" in await beside(tmp_path)
    (tmp_path / "taskhub.db").write_bytes(b"not a database " * 100)
    assert "cannot be used" in await beside(tmp_path)


async def test_accounts_alone_upgrade_a_file_that_nobody_uses(tmp_path):
    old_file(tmp_path / "taskhub.db", STATE, 2)
    async with open_sqlite_accounts(tmp_path) as stores:
        await stores.accounts.add_account(ANN, audit_entry(1))
    async with open_sqlite(tmp_path) as server:
        assert await server.accounts.account("ann") == ANN


async def test_accounts_alone_do_not_upgrade_a_file_under_a_running_server(tmp_path):
    async with open_sqlite(tmp_path):
        write_file(tmp_path / "taskhub.db", "PRAGMA user_version = 2")
        assert "in use by another TaskHub server" in await beside(tmp_path)
        write_file(tmp_path / "taskhub.db", "PRAGMA user_version = 99")
        assert "newer TaskHub" in await beside(tmp_path)
