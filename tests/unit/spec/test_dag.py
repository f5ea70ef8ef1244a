from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskhub.domain.dag import DagSpec, FailPolicy
from taskhub.domain.secrets import Secrets
from taskhub.domain.task import TaskSpec
from taskhub.errors import GraphError, InvalidError, Problem
from taskhub.ports.executor import Executor, Installed
from taskhub.spec.dag import load_dag
from taskhub.spec.limits import SpecLimits


class Plain(Executor):
    async def execute(self, context):
        raise NotImplementedError


class Strict(Plain):
    parameters: ClassVar[Mapping[str, Any]] = {
        "properties": {"cwd": {"type": "string"}, "url": {"type": "string"}},
        "additionalProperties": False,
    }

    def check(self, task: TaskSpec) -> Iterable[Problem]:
        if not task.exec_command:
            yield Problem("/exec_command", "must not be empty")


class Secretive(Plain):
    parameters: ClassVar[Mapping[str, Any]] = {
        "properties": {
            "api_key": {"type": "string"},
            "password": {"enum": ["a", "b"]},
            "token": {"const": "ours"},
            "secret": {"pattern": "^[a-z]+$"},
            "credentials": {
                "properties": {"a": {"items": {"properties": {"b": {"type": "integer"}}}}}
            },
            "env": {"items": {"properties": {"value": {"type": "integer"}}}},
            "auth": {"maxProperties": 1},
            "pin": {"type": "integer"},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "cwd": {"type": "string"},
            "names": {"propertyNames": {"pattern": "^[a-z]+$"}},
        },
    }


class Telling(Plain):
    def check(self, task: TaskSpec) -> Iterable[Problem]:
        yield Problem("/exec_params/token", f"{task.exec_params['token']} is bad")


class Blabbing(Plain):
    def check(self, task: TaskSpec) -> Iterable[Problem]:
        raise ValueError(f"{task.exec_params['token']} is bad")


class Demanding(Plain):
    parameters: ClassVar[Mapping[str, Any]] = {"required": ["url"]}


class Raising(Plain):
    def check(self, task: TaskSpec) -> Iterable[Problem]:
        raise RuntimeError("boom")


class Unresolvable(Plain):
    parameters: ClassVar[Mapping[str, Any]] = {"$ref": "http://127.0.0.1:9/schema.json"}


def installed(**kinds: Executor | None) -> dict[str, Installed]:
    return {
        name.lower(): Installed(
            name=name,
            source="taskhub-test",
            version="1.0",
            executor=kind,
            error=None if kind else "ImportError: no module named boto3",
        )
        for name, kind in kinds.items()
    }


EXECUTORS = installed(
    Blabbing=Blabbing(),
    Secretive=Secretive(),
    Telling=Telling(),
    Local=Plain(),
    Shell=Strict(),
    HttpCall=Demanding(),
    Raising=Raising(),
    Odd=Unresolvable(),
    Broken=None,
)


def load(body: Any, **limits: int) -> DagSpec:
    return load_dag(body, EXECUTORS, SpecLimits(**limits, secrets=Secrets(["pin"])))


def problems(body: Any, kind: type[InvalidError] = InvalidError, **limits: int) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        load(body, **limits)
    assert type(caught.value) is kind
    return [str(problem) for problem in caught.value.problems]


def task_problems(**task: Any) -> list[str]:
    return problems({"tasks": [{"id": "a", **task}]})


def test_defaults_are_those_of_the_wire():
    spec = load({"tasks": [{"id": "a"}]})
    assert spec == DagSpec(name="", tasks=(TaskSpec(id="a", name="a", exec_type="Local"),))
    assert (spec.fail_policy, spec.max_parallel) == (FailPolicy.SKIP_DOWNSTREAM, 4)


def test_a_full_body_of_the_seed_is_read():
    spec = load(
        {
            "name": "workflow-1",
            "config": {"name": "other", "fail_policy": "FailFast", "max_parallel": 2},
            "tasks": [
                {
                    "id": "a",
                    "name": "step-a",
                    "exec_type": "sHeLL",
                    "exec_command": "true",
                    "exec_params": {"cwd": "/"},
                    "timeout_ms": 5,
                    "retry_count": 1,
                    "retryDelay": 7,
                    "retry_exp_backoff": False,
                    "priority": "critical",
                    "queue": "q",
                    "capture_output": False,
                    "metadata": {"anything": {"goes": 1}},
                    "idempotent": True,
                    "deps": ["b", "b"],
                },
                {"id": "b", "priority": -7},
            ],
        }
    )
    assert (spec.name, spec.fail_policy, spec.max_parallel) == ("workflow-1", "FailFast", 2)
    a, b = spec.tasks
    assert (a.exec_type, a.retry_delay_ms, a.priority, a.deps) == ("Shell", 7, 2, ("b",))
    assert b.priority == -7


