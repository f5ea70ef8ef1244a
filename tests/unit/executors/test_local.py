from __future__ import annotations

import asyncio
import threading
from importlib.metadata import EntryPoint

import pytest

from taskhub.domain.log import Level, Stream
from taskhub.domain.task import Status
from taskhub.executors.local import LocalExecutor
from taskhub.testing.executor_contract import RecordingContext, eventually, task_of


class Point:
    def __init__(self, function, name=None):
        self.name = self.value = name or function.__name__
        self.function = function

    def load(self):
        return self.function


async def call(function, context=None, **params):
    executor = LocalExecutor([Point(function, "f")])
    context = context or RecordingContext(task_of("Local", "f", exec_params=params))
    return await executor.execute(context)


def problems(function, command="f", **params):
    task = task_of("Local", command, exec_params=params)
    executor = LocalExecutor([Point(function, "f")])
    return {problem.pointer: problem.message for problem in executor.check(task)}


def add(a: int, b: int = 1) -> int:
    return a + b


async def test_built_in_functions_do_what_they_say():
    local = LocalExecutor()

    async def run(name, **params):
        context = RecordingContext(task_of("Local", name, exec_params=params))
        assert not list(local.check(context.task))
        return await local.execute(context), context

    assert (await run("noop"))[0].status == Status.SUCCESS
    assert (await run("echo", message="grüß dich"))[1].text() == "grüß dich\n"
    assert (await run("sleep", ms=0))[0].status == Status.SUCCESS
    failed, _ = await run("fail", message="so be it")
    assert (failed.status, failed.message) == (Status.FAILED, "RuntimeError: so be it")


async def test_handler_names_the_function_where_the_command_does_not():
    task = task_of("Local", "", exec_params={"handler": "add", "a": 1})
    local = LocalExecutor([Point(add)])
    assert not list(local.check(task))
    result = await local.execute(RecordingContext(task))
    assert result.metadata == {"return": 2}


def test_an_unknown_function_is_answered_with_near_names_and_the_list():
    (problem,) = LocalExecutor().check(task_of("Local", "slep"))
    assert problem.pointer == "/exec_command"
    assert "did you mean sleep?" in problem.message
    assert "installed: echo, fail, noop, sleep" in problem.message


def test_no_function_at_all_is_a_problem():
    (problem,) = LocalExecutor().check(task_of("Local", ""))
    assert problem.message == "required: one of echo, fail, noop, sleep"


def test_arguments_are_held_against_the_signature():
    assert problems(add, a=1) == {}
    assert problems(add) == {"/exec_params/a": "required by function f"}
    assert problems(add, a=1, c=1) == {"/exec_params/c": "unknown to function f"}
    assert problems(add, a="1", b=2.5) == {
        "/exec_params/a": "must be an integer",
        "/exec_params/b": "must be an integer",
    }


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (str, "a", ["b"]),
        (int, 1, True),
        (float, 1, "1"),
        (float, 1.5, False),
        (bool, True, 0),
        ("bool", False, None),
        (list, [1], None),
    ],
)
def test_annotated_parameters_take_their_json_type_only(annotation, good, bad):
    def function(x): ...

    function.__annotations__["x"] = annotation
    assert problems(function, x=good) == {}
    assert problems(function, x=bad) == ({} if annotation is list else problems(function, x=bad))
    assert annotation is list or "/exec_params/x" in problems(function, x=bad)


def test_a_function_may_take_anything_but_the_context_from_outside():
    def function(context, **rest): ...

    assert problems(function, a=1, b=[]) == {}
    assert problems(function, context=1) == {"/exec_params/context": "unknown to function f"}


async def test_a_context_from_outside_fails_the_attempt_only():
    def function(context): ...

    assert (await call(function)).status == Status.SUCCESS
    bad = RecordingContext(task_of("Local", "f", exec_params={"context": 1}))
    assert (await call(function, context=bad)).status == Status.FAILED


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), "x" * 5000])
async def test_a_return_value_that_cannot_be_kept_is_mentioned(value):
    context = RecordingContext(task_of("Local", "f"))
    result = await call(lambda: value, context)
    assert (result.status, result.metadata) == (Status.SUCCESS, {})
    assert context.logged[0][0] == Level.WARN


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), StopIteration("x"), KeyError()]
)
async def test_whatever_a_function_raises_is_a_failure_of_its_attempt(error):
    def blocking():
        raise error

    async def polite():
        raise error

    for function in (blocking, polite):
        result = await call(function)
        assert result.status == Status.FAILED
        assert type(error).__name__ in result.message or "StopIteration" in result.message


async def test_a_blocking_function_logs_and_prints_through_the_loop():
    def function(context):
        context.log(f"attempt {context.attempt} of {context.task.id}", Level.ERROR, {"a": 1})
        context.write(Stream.STDERR, b"raw")

    context = RecordingContext(task_of("Local", "f"))
    assert (await call(function, context)).status == Status.SUCCESS
    assert context.logged == [(Level.ERROR, "attempt 1 of t")]
    assert context.text(Stream.STDERR) == "raw"


async def test_hung_functions_starve_nobody_and_are_left_behind():
    release = threading.Event()
    contexts = [RecordingContext(task_of("Local", "f")) for _ in range(50)]
    works = [asyncio.create_task(call(lambda: release.wait(60), each)) for each in contexts]
    await asyncio.sleep(0)
    assert (await call(lambda: None)).status == Status.SUCCESS
    for work in works:
        work.cancel()
    done, _ = await asyncio.wait(works, timeout=5)
    assert all(work.cancelled() for work in done)
    assert len(done) == 50
    assert "left behind" in contexts[0].logged[0][1]
    release.set()


async def test_a_thread_that_was_left_behind_may_say_no_more():
    release, refused = threading.Event(), threading.Event()

    def function(context):
        context.log("begun")
        release.wait(60)
        assert context.is_over
        try:
            context.log("too late")
        except RuntimeError:
            refused.set()

    context = RecordingContext(task_of("Local", "f"))
    work = asyncio.create_task(call(function, context))
    await eventually(lambda: context.logged)
    work.cancel()
    await asyncio.wait({work})
    release.set()
    await eventually(refused.is_set)
    assert "too late" not in str(context.logged)


def test_a_broken_function_harms_only_itself():
    broken = EntryPoint("bad", "no.such.module:f", "taskhub.local_functions")
    local = LocalExecutor([broken, Point(add), Point(3, "number")])
    assert not list(local.check(task_of("Local", "add", exec_params={"a": 1})))
    (problem,) = local.check(task_of("Local", "bad"))
    assert "cannot be loaded: ModuleNotFoundError" in problem.message
    (problem,) = local.check(task_of("Local", "number"))
    assert "cannot be loaded: TypeError" in problem.message


async def test_what_was_not_checked_still_fails_with_a_reason():
    result = await LocalExecutor([]).execute(RecordingContext(task_of("Local", "nothing")))
    assert result.status == Status.FAILED
    assert "unknown function 'nothing'" in result.message
