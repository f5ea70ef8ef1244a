"""bin/demo and its example, as a newcomer sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "bin/demo"


@pytest.fixture
def environ(tmp_path):
    return {**os.environ, "TMPDIR": str(tmp_path)}


def test_the_demo_shows_a_whole_run_and_its_report(tmp_path, environ):
    process = subprocess.run(
        [DEMO, "--once", "--data-dir", tmp_path / "data"],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    shown = process.stdout
    assert process.returncode == 0, shown + process.stderr
    assert "\033[" not in shown
    tasks = json.loads((ROOT / "etc/examples/checkout-report.json").read_text())["tasks"]
    for task in tasks:
        assert re.search(rf"s  {task['id']} +> started\n", shown), task["id"]
        assert re.search(rf"s  {task['id']} += success after \d+ ms\n", shown), task["id"]
    assert re.search(r"words +~ exit code 75; another attempt in \d\.\d s\n", shown)
    assert re.search(r"words +> started, attempt 2\n", shown)
    assert re.search(r"verify +\| the sums agree\n", shown)
    assert re.search(r"Run \d+_\w{6}: success in \d+\.\d s\n", shown)
    (report,) = tmp_path.glob("taskhub-report-*/report.md")
    assert f"Its report is {report}" in shown
    assert "# Checkout report" in shown


def test_ctrl_c_stops_the_demo_and_its_server(tmp_path, environ):
    process = subprocess.Popen(
        [DEMO, "--data-dir", tmp_path / "data"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            shown = ""
            while "Ctrl-C stops the server" not in shown:
                line = process.stdout.readline()
                assert line, shown
                shown += line
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    log = (tmp_path / "data/server.log").read_text()
    assert '"signal": "SIGTERM"' in log
    assert "Traceback" not in log


def test_help_needs_no_server():
    process = subprocess.run([DEMO, "--help"], capture_output=True, text=True, check=True)
    assert "--once" in process.stdout
