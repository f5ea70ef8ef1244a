"""What pytest-tornasync lacks: a loop for every test, async fixtures, a time limit, no leaks.

Put `pytest_plugins = ["taskhub.testing.pytest_async"]` into your top conftest.py.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

TIMEOUT_S = 60.0


def pytest_collection_finish() -> None:
    """Leave what was imported out of the collections that every async test ends with."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop | None]:
    """Give an async test (and its async fixtures) one loop; fail the test if it leaks tasks."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield None
        return
    if request.config.option.async_test_timeout is None:
        request.config.option.async_test_timeout = TIMEOUT_S
    asyncio_loop = asyncio.new_event_loop()
    loop = IOLoop(asyncio_loop=asyncio_loop, make_current=False)
    problems: list[str] = []
    asyncio_loop.set_exception_handler(lambda _, context: problems.append(_describe(context)))
    yield loop
    leaked = [task for task in asyncio.all_tasks(asyncio_loop) if not task.done()]
    for task in leaked:
        task.cancel()
    loop.run_sync(lambda: asyncio.sleep(0))
    gc.collect()  # a task that failed unseen speaks up when it is collected
    gc.freeze()  # what is left are modules; the next collection need not walk them again
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_asyncgens())
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_default_executor())
    loop.close()
    if leaked:
        problems.append(f"tasks left running: {[task.get_name() for task in leaked]}")
    if problems:
        pytest.fail("; ".join(problems))


def _describe(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


@pytest.fixture(autouse=True, scope="module")
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = []
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
        if thread.is_alive():
            left.append(thread.name)
    assert not left, f"threads left running: {left}"


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> object | None:
    """Run `async def` fixtures on the test's loop; a generator lives in one task of its own."""
    function = fixturedef.func
    if inspect.isasyncgenfunction(function):
        enter: Callable[..., Awaitable[Any]] = _start_generator
    elif inspect.iscoroutinefunction(function):
        enter = _call
    else:
        return None
    loop = request.getfixturevalue("io_loop")
    if loop is None:
        pytest.fail(f"async fixture {fixturedef.argname} in a test that is not async")
    arguments = {name: request.getfixturevalue(name) for name in fixturedef.argnames}
    instance = request.instance
    if instance is not None and "self" in inspect.signature(function).parameters:
        function = function.__get__(instance)

    async def run() -> Any:  # noqa: ANN401
        return await enter(loop, function, fixturedef, arguments)

    value = loop.run_sync(run, timeout=TIMEOUT_S)
    fixturedef.cached_result = (value, fixturedef.cache_key(request), None)  # type: ignore[arg-type]
    return value if value is not None else _NOTHING


_NOTHING = object()


async def _call(_loop: IOLoop, function: Any, _fixture: Any, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
    return await function(**arguments)


async def _start_generator(
    loop: IOLoop,
    function: Any,  # noqa: ANN401
    fixturedef: Any,  # noqa: ANN401
    arguments: dict[str, Any],
) -> Any:  # noqa: ANN401
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def live() -> None:
        generator = function(**arguments)
        try:
            ready.set_result(await anext(generator))
        except BaseException as exc:  # noqa: BLE001  # belongs to the test that asked
            ready.set_exception(exc)
            return
        await over.wait()
        async for _ in generator:
            raise AssertionError(f"fixture {fixturedef.argname} yields twice")

    task = asyncio.get_running_loop().create_task(live(), name=f"fixture {fixturedef.argname}")

    def finish() -> None:
        async def wait() -> None:
            over.set()
            await task

        loop.run_sync(wait, timeout=TIMEOUT_S)

    fixturedef.addfinalizer(finish)
    return await ready
