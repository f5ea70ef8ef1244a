"""The import contracts bite: each rule is broken on purpose, and the right contract notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = "Dependencies point inwards: fronts and edges -> services -> engine -> ports -> domain"
ADAPTERS = "Adapters implement ports; they never call services, the engine or the spec compiler"
PLUGINS = "Built-in executors use the public plugin API, exactly like a third-party one"
FACADE = "The plugin API exposes ports, values and errors, never the engine"
STORES = "Stores do not know of each other"
EXECUTORS = "Executors do not know of each other"
TORNADO = "Only web/ and bootstrap speak Tornado"
DRIVERS = "Database drivers stay in their adapter"
PURE = "The domain is pure: no asyncio, no logging, no third party"
CYCLES = "No cycles between siblings, at any depth"

CASES = {
    "the domain imports the engine": (LAYERS, "domain/dag.py", "from taskhub.engine import bus"),
    "a handler imports a store": (LAYERS, "web/new.py", "from taskhub.adapters import sqlite"),
    "a service imports the settings": (LAYERS, "services/runs.py", "import taskhub.config"),
    "web imports background": (LAYERS, "web/new.py", "import taskhub.background"),
    "the engine imports spec": (LAYERS, "engine/bus.py", "import taskhub.spec"),
    "a port imports the engine": (LAYERS, "ports/clock.py", "import taskhub.engine"),
    "the settings import web": (LAYERS, "config/render.py", "import taskhub.web"),
    "a new module has no place": (LAYERS, "utils.py", "X = 1"),
    "an upward import hides in a function": (
        LAYERS,
        "engine/bus.py",
        "def f():\n    from taskhub.services import runs",
    ),
    "an upward import hides behind TYPE_CHECKING": (
        LAYERS,
        "engine/bus.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import taskhub.services",
    ),
    "a store calls a service": (ADAPTERS, "adapters/memory.py", "import taskhub.services"),
    "an executor peeks at the engine": (PLUGINS, "executors/local.py", "import taskhub.engine"),
    "an executor peeks at the ports": (PLUGINS, "executors/local.py", "import taskhub.ports"),
    "the plugin API shows the engine": (FACADE, "plugin_api.py", "import taskhub.engine"),
    "one store imports another": (
        STORES,
        "adapters/sqlite/new.py",
        "from taskhub.adapters import memory",
    ),
    "one executor imports another": (
        EXECUTORS,
        "executors/local.py",
        "from taskhub.executors import shell",
    ),
    "a service speaks Tornado": (TORNADO, "services/runs.py", "from tornado import web"),
    "a service speaks SQL": (DRIVERS, "services/runs.py", "import sqlite3"),
    "the start imports motor": (DRIVERS, "bootstrap/__init__.py", "import motor"),
    "the domain imports asyncio": (PURE, "domain/dag.py", "import asyncio"),
    "the domain logs": (PURE, "domain/run.py", "import logging"),
    "siblings import each other": (
        CYCLES,
        "domain/task.py",
        "def f():\n    from taskhub.domain import run",
    ),
}


def broken_contracts(folder: Path) -> list[str]:
    lint = Path(sys.executable).with_name("lint-imports")
    environ = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    process = subprocess.run(
        [lint, "--no-logo", "--no-cache"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = process.stdout.splitlines()
    assert any(line.startswith("Contracts:") for line in lines), process.stdout
    return [line.removesuffix(" BROKEN") for line in lines if line.endswith(" BROKEN")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "taskhub", folder / "taskhub", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_as_it_is_no_contract_is_broken(copy):
    assert broken_contracts(copy) == []


@pytest.mark.parametrize(("contract", "path", "line"), CASES.values(), ids=CASES)
def test_a_broken_rule_is_noticed(contract, path, line, copy):
    file = copy / "taskhub" / path
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n")
    try:
        assert contract in broken_contracts(copy)
    finally:
        file.unlink() if before is None else file.write_text(before)


def test_every_contract_is_tried():
    names = {
        line.partition("= ")[2]
        for line in (ROOT / ".importlinter").read_text().splitlines()
        if line.startswith("name = ")
    }
    assert names == {contract for contract, _, _ in CASES.values()}
