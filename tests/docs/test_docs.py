"""The pages say what the code does: nothing may be added or renamed without them."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from taskhub import __version__
from taskhub.config.catalogue import SECTIONS, SETTINGS
from taskhub.config.render import default_text
from taskhub.domain.event import EventName
from taskhub.domain.run import RunStatus
from taskhub.domain.task import Priority, Status, TaskSpec
from taskhub.errors import TaskHubError
from taskhub.web.app import Services, routes
from taskhub.web.problems import ANSWERS

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
API = (ROOT / "docs/api.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
SETTINGS_PAGE = (ROOT / "docs/settings.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
README = (ROOT / "README.md").read_text()
NOT_OURS = {"var", "taskhub-data", "build", "dist", "node_modules", "__pycache__"}
HOSTS = {"127.0.0.1", "localhost", "www.apache.org", "json-schema.org"}


def documented_path(path):
    names = {"/api/tasks/": "{id}", "/api/tokens/": "{id}", "/api/users/": "{name}"}
    name = next((name for start, name in names.items() if path.startswith(start)), "{run_id}")
    return re.sub(r"[(].*?[)]", name, path)


def routes_in_code():
    services = Services(**dict.fromkeys(Services.__dataclass_fields__))
    return {
        f"{method} {documented_path(route.path)}"
        for route in routes(services)
        if route.path != "/ws"
        for method in route.permissions
    }


def our_files():
    for folder, folders, names in os.walk(ROOT):
        hidden = {name for name in folders if name.startswith(".")} - {".ci"}
        generated = {name for name in folders if name.endswith(".egg-info")}
        folders[:] = set(folders) - hidden - generated - NOT_OURS
        yield from (Path(folder, name) for name in names)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_its_row(name):
    row = f"| `{name}` | `{default_text(name)}` | {SETTINGS[name].help} |"
    assert row in SETTINGS_PAGE.splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_setting_that_is_not_there(page):
    named = re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)`", page.read_text())
    assert set(named) <= set(SETTINGS)


def test_the_toml_in_the_pages_is_toml():
    for page in PAGES:
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
            assert tomllib.loads(block)


def test_the_routes_of_the_table_are_those_of_the_page():
    documented = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", API, re.MULTILINE)
    assert sorted(documented) == sorted(routes_in_code())


def test_every_route_says_which_role_it_takes():
    services = Services(**dict.fromkeys(Services.__dataclass_fields__))
    for route in routes(services):
        path = documented_path(route.path)
        for method, permission in route.permissions.items():
            role = getattr(permission, "word", "public")
            assert path == "/ws" or f"| `{method} {path}` | {role} |" in API


def test_what_seed_mode_opens_is_listed():
    chapter = OPERATIONS.partition("### Without tokens")[2].partition("**Whoever")[0]
    services = Services(**dict.fromkeys(Services.__dataclass_fields__))
    opened = {route.path for route in routes(services) if route.in_seed}
    assert set(re.findall(r"`(/api/[a-z_/]+)`", chapter)) == opened


@pytest.mark.parametrize("name", EventName)
def test_every_event_is_documented(name):
    assert f"`{name}`" in API


@pytest.mark.parametrize("error", [TaskHubError, *TaskHubError.__subclasses__()])
def test_every_error_code_is_documented(error):
    assert f"`{error.code}`" in API


def test_every_status_of_an_error_is_documented():
    for answer in ANSWERS.values():
        assert re.search(rf"^\| [\d, ]*{answer.status}[\d, ]* \|", API, re.MULTILINE)


@pytest.mark.parametrize("field", TaskSpec.__slots__)
def test_every_field_of_a_task_is_documented(field):
    assert f"`{field}`" in API


def test_every_field_of_an_answer_is_documented():
    trees = [ast.parse(page.read_text()) for page in (ROOT / "taskhub/web").glob("*views.py")]
    keys = {
        key.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert [key for key in sorted(keys) if not re.search(rf'[`"]{key}[`"]', API)] == []


def test_every_number_is_documented_with_its_word():
    for status in Status:
        assert f"{status.value} {status.word}" in API
    for run_status in RunStatus:
        assert f"{run_status.value} {run_status.word}" in API
    for priority in Priority:
        assert f"`{priority.name.capitalize()}`" in API


@pytest.mark.parametrize("group", ["taskhub.executors", "taskhub.local_functions"])
def test_every_installed_executor_and_function_is_documented(group):
    assert f"`{group}`" in API
    for point in entry_points(group=group):
        if point.dist.name == "taskhub":
            assert f"`{point.name}`" in API


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_layer_is_in_the_picture():
    layers = (ROOT / ".importlinter").read_text().partition("layers =\n")[2].partition("broken")[0]
    for name in re.findall(r"\w+", layers):
        assert re.search(rf"^[a-z_, ]*\b{name}\b", ARCHITECTURE, re.MULTILINE), name


def test_the_files_that_are_named_exist():
    for name in re.findall(r"`([\w./]+/[\w.]*)`", ARCHITECTURE):
        if not name.startswith("/"):
            assert (ROOT / name).exists() or (ROOT / "taskhub" / name).exists(), name


@pytest.mark.parametrize("command", ["bin/demo", "bin/test", "bin/setup", "bin/taskhub-server"])
def test_commands_can_be_run(command):
    assert os.access(ROOT / command, os.X_OK)


def test_the_readme_names_the_commands_and_the_changelog_the_version():
    assert {"bin/demo", "bin/test"} <= set(re.findall(r"^(bin/\w+)", README, re.MULTILINE))
    assert f"TaskHub {__version__} listening on" in README
    assert __version__ in (ROOT / "CHANGELOG.md").read_text()


def test_ci_runs_the_command_of_the_readme():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec bin/test"


def test_the_project_speaks_of_no_machine_and_no_host():
    """A path or host of whoever wrote a file means nothing to whoever reads it."""
    paths = [str(path) for path in (ROOT, Path.home()) if len(path.parts) > 1]
    for file in our_files():
        text = file.read_text(errors="replace")
        assert not any(f"{path}/" in text for path in paths), file
        hosts = re.findall(r"https?://([a-z0-9.-]+)", text)
        assert all(host in HOSTS or "example" in host for host in hosts), (file, hosts)
