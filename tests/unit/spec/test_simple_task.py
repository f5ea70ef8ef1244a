from __future__ import annotations

from typing import ClassVar

import pytest

from taskhub.errors import InvalidError, MissingNameError, Problem
from taskhub.plugin_api import Executor
from taskhub.ports.executor import Installed
from taskhub.spec.limits import SpecLimits
from taskhub.spec.simple_task import asked_of, load_simple_task


class Plain(Executor):
    parameters: ClassVar = {"properties": {"cwd": {"type": "string"}}}

    async def execute(self, context):
        raise NotImplementedError


class Command(Plain):
    def check(self, task):
        if not task.exec_command.strip():
            yield Problem("/exec_command", "required: the shell command to run")


def installed(name, executor):
    return Installed(name=name, source="t", version="1", executor=executor)


EXECUTORS = {"local": installed("Local", Plain()), "shell": installed("Shell", Command())}


def load(limits=None, **body):
    return load_simple_task({"name": "t", **body}, EXECUTORS, limits or SpecLimits())


def problems(body, limits=None):
    with pytest.raises(InvalidError) as caught:
        load_simple_task(body, EXECUTORS, limits or SpecLimits())
    return [(p.pointer, p.message) for p in caught.value.problems]


def pointers(limits=None, **body):
    return [pointer for pointer, _ in problems({"name": "t", **body}, limits)]


def test_a_command_is_one_for_shell():
    task = load(type=4, params={"cmd": "ls", "mine": {"a": [1]}}, timeout_sec=3, max_retries=2)
    assert (task.name, task.exec_type, task.exec_command) == ("t", "Shell", "ls")
    assert (task.timeout_ms, task.retry_count, task.exec_params) == (3000, 2, {})
    assert asked_of(task) == (4, {"cmd": "ls", "mine": {"a": [1]}})


def test_any_executor_can_be_named_in_any_case():
    params = {"exec_type": "LOCAL", "exec_command": "noop", "exec_params": {"a": 1}}
    task = load(params=params)
    assert (task.exec_type, task.exec_command, task.exec_params) == ("Local", "noop", {"a": 1})


def test_a_command_without_a_type_is_one_for_shell():
    assert load(params={"exec_command": "ls"}).exec_type == "Shell"


@pytest.mark.parametrize("params", [{}, {"cmd": ""}, {"cmd": " \n"}, {"exec_type": "shell"}])
def test_no_command_is_accepted_and_not_retried(params):
    task = load(params=params, max_retries=9)
    assert (task.exec_type, task.exec_command.strip(), task.retry_count) == ("Shell", "", 0)


def test_params_need_not_be_there():
    assert asked_of(load()) == (0, {})


@pytest.mark.parametrize("where", ["body", "params", "both"])
def test_numbers_stand_in_the_body_or_in_params(where):
    numbers = {"timeout_sec": 7, "max_retries": 3}
    body = numbers if where != "params" else {}
    params = {"cmd": "x", **(numbers if where != "body" else {})}
    task = load(params=params, **body)
    assert (task.timeout_ms, task.retry_count) == (7000, 3)


def test_numbers_that_differ_are_a_problem():
    params = {"cmd": "x", "timeout_sec": 0, "max_retries": 1}
    found = pointers(params=params, timeout_sec=5, max_retries=1)
    assert found == ["/params/timeout_sec"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"timeout_sec": -1}, ["/timeout_sec"]),
        ({"timeout_sec": 2**63 // 1000 + 1}, ["/timeout_sec"]),
        ({"timeout_sec": 1.0}, ["/timeout_sec"]),
        ({"timeout_sec": None}, ["/timeout_sec"]),
        ({"params": {"timeout_sec": "5"}}, ["/params/timeout_sec"]),
        ({"max_retries": 101}, ["/max_retries"]),
        ({"params": {"max_retries": True}}, ["/params/max_retries"]),
        ({"type": "0"}, ["/type"]),
        ({"type": 2**63}, ["/type"]),
        ({"params": []}, ["/params"]),
        ({"params": None}, ["/params"]),
        ({"name": 5}, ["/name"]),
        ({"name": ["x"]}, ["/name"]),
        ({"name": "x" * 257}, ["/name"]),
        ({"parms": {}}, ["/parms"]),
        ({"params": {"exec_type": "Shel"}}, ["/params/exec_type"]),
        ({"params": {"exec_type": {}}}, ["/params/exec_type"]),
        ({"params": {"cmd": "x", "exec_params": {"cwd": 5}}}, ["/params/exec_params/cwd"]),
        ({"params": {"cmd": "x", "exec_params": 5}}, ["/params/exec_params"]),
        ({"params": {"cmd": "x", "exec_type": "Local"}}, ["/params/cmd"]),
        ({"params": {"cmd": "x", "exec_command": "y"}}, ["/params/exec_command"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(body, expected):
    assert pointers(**body) == expected


@pytest.mark.parametrize(
    ("params", "place"),
    [({"cmd": 5}, "/params/cmd"), ({"exec_command": []}, "/params/exec_command")],
)
def test_a_command_that_is_no_text_is_a_problem(params, place):
    assert set(pointers(params=params)) == {place}


def test_a_command_that_is_too_long_is_not_taken_for_none():
    assert set(pointers(SpecLimits(exec_command_bytes=8), params={"cmd": "x" * 9})) == {
        "/params/cmd"
    }


def test_params_are_bounded_as_a_whole():
    limits = SpecLimits(exec_params_bytes=100)
    assert pointers(limits, params={"cmd": "x", "rest": "y" * 100}) == ["/params"]
    load(limits, params={"cmd": "x", "rest": "y" * 70})


@pytest.mark.parametrize("name", [None, ""])
def test_a_missing_name_is_told_apart_and_with_all_the_rest(name):
    body = {"name": name, "type": "x", "params": {"cmd": 1}}
    with pytest.raises(MissingNameError) as caught:
        load_simple_task(body, EXECUTORS, SpecLimits())
    assert {p.pointer for p in caught.value.problems} == {"/name", "/type", "/params/cmd"}


@pytest.mark.parametrize("body", [None, [], 1, "x", True])
def test_a_body_must_be_an_object(body):
    ((pointer, message),) = problems(body)
    assert (pointer, message.partition(",")[0]) == ("", "must be an object")


def test_the_same_command_twice_is_no_problem():
    assert load(params={"cmd": "x", "exec_command": "x", "exec_type": "SHELL"}).exec_command == "x"
