"""The commands about users and tokens, on a data directory that a server has made."""

from __future__ import annotations

import asyncio
import getpass
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskhub.adapters.lock import locked
from taskhub.adapters.sqlite import open_sqlite, open_sqlite_accounts
from taskhub.cli import main
from taskhub.ports.accounts import AuditQuery
from taskhub.testing.account_store_contract import account

ROOT = Path(__file__).parents[2]
PASSWORD = "a good one"


class Typed(io.StringIO):
    """Standard input that says whether it is a terminal."""

    def __init__(self, text="", *, is_terminal=False):
        super().__init__(text)
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


class Shell:
    """Runs commands on one data directory."""

    def __init__(self, directory, capsys, monkeypatch):
        self.directory = directory
        self.capsys = capsys
        self.monkeypatch = monkeypatch

    def __call__(self, *words, typed=""):
        """Run a command; return its exit code, and the lines of stdout and of stderr."""
        if isinstance(typed, str):
            typed = Typed(typed)
        self.monkeypatch.setattr(sys, "stdin", typed)
        code = main([*words, "--data-dir", str(self.directory)], {})
        output = self.capsys.readouterr()
        return code, output.out.splitlines(), output.err.splitlines()

    def rows(self, *words):
        """Return the rows of a list, split at two spaces or more, without the headings."""
        code, out, err = self(*words)
        assert (code, err) == (0, [])
        return [[cell.strip() for cell in line.split("  ") if cell] for line in out[1:]]


@pytest.fixture
def directory(tmp_path):
    async def first_start():
        async with open_sqlite(tmp_path, sync="OFF") as stores:
            await stores.accounts.restore([account("admin", role="admin")], [], {})

    asyncio.run(first_start())
    return tmp_path


@pytest.fixture
def shell(directory, capsys, monkeypatch):
    return Shell(directory, capsys, monkeypatch)


def looked_up(directory, look):
    """Return what `look` finds in the stores."""

    async def run():
        async with open_sqlite_accounts(directory) as stores:
            return await look(stores)

    return asyncio.run(run())


def stored(directory, name):
    return looked_up(directory, lambda stores: stores.accounts.account(name))


def test_users_are_made_listed_and_removed(shell):
    assert shell("user", "add", "ann", "--role", "operator", typed=f"{PASSWORD}\n") == (
        0,
        ["added ann, operator"],
        [],
    )
    assert shell("user", "add", "bob", typed=PASSWORD)[1] == ["added bob, viewer"]
    rows = shell.rows("user", "list")
    assert [row[:3] for row in rows] == [
        ["admin", "admin", "enabled"],
        ["ann", "operator", "enabled"],
        ["bob", "viewer", "enabled"],
    ]
    assert shell("user", "remove", "ann") == (0, ["removed ann"], [])
    assert len(shell.rows("user", "list")) == 2


def test_lists_are_columns_under_their_headings(shell):
    shell("user", "add", "a-rather-long-name", typed=PASSWORD)
    _, out, _ = shell("user", "list")
    assert out[0].startswith("NAME                ROLE    STATE    CREATED (UTC)")
    assert out[1].startswith("a-rather-long-name  viewer  enabled  20")
    assert out[2].startswith("admin               admin   enabled  2027-01-15 08:00")


def test_users_are_changed(shell):
    shell("user", "add", "ann", typed=PASSWORD)
    for words, said, state in (
        (("role", "ann", "runner"), "ann is now runner", ["ann", "runner", "enabled"]),
        (("disable", "ann"), "ann is disabled", ["ann", "runner", "disabled"]),
        (("enable", "ann"), "ann is enabled", ["ann", "runner", "enabled"]),
    ):
        assert shell("user", *words) == (0, [said], [])
        assert shell.rows("user", "list")[1][:3] == state


def test_a_password_is_set_and_only_its_hash_is_kept(directory, shell):
    before = stored(directory, "admin")
    assert shell("user", "passwd", "admin", typed=f"{PASSWORD}\r\n")[1] == [
        "admin has a new password"
    ]
    after = stored(directory, "admin")
    assert after.password_hash != before.password_hash
    assert PASSWORD not in after.password_hash
    assert after.version == before.version + 1


@pytest.mark.parametrize(
    ("words", "typed", "said"),
    [
        (("user", "add", "ann"), "short", ["password: must have 8 to 1024 characters"]),
        (("user", "add", "ann"), "x" * 9999, ["password: must have 8 to 1024 characters"]),
        (("user", "add", "ann"), "", ["no password was given"]),
        (("user", "add", "ann"), "\udcff" * 9, ["the password is not UTF-8"]),
        (("user", "add", "admin"), PASSWORD, ["there is an account 'admin'"]),
        (("user", "passwd", "bob"), PASSWORD, ["account not found: bob"]),
        (("user", "role", "bob", "admin"), "", ["account not found: bob"]),
        (("user", "remove", "bob"), "", ["account not found: bob"]),
        (("token", "add", "bob", "--name", "x"), "", ["account not found: bob"]),
        (("token", "add", "admin", "--name", "x", "--days", "0"), "", ["days: must be 1 to 3650"]),
        (("token", "list", "bob"), "", ["account not found: bob"]),
        (("token", "revoke", "bob"), "", ["token not found: bob"]),
        *(
            (("user", *words), "", ["admin is the only administrator who can log in"])
            for words in (("disable", "admin"), ("remove", "admin"), ("role", "admin", "viewer"))
        ),
    ],
)
def test_what_cannot_be_done_is_a_line_and_exit_code_1(shell, words, typed, said):
    assert shell(*words, typed=typed) == (1, [], [f"taskhub-server: {line}" for line in said])


