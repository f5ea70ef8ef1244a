"""What a user asks for: tasks, the edges between them, and how to run them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from typing import Any, Final

from taskhub.domain.task import TaskSpec
from taskhub.errors import Problem

GUESSES: Final = 5
CANDIDATES: Final = 300
LENGTH_SLACK: Final = 2
SHOWN: Final = 128
"""Characters of a name in a message: as many as a good id may have."""


class FailPolicy(StrEnum):
    """What a failed task means for the others."""

    SKIP_DOWNSTREAM = "SkipDownstream"
    FAIL_FAST = "FailFast"


@dataclass(frozen=True, slots=True, kw_only=True)
class DagSpec:
    """A checked, immutable description of a run: its dependencies resolve, and have no cycle."""

    name: str
    tasks: tuple[TaskSpec, ...]
    fail_policy: FailPolicy = FailPolicy.SKIP_DOWNSTREAM
    max_parallel: int = 4

    def to_json(self) -> dict[str, Any]:
        """Return the spec in the shape `POST /api/dag/run` takes."""
        return {
            "name": self.name,
            "config": {"fail_policy": self.fail_policy.value, "max_parallel": self.max_parallel},
            "tasks": [task.to_json() for task in self.tasks],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DagSpec:
        """Rebuild what `to_json` returned; trusts it."""
        config = value["config"]
        return cls(
            name=value["name"],
            fail_policy=FailPolicy(config["fail_policy"]),
            max_parallel=config["max_parallel"],
            tasks=tuple(TaskSpec.from_json(task) for task in value["tasks"]),
        )


def check_graph(tasks: Sequence[TaskSpec], most: int = 1000) -> list[Problem]:
    """Return what keeps the tasks from being a DAG, up to `most` problems.

    Pointers are those of the request body. Costs O(tasks + edges). The cycle is named
    (`a -> b -> a`), an unknown dependency comes with the nearest id there is.
    """
    if not tasks:
        return [Problem("/tasks", "a DAG needs at least one task")]
    problems = list(islice(chain(_duplicates(tasks), _unknown_deps(tasks)), most))
    if not problems and (cycle := find_cycle({task.id: task.deps for task in tasks})):
        problems.append(Problem("/tasks", f"cycle: {' -> '.join(cycle)}"))
    return problems


def _duplicates(tasks: Sequence[TaskSpec]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, task in enumerate(tasks):
        if (seen := first.setdefault(task.id, index)) != index:
            message = f"duplicate id {task.id[:SHOWN]!r}, already used by task {seen}"
            yield Problem(f"/tasks/{index}/id", message)


def _unknown_deps(tasks: Sequence[TaskSpec]) -> Iterator[Problem]:
    ids = dict.fromkeys(task.id for task in tasks)
    guesses = GUESSES
    for index, task in enumerate(tasks):
        for place, dep in enumerate(task.deps):
            if dep in ids:
                continue
            near = nearest(dep, ids) if guesses > 0 else None
            guesses -= 1
            hint = f"; did you mean {near!r}?" if near else ""
            message = f"task {task.id[:SHOWN]!r} depends on unknown task {dep[:SHOWN]!r}{hint}"
            yield Problem(f"/tasks/{index}/deps/{place}", message)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like this one, of the first few that could be meant at all.

    A comparison takes up to 0.1 ms: whoever sends thousands of long names must not keep a
    processor busy for minutes.
    """
    if len(name) > SHOWN:
        return None
    alike = (other for other in known if abs(len(other) - len(name)) <= LENGTH_SLACK)
    near = difflib.get_close_matches(name, islice(alike, CANDIDATES), n=1)
    return near[0] if near else None


def find_cycle(deps: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one cycle as a closed path along dependencies, or an empty list."""
    settled: set[str] = set()
    for root in deps:
        if root in settled:
            continue
        path, steps, on_path = [root], [iter(deps[root])], {root}
        while path:
            step = next(steps[-1], None)
            if step is None:
                steps.pop()
                on_path.remove(path[-1])
                settled.add(path.pop())
            elif step in on_path:
                return [*path[path.index(step) :], step]
            elif step not in settled:
                path.append(step)
                steps.append(iter(deps[step]))
                on_path.add(step)
    return []