def test_a_spec_written_out_is_read_again():
    spec = load({"tasks": [{"id": "a"}, {"id": "b", "deps": ["a"], "metadata": {"x": 1}}]})
    assert load(spec.to_json()) == spec


def test_the_name_of_the_config_serves_where_the_body_has_none():
    assert load({"config": {"name": "n"}, "tasks": [{"id": "a"}]}).name == "n"


@pytest.mark.parametrize("name", ["http", "HTTP_call", "HttpCall"])
def test_http_has_three_names(name):
    task = {"id": "a", "exec_type": name, "exec_params": {"url": "x"}}
    assert load({"task": task}).tasks[0].exec_type == "HttpCall"


def test_a_single_task_and_wrappers_are_accepted():
    inner = {"id": "b"}
    assert load({"task": inner}).tasks == load({"tasks": [{"task": inner}]}).tasks
    spec = load({"tasks": [{"id": "a"}, {"task": {"id": "b"}, "deps": ["a"]}]})
    assert spec.tasks[1].deps == ("a",)
    assert load({"task": {"id": "b"}, "deps": []}).tasks[0].deps == ()


def test_pointers_lead_into_the_wrapper():
    body = {"tasks": [{"task": {"id": "a", "priority": "x"}, "deps": ["zz", 1, "zz", "b"]}]}
    assert problems(body) == [
        "/tasks/0/deps/1: must be a string, not a number",
        "/tasks/0/task/priority: must be one of Low, Normal, High, Critical, or an integer",
        "/tasks/0/deps/0: task 'a' depends on unknown task 'zz'",
        "/tasks/0/deps/3: task 'a' depends on unknown task 'b'",
    ]


def test_dependencies_given_twice_do_not_shift_pointers():
    body = {"tasks": [{"id": "a"}, {"id": "b", "deps": ["a", "a", "c"]}]}
    (problem,) = problems(body, GraphError)
    assert problem.startswith("/tasks/1/deps/2: task 'b' depends on unknown task 'c'")


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ({"id": 5}, "/tasks/0/id: must be a string, not a number"),
        ({"id": "a/b"}, "/tasks/0/id: must be 1 to 128 letters"),
        ({"id": "a\n"}, "/tasks/0/id: must be 1 to 128 letters"),
        ({"id": "x" * 129}, "/tasks/0/id: must be 1 to 128 letters"),
        ({"name": None}, "/tasks/0/name: must be a string, not null"),
        ({"name": "x" * 257}, "/tasks/0/name: is longer than 256 characters"),
        ({"exec_type": 1}, "/tasks/0/exec_type: must be a string, not a number"),
        ({"exec_command": ["ls"]}, "/tasks/0/exec_command: must be a string, not an array"),
        ({"exec_command": "é" * 40_000}, "/tasks/0/exec_command: is longer than 65536 bytes"),
        ({"exec_params": []}, "/tasks/0/exec_params: must be an object, not an array"),
        ({"exec_params": {"x": "y" * 262_144}}, "/tasks/0/exec_params: is larger than 262144"),
        ({"deps": "b"}, "/tasks/0/deps: must be an array, not a string"),
        ({"timeout_ms": -1}, "/tasks/0/timeout_ms: must be at least 0"),
        ({"timeout_ms": 1.0}, "/tasks/0/timeout_ms: must be an integer, not a float"),
        ({"timeout_ms": True}, "/tasks/0/timeout_ms: must be an integer, not a boolean"),
        ({"timeout_ms": 2**63}, "/tasks/0/timeout_ms: must be at most 9223372036854775807"),
        ({"retry_count": 101}, "/tasks/0/retry_count: must be at most 100"),
        ({"retry_delay_ms": 3_600_001}, "/tasks/0/retry_delay_ms: must be at most 3600000"),
        ({"retryDelay": "1"}, "/tasks/0/retryDelay: must be an integer, not a string"),
        ({"retryDelay": 1, "retry_delay_ms": 1}, "/tasks/0/retryDelay: is the same as"),
        ({"retry_exp_backoff": 1}, "/tasks/0/retry_exp_backoff: must be true or false"),
        ({"priority": "urgent"}, "/tasks/0/priority: must be one of Low, Normal"),
        ({"priority": 1.5}, "/tasks/0/priority: must be an integer, not a float"),
        ({"queue": ""}, "/tasks/0/queue: must be 1 to 128 letters"),
        ({"metadata": "x"}, "/tasks/0/metadata: must be an object, not a string"),
        ({"comand": "x"}, "/tasks/0/comand: unknown field 'comand'; did you mean 'exec_command'?"),
        ({"a/b": 1}, "/tasks/0/a~1b: unknown field 'a/b'"),
        (
            {"exec_type": "Raising"},
            "/tasks/0: Raising cannot check this task: RuntimeError('boom')",
        ),
        ({"exec_type": "HttpCall"}, "/tasks/0/exec_params: 'url' is a required property"),
    ],
)
def test_a_bad_field_is_named_with_its_pointer(task, problem):
    (found,) = task_problems(**task)
    assert found.startswith(problem)


