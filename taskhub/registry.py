"""Finds executors: installed distributions declare them, nobody edits a list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from jsonschema import Draft202012Validator, SchemaError

from taskhub.domain.redaction import Redaction
from taskhub.domain.secrets import Secrets
from taskhub.plugin_api import API_VERSION
from taskhub.ports.executor import Executor, Executors, Installed

log = logging.getLogger(__name__)

GROUP: Final = "taskhub.executors"
OWN: Final = "taskhub"
START_S: Final = 30.0
CLOSE_S: Final = 30.0


class NotAnExecutorError(Exception):
    """An entry point leads to something that cannot serve as an executor."""


def discover(points: Iterable[EntryPoint] | None = None) -> dict[str, Installed]:
    """Return what is installed, by exec_type in lower case; a broken plugin is a row with `error`.

    Where a name is taken, TaskHub's own executor keeps it, then the distribution that is first by
    name; the other is listed as `name (source)`, which no exec_type can be.
    """
    if points is None:
        points = entry_points(group=GROUP)
    found: dict[str, Installed] = {}
    for point in sorted(points, key=_precedence):
        key = point.name.lower()
        if key in found:
            row = _duplicate(point, found[key])
            found[f"{key} ({row.source})"] = row
        else:
            found[key] = _install(point)
    return found


@asynccontextmanager
async def started(
    installed: Executors,
    settings: Mapping[str, Mapping[str, Any]],
    *,
    start_s: float = START_S,
    close_s: float = CLOSE_S,
    secrets: Secrets | None = None,
) -> AsyncIterator[dict[str, Installed]]:
    """Start every executor with its own settings and close them at the end, each within a limit.

    One that fails to start, or takes too long, becomes a row with `error`, in which no secret of
    its settings is repeated; the others go on.
    """
    by_name = {name.lower(): dict(values) for name, values in settings.items()}
    names = secrets or Secrets()
    redactions = {key: Redaction(names, by_name.get(key, {})) for key in installed}
    rows: dict[str, Installed] = {}
    try:
        for key, row in installed.items():
            rows[key] = await _start(row, by_name.get(key, {}), start_s, redactions[key])
        yield dict(rows)
    finally:
        for key, row in reversed(rows.items()):
            if row.executor is not None:
                await _guarded(row, "close", row.executor.close, close_s, redactions[key])


def _precedence(point: EntryPoint) -> tuple[str, bool, str, str]:
    source = point.dist.name if point.dist else ""
    return point.name.lower(), source != OWN, source, point.value


def _install(point: EntryPoint) -> Installed:
    row = _row(point)
    try:
        return replace(row, executor=_checked(point.load()()))
    except (Exception, SystemExit) as exc:  # a plugin may raise anything
        error = _describe(exc)
        log.warning("executor not loaded", extra=_extra(row, error), exc_info=exc)
        return replace(row, error=error)


def _checked(executor: object) -> Executor:
    if not isinstance(executor, Executor):
        raise NotAnExecutorError(f"{type(executor).__name__} is not an Executor")
    version = getattr(executor, "api_version", API_VERSION)
    if version != API_VERSION:
        raise NotAnExecutorError(f"made for plugin API {version}, this TaskHub has {API_VERSION}")
    try:
        Draft202012Validator.check_schema(executor.parameters)
    except SchemaError as exc:
        raise NotAnExecutorError(f"parameters is no JSON Schema: {exc.message}") from None
    return executor


def _duplicate(point: EntryPoint, holder: Installed) -> Installed:
    row = _row(point)
    error = f"the name {point.name} is taken by {holder.source}"
    log.warning("executor not loaded", extra=_extra(row, error))
    return replace(row, error=error)


def _row(point: EntryPoint) -> Installed:
    if point.dist is None:
        return Installed(name=point.name, source=point.value, version="")
    return Installed(name=point.name, source=point.dist.name, version=point.dist.version)


async def _start(
    row: Installed, settings: Mapping[str, Any], limit_s: float, redaction: Redaction
) -> Installed:
    if row.executor is None:
        return row
    start = partial(row.executor.start, settings)
    error = await _guarded(row, "start", start, limit_s, redaction)
    if not error:
        return row
    # of what it had already taken
    await _guarded(row, "close", row.executor.close, limit_s, redaction)
    return replace(row, executor=None, error=error)


async def _guarded(
    row: Installed,
    step: str,
    work: Callable[[], Awaitable[None]],
    limit_s: float,
    redaction: Redaction,
) -> str:
    """Await a plugin's own code; return what went wrong, "" if nothing did."""
    try:
        async with asyncio.timeout(limit_s) as limit:
            await work()
    except TimeoutError as exc:
        late = f"{step} took longer than {limit_s:g} s"
        error = late if limit.expired() else f"{step}: {redaction.text(_describe(exc))}"
    except (Exception, SystemExit) as exc:  # a plugin may raise anything
        said = _describe(exc)
        error = f"{step}: {redaction.text(said)}"
        if error.endswith(said):  # a traceback repeats what was said, secrets included
            log.debug("executor raised", exc_info=exc)
    else:
        return ""
    log.warning("executor failed outside of an attempt", extra=_extra(row, error))
    return error


def _describe(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _extra(row: Installed, error: str) -> dict[str, str]:
    return {"executor": row.name, "source": row.source, "error": error}
