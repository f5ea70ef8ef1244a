"""A task as its author wrote it -> `TaskSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from taskhub.domain.task import ID_PATTERN, ID_RULE, JSON, Priority, TaskSpec
from taskhub.errors import Problem
from taskhub.ports.executor import Executors, Installed
from taskhub.spec.fields import LONGEST_ECHO, Fields, kind
from taskhub.spec.limits import SpecLimits
from taskhub.spec.parameters import Parameters, encoded

ALIASES: Final = {"http": "httpcall", "http_call": "httpcall"}
RETRY_DELAY: Final = "retryDelay"
KNOWN: Final = frozenset({*TaskSpec.__slots__, RETRY_DELAY})
DEFAULT_TYPE: Final = "Local"
DEFAULT_QUEUE: Final = "default"
DELAY_MS: Final = 1000
DELAYS: Final = frozenset({"retry_delay_ms", RETRY_DELAY})
NO_PARAMS: Final = b"{}"


class TaskReader:
    """Reads the tasks of one body."""

    def __init__(self, executors: Executors, limits: SpecLimits) -> None:
        self._executors = executors
        self._limits = limits
        self._parameters = Parameters(limits.secrets)

    def read(self, fields: Fields, deps: tuple[str, ...]) -> TaskSpec:
        """Return the task; what is wrong is noted, and replaced by a default."""
        fields.only(KNOWN)
        given = fields.value.keys()  # most tasks give few fields, and there may be 10,000 tasks
        limits = self._limits
        task_id = _id(fields)
        installed = self._installed(fields)
        params = fields.object("exec_params")
        size = encoded(params) if params else NO_PARAMS
        if len(size) > limits.exec_params_bytes:
            fields.wrong("exec_params", f"is larger than {limits.exec_params_bytes} bytes")
        self._check_names(fields, "exec_params", params)
        task = TaskSpec(
            id=task_id,
            name=name_of(fields, limits) or task_id,
            exec_type=installed.name if installed else DEFAULT_TYPE,
            exec_command=fields.text("exec_command", most=limits.exec_command_bytes),
            exec_params=params,
            deps=deps,
            timeout_ms=fields.integer("timeout_ms", 0, least=0) if "timeout_ms" in given else 0,
            retry_count=(
                fields.integer("retry_count", 0, least=0, most=limits.retries)
                if "retry_count" in given
                else 0
            ),
            retry_delay_ms=self._retry_delay(fields) if given & DELAYS else DELAY_MS,
            retry_exp_backoff=fields.flag("retry_exp_backoff", default=True),
            priority=_priority(fields) if "priority" in given else int(Priority.NORMAL),
            queue=_queue(fields) if "queue" in given else DEFAULT_QUEUE,
            capture_output=fields.flag("capture_output", default=True),
            metadata=self._metadata(fields) if "metadata" in given else {},
            idempotent=fields.flag("idempotent", default=False),
        )
        if installed is not None and installed.executor is not None:
            for problem in self._parameters.problems(task, installed.executor, size):
                pointer = f"{fields.pointer}{problem.pointer}"
                fields.findings.parameter(Problem(pointer, problem.message))
        return task

    def _installed(self, fields: Fields) -> Installed | None:
        wanted = fields.text("exec_type", DEFAULT_TYPE)
        name = wanted.lower()
        installed = self._executors.get(ALIASES.get(name, name))
        if installed is None:
            names = sorted(i.name for i in self._executors.values() if i.executor)
            hint = fields.findings.hint(wanted, names)
            message = f"unknown exec_type {wanted[:LONGEST_ECHO]!r}{hint}"
            message += f"; installed: {', '.join(names) or 'none'}"
        elif installed.executor is None:
            where = f"{installed.source} {installed.version}".strip()
            message = f"exec_type {installed.name} ({where}) cannot be used: {installed.error}"
        else:
            return installed
        fields.findings.graph(Problem(f"{fields.pointer}/exec_type", message))
        return None

    def _check_names(self, fields: Fields, name: str, value: dict[str, JSON]) -> None:
        """Note that there are too many names: each is looked at whenever secrets are masked."""
        if value and count_names(value) > self._limits.names:
            fields.wrong(name, f"holds more than {self._limits.names} names")

    def _metadata(self, fields: Fields) -> Mapping[str, JSON]:
        metadata = fields.object("metadata")
        most = self._limits.metadata_bytes
        if metadata and len(encoded(metadata)) > most:
            fields.wrong("metadata", f"is larger than {most} bytes")
        self._check_names(fields, "metadata", metadata)
        return metadata

    def _retry_delay(self, fields: Fields) -> int:
        name = "retry_delay_ms"
        if RETRY_DELAY in fields.value:
            if name in fields.value:
                fields.wrong(RETRY_DELAY, f"is the same as {name}, which is given too")
            name = RETRY_DELAY
        return fields.integer(name, DELAY_MS, least=0, most=self._limits.retry_delay_ms)


def count_names(value: JSON) -> int:
    """Return how many names the objects in a value have in all."""
    if isinstance(value, dict):
        return len(value) + sum(map(count_names, value.values()))
    return sum(map(count_names, value)) if isinstance(value, list) else 0


def name_of(fields: Fields, limits: SpecLimits) -> str:
    """Return the name of a task or DAG."""
    name = fields.text("name")
    if len(name) > limits.name_chars:
        fields.wrong("name", f"is longer than {limits.name_chars} characters")
    return name


def _id(fields: Fields) -> str:
    value = fields.text("id")
    if not value:
        if "id" not in fields.value or fields.value["id"] == "":
            fields.findings.graph(Problem(f"{fields.pointer}/id", "a task needs an id"))
    elif not ID_PATTERN.fullmatch(value):
        fields.wrong("id", f"must be {ID_RULE}")
    return value


def _queue(fields: Fields) -> str:
    value = fields.text("queue", DEFAULT_QUEUE)
    if not ID_PATTERN.fullmatch(value):
        fields.wrong("queue", f"must be {ID_RULE}")
    return value


def _priority(fields: Fields) -> int:
    value = fields.value.get("priority", 0)
    if isinstance(value, str):
        try:
            return int(Priority[value.upper()])
        except KeyError:
            names = ", ".join(p.name.capitalize() for p in Priority)
            fields.wrong("priority", f"must be one of {names}, or an integer")
            return int(Priority.NORMAL)
    return fields.integer("priority", int(Priority.NORMAL))


def read_deps(value: Mapping[str, JSON], pointer: str, fields: Fields) -> tuple[str, ...]:
    """Return the dependencies in `value`, each once."""
    deps = value.get("deps", [])
    if not isinstance(deps, list):
        fields.findings.field(f"{pointer}/deps", f"must be an array, not {kind(deps)}")
        return ()
    names = [dep for dep in deps if isinstance(dep, str)]
    if len(names) != len(deps):
        for place, dep in enumerate(deps):
            if not isinstance(dep, str):
                message = f"must be a string, not {kind(dep)}"
                fields.findings.field(f"{pointer}/deps/{place}", message)
    return tuple(dict.fromkeys(names))
