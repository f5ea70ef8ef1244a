"""Runs a task as a registered Python function, inside the server."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Final

from taskhub.executors.threads import ThreadContext, call_in_thread, describe
from taskhub.plugin_api import JSON, Context, Executor, Level, Problem, Result, TaskSpec

log = logging.getLogger(__name__)

GROUP: Final = "taskhub.local_functions"
RETURN_MAX: Final = 4096
JSON_TYPES: Final[Mapping[object, tuple[str, tuple[type, ...]]]] = {
    name: (word, types)
    for kind, word, types in (
        (str, "a string, number or boolean", (str, int, float, bool)),
        (int, "an integer", (int,)),
        (float, "a number", (int, float)),
        (bool, "true or false", (bool,)),
    )
    for name in (kind, kind.__name__)
}
SUCCESS: Final = Result()


class LocalExecutor(Executor):
    """Calls the function that `exec_command`, or else `exec_params.handler`, names.

    The rest of `exec_params` are its keyword arguments. An async function runs on the event loop,
    any other in a thread of its own. A parameter called `context` gets the attempt's context.
    """

    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"handler": {"type": "string", "description": "the function's name"}},
    }

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        points = entry_points(group=GROUP) if points is None else points
        self._functions: dict[str, Function] = {}
        self._broken: dict[str, str] = {}
        for point in sorted(points, key=lambda point: (point.name, point.value)):
            self._load(point)

    def check(self, task: TaskSpec) -> Iterable[Problem]:
        name, pointer = _name(task)
        if not name:
            return (Problem("/exec_command", f"required: one of {', '.join(self._names())}"),)
        if name in self._broken:
            return (Problem(pointer, f"function {name} cannot be loaded: {self._broken[name]}"),)
        function = self._functions.get(name)
        if function is None:
            return (Problem(pointer, self._unknown(name)),)
        return tuple(function.check(_arguments(task)))

    async def execute(self, context: Context) -> Result:
        task = context.task
        function = self._functions.get(_name(task)[0])
        if function is None:
            return Result.failed("; ".join(str(problem) for problem in self.check(task)))
        arguments = _arguments(task)
        try:
            if function.is_async:
                value = await function(arguments, context)
            else:
                value = await call_in_thread(partial(function, arguments), context)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001  # a function may raise anything
            return Result.failed(describe(exc))
        return SUCCESS if value is None else _with_return(value, context)

    def _load(self, point: EntryPoint) -> None:
        try:
            if point.name in self._functions:
                raise ValueError("the name is taken")  # noqa: TRY301  # told like any other fault
            self._functions[point.name] = Function(point.name, point.load())
        except (Exception, SystemExit) as exc:  # it harms only itself
            extra = {"function": point.name, "source": point.value}
            log.warning("local function not loaded", extra=extra, exc_info=exc)
            if point.name not in self._functions:
                self._broken[point.name] = describe(exc)

    def _names(self) -> list[str]:
        return sorted(self._functions)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._names())
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        return f"unknown function {name[:128]!r}{hint} (installed: {', '.join(self._names())})"


class Function:
    """A registered function and what its signature says."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        signature = inspect.signature(call)
        self.name = name
        self._call = call
        self.is_async = inspect.iscoroutinefunction(call)
        self._wants_context = "context" in signature.parameters
        self._parameters = {
            key: parameter
            for key, parameter in signature.parameters.items()
            if key != "context" and parameter.kind in _BY_KEYWORD
        }
        self._texts = {k for k, p in self._parameters.items() if p.annotation in {str, "str"}}
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())

    def __call__(self, arguments: Mapping[str, Any], context: Context | ThreadContext) -> Any:  # noqa: ANN401  # as it was written
        texts = {
            key: _to_text(value)
            for key, value in arguments.items()
            if key in self._texts and not isinstance(value, str)
        }
        arguments = {**arguments, **texts}
        if self._wants_context:
            return self._call(**arguments, context=context)
        return self._call(**arguments)

    def check(self, arguments: Mapping[str, JSON]) -> Iterator[Problem]:
        """Yield what is missing, unknown or of the wrong type."""
        for key, parameter in self._parameters.items():
            if key in arguments:
                yield from _check_type(key, arguments[key], parameter.annotation)
            elif parameter.default is parameter.empty:
                yield Problem(f"/exec_params/{key}", f"required by function {self.name}")
        for key in arguments.keys() - self._parameters.keys():
            if not self._takes_any or key == "context":
                yield Problem(f"/exec_params/{key}", f"unknown to function {self.name}")


_BY_KEYWORD: Final = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def _to_text(value: JSON) -> JSON:
    """Return a scalar as the text of it; others stay as they are."""
    return json.dumps(value) if isinstance(value, int | float) else value


def _check_type(key: str, value: JSON, annotation: object) -> Iterator[Problem]:
    word, types = JSON_TYPES.get(annotation, ("", ()))
    if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
        yield Problem(f"/exec_params/{key}", f"must be {word}")


def _name(task: TaskSpec) -> tuple[str, str]:
    """Return the function's name and where the task says it."""
    if task.exec_command:
        return task.exec_command, "/exec_command"
    return str(task.exec_params.get("handler", "")), "/exec_params/handler"


def _arguments(task: TaskSpec) -> dict[str, Any]:
    arguments = dict(task.exec_params)
    arguments.pop("handler", None)
    return arguments


def _with_return(value: object, context: Context) -> Result:
    try:
        size = len(json.dumps(value, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError):
        context.log("the return value is not JSON and was not kept", Level.WARN)
        return SUCCESS
    if size > RETURN_MAX:
        context.log(f"the return value is over {RETURN_MAX} bytes and was not kept", Level.WARN)
        return SUCCESS
    return Result(metadata={"return": value})  # type: ignore[dict-item]  # json.dumps took it
