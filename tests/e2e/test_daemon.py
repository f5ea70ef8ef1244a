"""The server as a process: what it prints, how it stops, why it refuses to start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskhub import __version__

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "bin/taskhub-server"
ENVIRON = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def start(tmp_path):
    """start(*flags) starts a server and yields it with its URL; it is killed at the end."""

    @contextmanager
    def start(*flags, command=(LAUNCHER,), environ=ENVIRON):
        process = subprocess.Popen(
            [*command, "--port", "0", "--data-dir", tmp_path / "data", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environ,
        )
        with process:
            try:
                line = process.stdout.readline()
                yield process, line
            finally:
                process.kill()

    return start


def url_of(line: str) -> str:
    found = re.fullmatch(rf"TaskHub {__version__} listening on (http://[0-9.]+:\d+)\n", line)
    assert found, line
    return found[1]


def refused(*flags, cwd):
    process = subprocess.run(
        [LAUNCHER, *flags],
        cwd=cwd,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert process.returncode == 2, process.stderr
    assert process.stdout == ""
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def call(url, path, body=None, token=""):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def login(url, password="123456"):
    return call(url, "/api/login", {"username": "admin", "password": password})["data"]["token"]


def stopped(process, number=signal.SIGTERM):
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    return process.returncode, stderr


@pytest.mark.parametrize(
    "command",
    [
        (LAUNCHER,),
        (sys.executable, "-m", "taskhub"),
        (Path(sys.executable).parent / "taskhub-server",),
    ],
    ids=["launcher", "module", "script"],
)
def test_it_prints_its_url_once_it_accepts_connections(start, command):
    with start("--dev", command=command) as (process, line):
        assert call(url_of(line), "/api/health")["data"]["status"] == "healthy"
        code, _ = stopped(process)
    assert code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_stops_it_in_order_and_what_it_knew_is_kept(start, number):
    with start("--dev") as (process, line):
        url = url_of(line)
        dag = {"name": "kept", "tasks": [{"id": "a", "exec_type": "Shell", "exec_command": "true"}]}
        assert call(url, "/api/dag/run", dag, login(url))["ok"]
        code, stderr = stopped(process, number)
    assert code == 0
    assert "Traceback" not in stderr
    with start("--dev") as (_, line):
        url = url_of(line)
        (run,) = call(url, "/api/dag/runs", token=login(url))["data"]["items"]
    assert (run["name"], run["status_name"]) == ("kept", "success")


def test_the_first_start_shows_a_password_that_works(start, tmp_path):
    with start() as (process, _):
        file = tmp_path / "data/admin-password"
        password = file.read_text().strip()
        _, stderr = stopped(process)
    assert file.stat().st_mode & 0o777 == 0o600
    assert password in stderr
    with start() as (process, line):
        assert login(url_of(line), password)
        _, stderr = stopped(process)
    assert password not in stderr


def test_a_second_signal_leaves_at_once(start, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    task = {"id": "a", "exec_type": "Shell", "exec_command": "echo here > fifo; exec sleep 600"}
    with start("--dev") as (process, line):
        url = url_of(line)
        call(url, "/api/dag/run_async", {"tasks": [task]}, login(url))
        assert (tmp_path / "fifo").read_text() == "here\n"
        process.send_signal(signal.SIGTERM)
        while "stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_a_taken_port_is_one_line(start, tmp_path):
    with start("--dev") as (_, line):
        port = url_of(line).rpartition(":")[2]
        reason = refused("--port", port, "--data-dir", "other", cwd=tmp_path)
    assert reason == (
        f"taskhub-server: port {port} on 127.0.0.1 is taken; choose another with --port"
    )


def test_one_data_directory_serves_one_server(start, tmp_path):
    with start("--dev") as (_, line):
        url_of(line)
        reason = refused("--port", "0", "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert str(tmp_path / "data") in reason


def test_a_data_directory_that_is_none_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    reason = refused("--port", "0", "--data-dir", "file/data", cwd=tmp_path)
    assert reason.startswith("taskhub-server: ")
    assert str(tmp_path / "file") in reason


def test_bad_settings_are_one_line(tmp_path):
    (tmp_path / "bad.toml").write_text("[server]\nprot = 1")
    reason = refused("--config", "bad.toml", cwd=tmp_path)
    assert reason == (
        "taskhub-server: bad.toml: unknown setting server.prot; did you mean server.port?"
    )


def test_the_log_of_a_machine_is_json(start):
    with start("--dev") as (process, line):
        call(url_of(line), "/api/health")
        _, stderr = stopped(process)
    lines = [json.loads(line) for line in stderr.splitlines()]
    assert {"ts", "level", "logger", "message"} <= set.intersection(*map(set, lines))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[executors.Shel]\ncwd = '/'", "no such executor"),
        ("[executors.Shell]\nkill_grace = 1", "did you mean 'kill_grace_ms'"),
        ("[executors.Shell]\nkill_grace_ms = 'x'", "kill_grace_ms must be an integer"),
        ("[executors.Shell]\ncwd = '/nowhere'", "is not a folder"),
    ],
)
def test_a_wrong_executor_setting_stops_the_start(tmp_path, table, words):
    (tmp_path / "taskhub.toml").write_text(table)
    flags = ("--config", "taskhub.toml", "--port", "0", "--data-dir", "data")
    assert words in refused(*flags, cwd=tmp_path)