def test_all_that_is_wrong_is_said_at_once(shell):
    _, _, err = shell("user", "add", "a b", typed="x")
    assert [line.split(": ")[1] for line in err] == ["username", "password"]


def test_a_terminal_is_asked_twice_and_the_password_not_shown(shell, monkeypatch):
    answers = [PASSWORD, PASSWORD]
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: answers.pop(0))
    assert shell("user", "add", "ann", typed=Typed(is_terminal=True))[0] == 0
    assert answers == []


def test_two_different_answers_are_refused(shell, monkeypatch):
    answers = [PASSWORD, "another one"]
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: answers.pop(0))
    code, _, err = shell("user", "add", "ann", typed=Typed(is_terminal=True))
    assert (code, err) == (1, ["taskhub-server: these were two different passwords"])


def test_a_token_alone_is_on_stdout(shell):
    code, out, err = shell("token", "add", "admin", "--name", "ci", "--days", "7")
    assert code == 0
    assert len(out) == len(err) == 1
    assert out[0].startswith("th_")
    token_id = out[0].split("_")[1]
    assert token_id in err[0]
    assert out[0] not in err[0]
    (row,) = shell.rows("token", "list")
    assert row[:4] == [token_id, "admin", "ci", "admin"]
    assert row == shell.rows("token", "list", "admin")[0]
    assert shell("token", "revoke", token_id) == (0, [f"revoked {token_id}"], [])
    assert shell.rows("token", "list") == []


def test_a_token_without_days_never_expires(shell):
    shell("token", "add", "admin", "--name", "for ever", "--role", "viewer")
    (row,) = shell.rows("token", "list")
    assert (row[2], row[3], row[5]) == ("for ever", "viewer", "never")


@pytest.fixture
def start(directory):
    """start(*words) runs a command as a process of its own."""

    def start(*words, **options):
        return subprocess.run(
            [sys.executable, "-m", "taskhub", *words, "--data-dir", directory],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return start


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_has_to_read_a_list_to_its_end(start, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = start(
            "user", "list", stdout=writer, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_list_is_shown_where_there_are_no_signs_for_all_of_it(shell, start):
    shell("token", "add", "admin", "--name", "caf\u00e9")
    done = start(
        "token", "list", stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\xe9" in done.stdout


def test_with_print_config_a_command_shows_its_settings_and_does_nothing(directory, shell, capsys):
    words = ["--print-config", "--data-dir", str(directory), "user", "remove", "admin"]
    assert main(words, {}) == 0
    assert f'data_dir = "{directory}"' in capsys.readouterr().out
    assert len(shell.rows("user", "list")) == 1


def test_the_audit_names_the_user_of_the_machine(directory, shell):
    shell("user", "add", "ann", typed=PASSWORD)
    page = looked_up(directory, lambda stores: stores.audit.entries(AuditQuery(), 9))
    (entry,) = page.items
    assert entry.actor.startswith("cli:")
    assert (entry.action, entry.target, entry.address) == ("user.add", "ann", "local")


def test_where_there_is_no_server_nothing_is_made(tmp_path, capsys):
    there = tmp_path / "typo"
    assert main(["user", "list", "--data-dir", str(there)], {}) == 2
    assert "never started" in capsys.readouterr().err
    assert not there.exists()


def test_the_accounts_of_another_store_are_not_taken_for_the_servers(directory, shell):
    with locked(directory, "mongodb://db/taskhub"):
        code, _, (said,) = shell("user", "list")
    assert code == 2
    assert "keeps its accounts in mongodb://db/taskhub; say so with --store" in said
    with locked(directory):
        assert shell("user", "list")[0] == 0
    assert shell("user", "list")[0] == 0


def test_a_store_in_memory_has_no_accounts_outside(capsys):
    assert main(["--store", "memory:", "token", "list"], {}) == 2
    assert "memory:" in capsys.readouterr().err


def test_flags_may_stand_before_and_after_the_command(directory, tmp_path, capsys):
    file = tmp_path / "taskhub.toml"
    file.write_text(f'[server]\ndata_dir = "{directory}"')
    for words in (
        ["--config", str(file), "user", "list"],
        ["user", "list", "--config", str(file)],
        ["--data-dir", str(directory), "user", "list", "--store", "sqlite:"],
    ):
        assert main(words, {}) == 0
        assert "admin" in capsys.readouterr().out
    assert main(["user", "list"], {"TASKHUB_DATA_DIR": str(directory)}) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["user"],
        ["token"],
        ["users"],
        ["user", "add"],
        ["user", "role", "ann", "king"],
        ["user", "add", "ann", "--rol", "admin"],
        ["token", "add", "ann"],
        ["token", "add", "ann", "--name", "x", "--days", "soon"],
        ["user", "remove", "\udcff"],
    ],
)
def test_a_command_line_that_is_wrong_is_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words, {})
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err.splitlines()[-1]
