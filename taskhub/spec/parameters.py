"""Whether an executor can do with a task what its author wants."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import msgspec

from taskhub.domain.redaction import Redaction
from taskhub.domain.secrets import MASK, Secrets
from taskhub.domain.task import JSON, TaskSpec
from taskhub.errors import Problem
from taskhub.ports.executor import Executor
from taskhub.spec.strict_json import escape

LONGEST: Final = 200

Complaints = tuple[tuple[str, str], ...]


class Check(Protocol):
    """Returns what is wrong with `exec_params`, as pointers within them and sentences."""

    def __call__(self, params: Mapping[str, JSON], secrets: Secrets) -> Complaints: ...


class Parameters:
    """Checks tasks against their executors while one DAG is loaded.

    Remembers the verdict on equal parameters, for generated DAGs have thousands of them.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._verdicts: dict[tuple[str, bytes], Complaints] = {}

    def problems(self, task: TaskSpec, executor: Executor, size: bytes) -> Iterator[Problem]:
        """Yield what is wrong, with pointers relative to the task; `size` is the encoded params."""
        key = task.exec_type, size
        if key not in self._verdicts:
            self._verdicts[key] = _validator(executor)(task.exec_params, self._secrets)
        for pointer, message in self._verdicts[key]:
            yield Problem(f"/exec_params{pointer}", message)
        try:
            for problem in executor.check(task):
                yield Problem(problem.pointer, self._told(task, problem.message))
        except Exception as exc:  # noqa: BLE001  # a plugin may raise anything
            told = self._told(task, repr(exc))
            yield Problem("", f"{task.exec_type} cannot check this task: {told[:LONGEST]}")

    def _told(self, task: TaskSpec, message: str) -> str:
        return Redaction(self._secrets, task.exec_params, task.metadata).text(message)


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
        return lambda *_: ()

    # Imported here: 60 ms that the start of a server with plain executors need not pay.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    validator = Draft202012Validator(schema, registry=Registry())  # the default one fetches URLs

    known = list(schema.get("properties", ()))

    def check(params: Mapping[str, JSON], secrets: Secrets) -> Complaints:
        try:
            errors = list(validator.iter_errors(params))
            shown = secrets.mask_object(params) if errors else params
            return tuple(found for error in errors for found in _complaints(error, known, shown))
        except Exception as exc:  # noqa: BLE001  # a broken schema of a plugin
            told = Redaction(secrets, params).text(repr(exc))
            return (("", f"cannot be checked: {told[:LONGEST]}"),)

    return check


def _complaints(
    error: Any,  # noqa: ANN401  # jsonschema's
    known: Sequence[str],
    shown: object,
) -> Iterator[tuple[str, str]]:
    path = "".join(f"/{escape(str(step))}" for step in error.absolute_path)
    if error.validator != "additionalProperties" or error.absolute_path:
        yield path, _discreet(error) if _is_secret(error, shown) else error.message
        return
    patterns = error.schema.get("patternProperties", ())
    for name in error.instance:
        if name not in known and not any(re.search(pattern, name) for pattern in patterns):
            near = difflib.get_close_matches(name[:LONGEST], known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"{path}/{escape(name)}", f"unknown parameter{hint}"


def _is_secret(error: Any, shown: Any) -> bool:  # noqa: ANN401  # as above; JSON
    """Whether the value that jsonschema repeats in its message is masked, or holds what is.

    `shown` are the masked parameters: what is not secret is the very same object there.
    """
    for step in error.absolute_path:
        if shown == MASK:
            return True
        shown = shown[step]
    is_name = isinstance(shown, dict) and isinstance(error.instance, str)  # of `propertyNames`
    return shown is not error.instance and not is_name


def _discreet(error: Any) -> str:  # noqa: ANN401  # as above
    """Say what the schema asks for, and not what is there instead."""
    asked = error.validator_value
    is_short = isinstance(asked, str | int | float)
    return f"does not satisfy {error.validator}{f' {asked!r:.{LONGEST}}' if is_short else ''}"