def test_parameters_are_checked_by_schema_and_by_the_executor():
    assert task_problems(exec_type="Shell", exec_params={"cwd": 1, "x": 2}) == [
        "/tasks/0/exec_params/cwd: 1 is not of type 'string'",
        "/tasks/0/exec_params/x: unknown parameter",
        "/tasks/0/exec_command: must not be empty",
    ]


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"api_key": 12345678}, "/api_key: does not satisfy type 'string'"),
        ({"api_key": ["hunter2"]}, "/api_key: does not satisfy type 'string'"),
        ({"password": "hunter2"}, "/password: does not satisfy enum"),
        ({"token": "hunter2"}, "/token: does not satisfy const 'ours'"),
        ({"secret": "hunter2"}, "/secret: does not satisfy pattern '^[a-z]+$'"),
        ({"credentials": {"a": [{"b": "hunter2"}]}}, "/credentials/a/0/b: does not satisfy type"),
        ({"env": [{"name": "token", "value": "hunter2"}]}, "/env/0/value: does not satisfy type"),
        ({"auth": {"password": "hunter2", "n": 1}}, "/auth: does not satisfy maxProperties 1"),
        ({"pin": "hunter2"}, "/pin: does not satisfy type 'integer'"),
        ({"either": {"token": "hunter2"}}, "/either: does not satisfy anyOf"),
        ({"cwd": ["hunter3"]}, "/cwd: ['hunter3'] is not of type 'string'"),
        ({"names": {"no-id": 1}}, "/names: 'no-id' does not match"),
    ],
)
def test_no_message_repeats_a_secret(params, problem):
    (found,) = task_problems(exec_type="Secretive", exec_params=params)
    assert found.startswith(f"/tasks/0/exec_params{problem}")
    assert "hunter2" not in found
    assert "12345678" not in found


@pytest.mark.parametrize("kind", ["Telling", "Blabbing"])
def test_what_an_executor_says_of_a_task_does_not_repeat_its_secrets(kind):
    (found,) = task_problems(exec_type=kind, exec_params={"token": "hunter2"})
    assert "*** is bad" in found
    assert "hunter2" not in found


