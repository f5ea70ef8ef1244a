"""The body of a request that makes a run -> `DagSpec`, or everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from taskhub.domain.dag import DagSpec, FailPolicy, check_graph
from taskhub.domain.task import ID_PATTERN, JSON, TaskSpec
from taskhub.errors import Problem
from taskhub.ports.executor import Executors
from taskhub.spec.fields import Fields, Findings, kind
from taskhub.spec.limits import SpecLimits
from taskhub.spec.task import TaskReader, name_of, read_deps

BODY: Final = frozenset({"name", "config", "tasks", "task"})
CONFIG: Final = frozenset({"name", "fail_policy", "max_parallel"})
WRAPPER: Final = frozenset({"task", "deps"})
PLACE: Final = re.compile(r"/tasks/(\d+)(?:/(\w+)(?:/(\d+))?)?")
MAX_PARALLEL: Final = 4


@dataclass(slots=True)
class Read:
    """A task that was read, and where its parts stood in the body.

    `places` says where each dependency first stood; made when somebody asks.
    """

    task: TaskSpec
    pointer: str
    deps_pointer: str
    deps: JSON
    places: dict[str, int] | None = None


def load_dag(body: JSON, executors: Executors, limits: SpecLimits) -> DagSpec:
    """Return what `POST /api/dag/run` asks for.

    The tasks are an array `tasks`, or one object `task`; each may be wrapped as
    `{"task": {...}, "deps": [...]}`. Raises `GraphError` if the graph is wrong and every
    field is well formed, else `InvalidError`; either names every problem, with pointers into
    `body`. Costs some 20 us a task: call it in a thread for a large body.
    """
    findings = Findings()
    fields = Fields.of(body, "", findings)
    if not isinstance(body, dict):
        findings.raise_any()
    fields.only(BODY | {"deps"} if "task" in fields.value else BODY)
    name = name_of(fields, limits)
    config = Fields(fields.object("config"), "/config", findings)
    config.only(CONFIG)
    reads = _tasks(fields, executors, limits)
    _check_graph(reads, findings)
    only = reads[0].task.name if reads and "task" in fields.value else ""
    spec = DagSpec(
        name=name or name_of(config, limits) or only,
        tasks=tuple(read.task for read in reads),
        fail_policy=_fail_policy(config),
        max_parallel=config.integer("max_parallel", MAX_PARALLEL, least=1),
    )
    findings.raise_any()
    return spec


def _tasks(fields: Fields, executors: Executors, limits: SpecLimits) -> Sequence[Read]:
    reader = TaskReader(executors, limits)
    if "tasks" not in fields.value and "task" in fields.value:
        return _single(fields, reader)
    if "task" in fields.value:
        fields.wrong("task", "is given beside tasks; one of the two is enough")
    tasks = fields.value.get("tasks", [])
    if not isinstance(tasks, list):
        fields.wrong("tasks", f"must be an array, not {kind(tasks)}")
    elif not tasks:
        fields.findings.graph(*check_graph(()))
    elif len(tasks) > limits.tasks:
        fields.wrong("tasks", f"holds {len(tasks)} tasks; at most {limits.tasks} are allowed")
    else:
        return [
            read
            for i, value in enumerate(tasks)
            for read in _task(value, f"/tasks/{i}", reader, fields.findings)
        ]
    return []


def _single(body: Fields, reader: TaskReader) -> Sequence[Read]:
    if "deps" in body.value:
        return _task(dict(_pick(body.value, WRAPPER)), "", reader, body.findings)
    return _task(body.value["task"], "/task", reader, body.findings)


def _pick(value: Mapping[str, JSON], names: frozenset[str]) -> Mapping[str, JSON]:
    return {name: value[name] for name in names}


def _task(value: JSON, pointer: str, reader: TaskReader, findings: Findings) -> Sequence[Read]:
    """Return the task at a pointer, or none if there is no object."""
    fields = outer = Fields.of(value, pointer, findings)
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("task"), dict):
        outer.only(WRAPPER)
        fields = Fields.of(outer.value["task"], f"{pointer}/task", findings)
        if "deps" not in outer.value:
            outer = fields
        elif "deps" in fields.value:
            fields.wrong("deps", "is given beside the task too")
    task = reader.read(fields, read_deps(outer.value, outer.pointer, fields))
    return [Read(task, fields.pointer, outer.pointer, outer.value.get("deps"))]


def _check_graph(reads: Sequence[Read], findings: Findings) -> None:
    """Note what the graph lacks; tasks without a good id were noted already and are left out."""
    named = [read for read in reads if ID_PATTERN.fullmatch(read.task.id)]
    if named:
        for problem in check_graph([read.task for read in named]):
            pointer = _pointer(problem.pointer, named)
            findings.graph(Problem("/tasks" if pointer is None else pointer, problem.message))


def _pointer(pointer: str, reads: Sequence[Read]) -> str | None:
    """Turn a pointer into the list of tasks into one into the body, if it is about one task."""
    found = PLACE.fullmatch(pointer)
    if found is None:
        return None
    read = reads[int(found[1])]
    if found[2] != "deps":
        return f"{read.pointer}/{found[2]}"
    assert isinstance(read.deps, list)  # noqa: S101  # else it would have no dependencies
    if read.places is None:
        named = [(i, dep) for i, dep in enumerate(read.deps) if isinstance(dep, str)]
        read.places = {dep: i for i, dep in reversed(named)}
    return f"{read.deps_pointer}/deps/{read.places[read.task.deps[int(found[3])]]}"


def _fail_policy(config: Fields) -> FailPolicy:
    value = config.text("fail_policy", FailPolicy.SKIP_DOWNSTREAM)
    try:
        return FailPolicy(value)
    except ValueError:
        config.wrong("fail_policy", f"must be {' or '.join(FailPolicy)}")
        return FailPolicy.SKIP_DOWNSTREAM
