"""The README's commands work as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def url(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "taskhub", "--dev", "--port", "0", "--data-dir", tmp_path / "data"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    )
    with process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_example_runs_a_dag_and_reads_its_result_and_log(url):
    (example,) = (block for block in BLOCKS if "curl" in block)
    script = re.sub(r"(?m)^URL=.*$", f"URL={url}", example)
    process = subprocess.run(
        ["/bin/sh", "-euc", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert '"ok":true' in process.stdout
    assert r'"stdout":"42\n"' in process.stdout
    assert '"message":"42"' in process.stdout


def test_the_server_is_installed_under_the_name_the_readme_uses():
    (block,) = (block for block in BLOCKS if "taskhub-server" in block)
    name = block.splitlines()[-1].split()[0]
    assert Path(sys.executable).with_name(name).exists()
