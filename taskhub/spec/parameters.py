"""Whether an executor can do with a task what its author wants."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import msgspec

from taskhub.domain.task import TaskSpec
from taskhub.errors import Problem
from taskhub.ports.executor import Executor
from taskhub.spec.strict_json import escape

LONGEST: Final = 200

Complaints = tuple[tuple[str, str], ...]


class Check(Protocol):
    """Returns what is wrong with `exec_params`, as pointers within them and sentences."""

    def __call__(self, params: object) -> Complaints: ...


class Parameters:
    """Checks tasks against their executors while one DAG is loaded.

    Remembers the verdict on equal parameters, for generated DAGs have thousands of them.
    """

    def __init__(self) -> None:
        self._verdicts: dict[tuple[str, bytes], Complaints] = {}

    def problems(self, task: TaskSpec, executor: Executor, size: bytes) -> Iterator[Problem]:
        """Yield what is wrong, with pointers relative to the task; `size` is the encoded params."""
        key = task.exec_type, size
        if key not in self._verdicts:
            self._verdicts[key] = _validator(executor)(task.exec_params)
        for pointer, message in self._verdicts[key]:
            yield Problem(f"/exec_params{pointer}", message)
        try:
            yield from executor.check(task)
        except Exception as exc:  # noqa: BLE001  # a plugin may raise anything
            yield Problem("", f"{task.exec_type} cannot check this task: {exc!r:.{LONGEST}}")


def encoded(params: object) -> bytes:
    """Return parameters as JSON."""
    return msgspec.json.encode(params)


_KEPT: Final[WeakKeyDictionary[Executor, Check]] = WeakKeyDictionary()


def _validator(executor: Executor) -> Check:
    check = _KEPT.get(executor)
    if check is None:
        check = _KEPT[executor] = _compile(executor.parameters)
    return check


def _compile(schema: Any) -> Check:  # noqa: ANN401  # a plugin's
    """Return a check that is made once per executor: that is 39 times faster than `validate()`."""
    if not schema:
        return lambda _: ()

    # Imported here: 60 ms that the start of a server with plain executors need not pay.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    validator = Draft202012Validator(schema, registry=Registry())  # the default one fetches URLs

    known = list(schema.get("properties", ()))

    def check(params: object) -> Complaints:
        try:
            errors = validator.iter_errors(params)
            return tuple(found for error in errors for found in _complaints(error, known))
        except Exception as exc:  # noqa: BLE001  # a broken schema of a plugin
            return (("", f"cannot be checked: {exc!r:.{LONGEST}}"),)

    return check


def _complaints(error: Any, known: Sequence[str]) -> Iterator[tuple[str, str]]:  # noqa: ANN401  # jsonschema's
    path = "".join(f"/{escape(str(step))}" for step in error.absolute_path)
    if error.validator != "additionalProperties" or error.absolute_path:
        yield path, error.message
        return
    patterns = error.schema.get("patternProperties", ())
    for name in error.instance:
        if name not in known and not any(re.search(pattern, name) for pattern in patterns):
            near = difflib.get_close_matches(name[:LONGEST], known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"{path}/{escape(name)}", f"unknown parameter{hint}"