def test_a_schema_never_reaches_out_to_the_network():
    (problem,) = task_problems(exec_type="Odd", exec_params={"x": 1})
    assert problem.startswith("/tasks/0/exec_params: cannot be checked")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "must be an object, not an array"),
        (None, "must be an object, not null"),
        ({"tasks": {}}, "/tasks: must be an array, not an object"),
        ({"tasks": [3]}, "/tasks/0: must be an object, not a number"),
        ({"task": "x"}, "/task: must be an object, not a string"),
        ({"tasks": [{"id": "a"}], "task": {"id": "a"}}, "/task: is given beside tasks"),
        (
            {"tasks": [{"id": "a"}], "conf": {}},
            "/conf: unknown field 'conf'; did you mean 'config'",
        ),
        ({"tasks": [{"id": "a"}], "config": 1}, "/config: must be an object, not a number"),
        (
            {"tasks": [{"id": "a"}], "config": {"max_parallel": 0}},
            "/config/max_parallel: must be at",
        ),
        (
            {"tasks": [{"id": "a"}], "config": {"fail_policy": "Never"}},
            "/config/fail_policy: must be SkipDownstream or FailFast",
        ),
        (
            {"tasks": [{"task": {"id": "a", "deps": []}, "deps": []}]},
            "/tasks/0/task/deps: is given beside the task too",
        ),
    ],
)
def test_a_bad_body_is_refused(body, problem):
    (found,) = problems(body)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "/tasks: a DAG needs at least one task"),
        ({"tasks": []}, "/tasks: a DAG needs at least one task"),
        ({"tasks": [{}]}, "/tasks/0/id: a task needs an id"),
        ({"tasks": [{"id": ""}]}, "/tasks/0/id: a task needs an id"),
        (
            {"tasks": [{"id": "a"}, {"id": "a"}]},
            "/tasks/1/id: duplicate id 'a', already used by task 0",
        ),
        (
            {"tasks": [{"id": "a", "deps": ["b"]}, {"id": "b", "deps": ["a"]}]},
            "/tasks: cycle: a -> b -> a",
        ),
        (
            {"tasks": [{"id": "extract"}, {"id": "b", "deps": ["extrac"]}]},
            "/tasks/1/deps/0: task 'b' depends on unknown task 'extrac'; did you mean 'extract'?",
        ),
        (
            {"tasks": [{"id": "a", "exec_type": "Shel"}]},
            (
                "/tasks/0/exec_type: unknown exec_type 'Shel'; did you mean 'Shell'?; installed: "
                "Blabbing, HttpCall, Local, Odd, Raising, Secretive, Shell, Telling"
            ),
        ),
        (
            {"tasks": [{"id": "a", "exec_type": "broken"}]},
            (
                "/tasks/0/exec_type: exec_type Broken (taskhub-test 1.0) cannot be used: "
                "ImportError: no module named boto3"
            ),
        ),
    ],
)
def test_what_only_the_graph_lacks_is_a_graph_error(body, problem):
    assert problems(body, GraphError) == [problem]


def test_problems_of_both_kinds_come_together():
    body = {"tasks": [{"id": "a", "deps": ["z"], "retry_count": -1}, {"exec_type": "Nope"}]}
    found = problems(body)
    assert [problem.partition(":")[0] for problem in found] == [
        "/tasks/0/retry_count",
        "/tasks/1/id",
        "/tasks/1/exec_type",
        "/tasks/0/deps/0",
    ]


def test_more_tasks_than_allowed_are_not_even_read():
    assert problems({"tasks": [{}] * 3}, tasks=2) == [
        "/tasks: holds 3 tasks; at most 2 are allowed"
    ]


def test_ten_thousand_bad_tasks_are_answered_in_bounds():
    tasks = [{"id": f"t{i}", "x": 1, "exec_type": "Shel", "deps": [f"y{i}"]} for i in range(10_000)]
    found = problems({"tasks": tasks})
    assert len(found) == 1001
    assert found[-1] == "and 20000 more problems"


def test_ten_thousand_tasks_load():
    tasks = [
        {"id": f"t{i}", "exec_type": "Shell", "exec_command": "x", "deps": [f"t{i - 1}"][: i > 0]}
        for i in range(10_000)
    ]
    assert len(load({"tasks": tasks}).tasks) == 10_000


WORDS = st.sampled_from(
    [*TaskSpec.__slots__, "tasks", "task", "config", "max_parallel", "retryDelay", "Local", "Shell"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=15,
)


@given(
    ANYTHING
    | st.builds(lambda task: {"tasks": [{"id": "a", **task}]}, st.dictionaries(WORDS, ANYTHING))
)
def test_no_body_makes_an_error_nobody_meant(body):
    try:
        spec = load(body)
    except InvalidError:
        return
    assert load(spec.to_json()) == spec


def test_thousands_of_unknown_dependencies_are_named_up_to_a_thousand_and_briefly():
    deps = [f"{i:05x}" for i in range(20_000)]
    task = {"id": "a", "exec_type": "Shell", "exec_command": "x", "deps": deps}
    found = problems({"tasks": [task]}, GraphError)
    assert len(found) == 1000
    assert found[999] == "/tasks/0/deps/999: task 'a' depends on unknown task '003e7'"


def test_a_badly_formed_id_is_not_repeated_in_what_else_is_wrong():
    deps = [f"{i:05x}" for i in range(2000)]
    task = {"id": "/" * 100_000, "exec_type": "Shell", "exec_command": "x", "deps": deps}
    found = problems({"tasks": [task]})
    assert len(found) == 1
    assert len(found[0]) < 300


def test_a_guess_is_not_made_for_names_that_no_id_can_have():
    name = "abcdefghij" * 10_000
    tasks = [{"id": f"t{i}", "exec_type": "Shell", "exec_command": "x"} for i in range(3)]
    tasks[0]["deps"] = [name]
    (found,) = problems({"tasks": tasks}, GraphError)
    assert "did you mean" not in found
    assert len(found) < 400
