"""Settings as TOML: a sample of all of them, or those in force."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from taskhub.config.catalogue import SECTIONS, SETTINGS, UNITS
from taskhub.config.sections import Config
from taskhub.domain.redaction import without_password
from taskhub.domain.secrets import Secrets
from taskhub.logconfig import is_secret

SAMPLE_HEAD: Final = """\
# Every setting of TaskHub, at its default. Uncomment what you change, and start with
#     taskhub-server --config taskhub.toml
# A variable beats this file, a flag beats both: port of [server] is TASKHUB_SERVER_PORT, or
# TASKHUB_PORT, or --port. Sizes are bytes, or texts such as "10 MiB"."""
SAMPLE_TAIL: Final = """
# What an executor takes is up to it; docs/settings.md lists those that come with TaskHub.
# [executors.Shell]
# cwd = "/srv/jobs"
"""
BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def sample() -> str:
    """Return etc/taskhub.toml: every setting, commented out."""
    lines = [SAMPLE_HEAD]
    for section, make in SECTIONS.items():
        lines += ["", f"# {make.__doc__}", f"[{section}]"]
        for name, setting in SETTINGS.items():
            if name.startswith(f"{section}."):
                key = name.partition(".")[2]
                lines += [f"# {setting.help}", f"# {key} = {default_text(name)}"]
    return "\n".join([*lines, SAMPLE_TAIL])


def default_text(name: str) -> str:
    """Return a setting's default as TOML, sizes with their unit."""
    setting = SETTINGS[name]
    return json.dumps(_size(setting.default)) if setting.is_size else _value(setting.default)


def to_toml(config: Config) -> str:
    """Return the values in force as a settings file; what looks like a secret is masked."""
    tables = {section: asdict(getattr(config, section)) for section in SECTIONS}
    mask = Secrets(config.auth.secret_names).mask_object
    tables |= {f"executors.{_key(name)}": dict(mask(t)) for name, t in config.executors.items()}
    parts = ("\n".join([f"[{name}]", *_lines(table)]) for name, table in tables.items())
    return "\n\n".join(parts) + "\n"


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{_key(key)} = {_masked(key, value)}" for key, value in table.items())


def _masked(key: str, value: object) -> str:
    return '"***"' if is_secret(key) and isinstance(value, str) else _value(value)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | Path():
            text = without_password(str(value))
            return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return f"{{{', '.join(_lines(value))}}}"
        case Iterable():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            return str(value)


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else _value(key)


def _size(count: int) -> str:
    """Return the shortest exact form: 1048576 is 1 MiB, 512000000 is 512 MB."""
    exact = [(count // size, unit) for unit, size in UNITS.items() if unit and not count % size]
    number, unit = min(exact)
    return f"{number} {unit}"
