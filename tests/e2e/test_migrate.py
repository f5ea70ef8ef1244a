"""A server's history moves to another store, and a server on the copy knows all of it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

from taskhub.testing.mongod import Mongod
from tests.e2e.test_daemon import ENVIRON, ROOT, call, login, stopped, url_of

PROGRAM = (sys.executable, "-m", "taskhub")
DAG = {
    "name": "moved \u2028 🦊",
    "tasks": [
        {"id": "a", "exec_type": "Shell", "exec_command": "seq 3000; echo no >&2; printf 'ä\\0b'"},
        {"id": "b", "exec_type": "Shell", "exec_command": "exit 3", "deps": ["a"]},
        {"id": "c", "exec_type": "Local", "exec_command": "noop", "deps": ["b"]},
    ],
}


@contextmanager
def served(data_dir, *flags):
    """Run a server; yields its process and its URL."""
    process = subprocess.Popen(
        [*PROGRAM, "--port", "0", "--data-dir", data_dir, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=ENVIRON,
    )
    with process:
        try:
            yield process, url_of(process.stdout.readline())
        finally:
            process.kill()


def migrated(source, target):
    stores = ("--from", "sqlite:", "--to", target if "://" in str(target) else f"sqlite:{target}")
    return subprocess.run(
        [*PROGRAM, "migrate", "--data-dir", source, *stores],
        cwd=ROOT,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def known(url, token):
    """Return all that a server answers of its history."""
    paths = ("dag/runs", "dag/task_runs", "dag/events", "tasks/logs?task_id=a&limit=2000")
    return {path: call(url, f"/api/{path}", token=token)["data"] for path in paths}


def test_a_server_on_the_copy_answers_as_the_one_before(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with served(source) as (process, url):
        password = (source / "admin-password").read_text().strip()
        for _ in range(3):
            assert call(url, "/api/dag/run", DAG, login(url, password))["run_id"]
        before = known(url, login(url, password))
        busy = migrated(source, target)
        assert stopped(process)[0] == 0
    assert busy.returncode == 2
    assert busy.stderr.splitlines()[-1].endswith("; stop it first")

    done = migrated(source, target)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["runs"][:2] == ["3", "3"]
    assert rows["lines"][:2] == ["9,006", "9,006"]
    assert done.stdout.endswith(
        "\nThe target holds the same as the source.\nNothing was changed at the source.\n"
    )

    with served(target) as (process, url):
        assert not (target / "admin-password").exists()
        assert known(url, login(url, password)) == before
        assert call(url, "/api/dag/run", DAG, login(url, password))["run_id"]
        assert stopped(process)[0] == 0
    refused = migrated(source, target)
    assert refused.returncode == 2
    assert "the target holds what the source does not: run " in refused.stderr


def test_a_history_moves_to_mongodb_and_a_simple_task_goes_on_counting(tmp_path):
    source = tmp_path / "source"
    with Mongod() as mongod:
        target = mongod.database_url("moved")
        with served(source) as (process, url):
            password = (source / "admin-password").read_text().strip()
            token = login(url, password)
            call(url, "/api/dag/run", DAG, token)
            task = {"name": "simple", "params": {"cmd": "echo hi"}}
            assert call(url, "/api/tasks", task, token)["data"]["id"] == 1
            stopped(process)
        with served(source) as (process, url):
            before = known(url, login(url, password))
            stopped(process)
        done = migrated(source, target)
        assert (done.returncode, done.stderr) == (0, "")
        with served(tmp_path / "other", "--store", target) as (process, url):
            token = login(url, password)
            assert known(url, token) == before
            assert call(url, "/api/tasks", task, token)["data"]["id"] == 2
            busy = migrated(source, target)
            assert busy.returncode == 2
            assert f"is in use by {url}; stop it first" in busy.stderr
            assert stopped(process)[0] == 0
