"""What a user asks for: tasks, the edges between them, and how to run them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from taskhub.domain.task import TaskSpec
from taskhub.errors import Problem


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


def check_graph(tasks: Sequence[TaskSpec]) -> list[Problem]:
    """Return everything that keeps the tasks from being a DAG, pointers as in the request body.

    Costs O(tasks + edges). The cycle is named (`a -> b -> a`), an unknown dependency comes with
    the nearest id there is.
    """
    if not tasks:
        return [Problem("/tasks", "a DAG needs at least one task")]
    problems = [*_duplicates(tasks), *_unknown_deps(tasks)]
    if not problems and (cycle := find_cycle({task.id: task.deps for task in tasks})):
        problems.append(Problem("/tasks", f"cycle: {' -> '.join(cycle)}"))
    return problems


def _duplicates(tasks: Sequence[TaskSpec]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, task in enumerate(tasks):
        if (seen := first.setdefault(task.id, index)) != index:
            message = f"duplicate id {task.id!r}, already used by task {seen}"
            yield Problem(f"/tasks/{index}/id", message)


def _unknown_deps(tasks: Sequence[TaskSpec]) -> Iterator[Problem]:
    ids = {task.id for task in tasks}
    guesses = 20  # a guess costs a walk over all ids; a thousand typos need no thousand guesses
    for index, task in enumerate(tasks):
        for place, dep in enumerate(task.deps):
            if dep in ids:
                continue
            near = difflib.get_close_matches(dep, ids, n=1) if guesses > 0 else []
            guesses -= 1
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"task {task.id!r} depends on unknown task {dep!r}{hint}"
            yield Problem(f"/tasks/{index}/deps/{place}", message)


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
