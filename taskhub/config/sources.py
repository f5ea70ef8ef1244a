"""Where values come from, in rising weight: defaults, a TOML file, TASKHUB_* variables, flags."""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from taskhub.config.catalogue import SECTIONS, SETTINGS
from taskhub.config.sections import Config
from taskhub.domain.redaction import without_password
from taskhub.errors import ConfigError

FLAGS: Final = {
    "--host": "server.host",
    "--port": "server.port",
    "--data-dir": "server.data_dir",
    "--store": "store.url",
}
SHORT: Final = {
    "TASKHUB_HOST": "server.host",
    "TASKHUB_PORT": "server.port",
    "TASKHUB_DATA_DIR": "server.data_dir",
    "TASKHUB_STORE": "store.url",
}
VARIABLES: Final = {setting.variable: name for name, setting in SETTINGS.items()} | SHORT
MONGO: Final = frozenset({"mongodb", "mongodb+srv"})
GIVEN_TO_TASKS: Final = ("RUN_ID", "TASK_ID", "ATTEMPT", "ATTEMPT_KEY")
NOT_SETTINGS: Final = frozenset(
    # the settings file itself, and what a server that a task starts finds in its environment
    f"TASKHUB_{name}"
    for name in ("CONFIG", *GIVEN_TO_TASKS)
)


class Given(NamedTuple):
    """One value as somebody wrote it, and where."""

    name: str
    raw: object
    origin: str
    is_text: bool


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    *,
    dev: bool = False,
) -> Config:
    """Merge all sources; `flags` maps names of `FLAGS` to text.

    Raises `ConfigError` with one line for each thing that is wrong.
    """
    problems: list[str] = []
    document = {} if path is None else _read(path)
    given = [
        *_from_file(document, str(path), problems),
        *_from_environ(environ or {}, problems),
        *(Given(FLAGS[flag], text, flag, is_text=True) for flag, text in (flags or {}).items()),
    ]
    changes = _parsed(given, problems)
    config = Config(
        **{section: make(**changes[section]) for section, make in SECTIONS.items()},
        executors=_executors(document.get("executors", {}), str(path), problems),
        dev=dev,
    )
    problems += _conflicts(config)
    if problems:
        raise ConfigError("\n".join(problems))
    server = replace(config.server, data_dir=config.server.data_dir.resolve())
    return replace(config, server=server)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # bad TOML, or not UTF-8
        raise ConfigError(f"{path}: {error}") from error


def _from_file(document: Mapping[str, Any], path: str, problems: list[str]) -> Iterator[Given]:
    for section, table in document.items():
        if section == "executors":
            continue
        if section not in SECTIONS:
            known = [*SECTIONS, "executors"]
            problems.append(f"{path}: unknown section [{section}]{_hint(section, known)}")
        elif not isinstance(table, dict):
            problems.append(f"{path}: {section} must be a section, [{section}]")
        else:
            yield from _from_section(section, table, path, problems)


def _from_section(
    section: str, table: Mapping[str, Any], path: str, problems: list[str]
) -> Iterator[Given]:
    for key, raw in table.items():
        name = f"{section}.{key}"
        if name in SETTINGS:
            yield Given(name, raw, path, is_text=False)
        else:
            problems.append(f"{path}: unknown setting {name}{_hint(name, SETTINGS)}")


def _from_environ(environ: Mapping[str, str], problems: list[str]) -> Iterator[Given]:
    """Yield what variables say; an empty one says nothing, as container tools expect."""
    seen: dict[str, str] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith("TASKHUB_") or variable in NOT_SETTINGS or not text:
            continue
        if variable not in VARIABLES:
            problems.append(f"{variable}: unknown variable{_hint(variable, VARIABLES)}")
            continue
        name = VARIABLES[variable]
        if name in seen:
            problems.append(f"{variable}: {name} is set by {seen[name]} already")
        seen[name] = variable
        yield Given(name, text, variable, is_text=True)


def _parsed(given: Iterable[Given], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Return the values by section and name; the last one given counts."""
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for one in given:
        section, name = one.name.split(".")
        try:
            values[section][name] = SETTINGS[one.name].parse(one.raw, is_text=one.is_text)
        except ValueError as error:
            shown = without_password(repr(one.raw))[:60]
            problems.append(f"{one.origin}: {one.name} must be {error}, not {shown}")
    return values


def _executors(raw: object, path: str, problems: list[str]) -> dict[str, dict[str, Any]]:
    if not isinstance(raw, dict):
        problems.append(f"{path}: executors must be sections, [executors.NAME]")
        return {}
    tables: dict[str, dict[str, Any]] = {}
    for name, table in raw.items():
        if not isinstance(table, dict):
            problems.append(f"{path}: executors.{name} must be a section, [executors.{name}]")
        elif name.lower() in tables:
            problems.append(f"{path}: executors.{name} is there twice")
        else:
            tables[name.lower()] = table
    return tables


def _conflicts(config: Config) -> Iterator[str]:
    """Yield what is wrong with values that are fine by themselves."""
    server, scheme = config.server, config.store.url.partition(":")[0]
    if config.dev and not is_loopback(server.host):
        yield f"--dev has a known password, so it listens on loopback only, not {server.host!r}"
    if config.auth.mode == "seed" and not is_loopback(server.host):
        yield f"auth.mode is seed, so it listens on loopback only, not {server.host!r}"
    if server.port and server.port == server.ws_port:
        yield f"server.port and server.ws_port are both {server.port}"
    if scheme not in MONGO and config.store.url not in {"sqlite:", "memory:"}:
        yield 'store.url must be "sqlite:", "mongodb://host/database" or "memory:"'


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""
