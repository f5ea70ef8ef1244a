from __future__ import annotations

import asyncio

import pytest

from taskhub.domain.dag import check_graph, find_cycle
from taskhub.domain.task import TaskSpec


def tasks(**deps: str) -> list[TaskSpec]:
    """tasks(a="", b="a") is a -> b."""
    return [
        TaskSpec(id=name, name=name, exec_type="Local", deps=tuple(on.split()))
        for name, on in deps.items()
    ]


def test_a_diamond_is_a_dag():
    assert check_graph(tasks(a="", b="a", c="a", d="b c")) == []


def test_a_cycle_is_named():
    (problem,) = check_graph(tasks(a="b", b="c", c="b"))
    assert problem.message == "cycle: b -> c -> b"


def test_a_task_that_needs_itself_is_a_cycle():
    assert find_cycle({"a": ["a"]}) == ["a", "a"]


def test_a_chain_of_100000_is_checked_without_recursion():
    deps = {str(i): [str(i + 1)] for i in range(100_000)} | {"100000": []}
    assert find_cycle(deps) == []


def test_every_unknown_dependency_is_reported_with_the_nearest_id():
    problems = check_graph(tasks(extract="", load="extrac", report="load x"))
    assert [str(p) for p in problems] == [
        "/tasks/1/deps/0: task 'load' depends on unknown task 'extrac'; did you mean 'extract'?",
        "/tasks/2/deps/1: task 'report' depends on unknown task 'x'",
    ]


def test_no_tasks_make_no_dag():
    (problem,) = check_graph([])
    assert "at least one task" in problem.message


@pytest.fixture
async def greeting():
    await asyncio.sleep(0)
    yield "hello"
    await asyncio.sleep(0)


async def test_async_fixtures_work(greeting):
    assert greeting == "hello"
