from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from taskhub.domain.result import Result
from taskhub.domain.secrets import Secrets
from taskhub.ports.executor import Executor
from taskhub.registry import discover, started


class Good(Executor):
    def __init__(self):
        self.calls = []

    async def start(self, settings):
        self.calls.append(("start", dict(settings)))

    async def close(self):
        self.calls.append(("close",))

    async def execute(self, context):
        return Result()


class Dated(Good):
    api_version = 99


class Schemaless(Good):
    parameters = {"type": "objekt"}  # noqa: RUF012  # as a careless author has it


class Unbuildable(Good):
    def __init__(self):
        raise SystemExit("no licence")


class Abstract(Executor): ...


class FailsToStart(Good):
    async def start(self, settings):
        raise SystemExit("port taken")


class HangsAtStart(Good):
    async def start(self, settings):
        await asyncio.Event().wait()


class FailsToClose(Good):
    async def close(self):
        raise OSError("lost")


class HangsAtClose(Good):
    async def close(self):
        await asyncio.Event().wait()


class TimesOutItself(Good):
    async def start(self, settings):
        raise TimeoutError("no answer from the licence server")


class TellsItsSettings(Good):
    async def start(self, settings):
        raise RuntimeError(f"no such account: {settings['my_pin']}")


class TimesOutTelling(Good):
    async def start(self, settings):
        raise TimeoutError(f"no such account: {settings['my_pin']}")


def point(name, kind, source="plugin", version="1.2"):
    def load():
        if isinstance(kind, Exception):
            raise kind
        return kind

    dist = SimpleNamespace(name=source, version=version)
    return SimpleNamespace(name=name, value=f"{source}:{name}", dist=dist, load=load)


def test_the_built_in_executors_are_found_like_any_other():
    found = discover()
    assert {"local", "shell"} <= found.keys()
    assert found["shell"].name == "Shell"
    assert found["shell"].source == "taskhub"
    assert found["shell"].executor is not None


def test_a_plugin_is_listed_by_its_lower_case_name_with_its_version():
    row = discover([point("HttpCall", Good)])["httpcall"]
    assert (row.name, row.source, row.version, row.error) == ("HttpCall", "plugin", "1.2", None)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (ImportError("no module named x"), "ImportError: no module named x"),
        (Unbuildable, "SystemExit: no licence"),
        (Abstract, "TypeError"),
        (dict, "dict is not an Executor"),
        (Dated, "made for plugin API 99, this TaskHub has 1"),
        (Schemaless, "parameters is no JSON Schema: 'objekt'"),
    ],
)
def test_a_broken_plugin_is_a_row_that_says_why(kind, error, caplog):
    found = discover([point("Bad", kind), point("Good", Good)])
    assert found["good"].executor is not None
    assert found["bad"].executor is None
    assert error in found["bad"].error
    assert [record.message for record in caplog.records] == ["executor not loaded"]


def test_nobody_takes_a_name_from_taskhub():
    found = discover([point("SHELL", Good, "aaa"), point("Shell", Good, "taskhub")])
    assert found["shell"].source == "taskhub"
    assert found["shell (aaa)"].error == "the name SHELL is taken by taskhub"
    assert found["shell (aaa)"].executor is None


async def test_each_executor_is_started_with_its_own_settings_and_closed():
    found = discover([point("Good", Good), point("Bad", dict)])
    async with started(found, {"Good": {"a": 1}, "other": {"b": 2}}) as rows:
        executor = rows["good"].executor
        assert executor.calls == [("start", {"a": 1})]
        assert rows["bad"] == found["bad"]
    assert executor.calls[1:] == [("close",)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailsToStart, "start: SystemExit: port taken"),
        (HangsAtStart, "start took longer than 0.05 s"),
        (TimesOutItself, "start: TimeoutError: no answer from the licence server"),
    ],
)
async def test_a_failing_start_breaks_that_one_only(kind, error):
    found = discover([point("Bad", kind), point("Good", Good)])
    async with started(found, {}, start_s=0.05) as rows:
        assert (rows["bad"].executor, rows["bad"].error) == (None, error)
        good = rows["good"].executor
    assert good.calls[-1] == ("close",)


@pytest.mark.parametrize("kind", [TellsItsSettings, TimesOutTelling])
async def test_a_failing_start_does_not_repeat_a_secret_of_the_settings(kind, caplog):
    caplog.set_level("DEBUG")
    found = discover([point("Bad", kind)])
    settings = {"bad": {"my_pin": "hunter2"}}
    async with started(found, settings, secrets=Secrets(["*_pin"])) as rows:
        assert rows["bad"].error.endswith("Error: no such account: ***")
    told = [str(vars(record)) + str(record.exc_info) for record in caplog.records]
    assert any("***" in line for line in told)
    assert not any("hunter2" in line for line in told)


@pytest.mark.parametrize("kind", [FailsToClose, HangsAtClose])
async def test_a_failing_close_does_not_keep_others_open(kind):
    found = discover([point("Bad", kind), point("Good", Good), point("Zbad", kind)])
    async with started(found, {}, close_s=0.05) as rows:
        good = rows["good"].executor
    assert good.calls[-1] == ("close",)


async def test_what_was_started_is_closed_when_the_server_fails():
    found = discover([point("Good", Good)])
    with pytest.raises(ZeroDivisionError):
        async with started(found, {}):
            raise ZeroDivisionError
    assert found["good"].executor.calls[-1] == ("close",)
