from __future__ import annotations

import asyncio

import pytest

from taskhub.engine.loops import Loops
from taskhub.errors import SupersededError


@pytest.fixture
async def loops():
    loops = Loops()
    yield loops
    await loops.close()


async def failing(error):
    raise error


async def returning():
    return


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("loop", [returning, lambda: failing(ValueError("x"))])
async def test_a_loop_that_ends_stops_the_server_and_is_logged(loops, loop, caplog):
    loops.start("one", loop())
    await loops.wait_for_death()
    assert [(r.message, r.loop) for r in caplog.records] == [("loop died, server stops", "one")]
    assert not loops.is_superseded


async def test_one_that_may_end_does_no_harm_by_it(loops, caplog):
    loops.start("one", returning(), may_end=True)
    await settle()
    assert not loops.is_dead
    assert caplog.records == []


async def test_one_that_may_end_may_not_fail(loops):
    loops.start("one", failing(ValueError("x")), may_end=True)
    await loops.wait_for_death()
    assert loops.is_dead


async def test_being_superseded_is_one_line_however_many_hear_of_it(loops, caplog):
    loops.start("one", failing(SupersededError("x")))
    loops.start("two", failing(SupersededError("x")))
    await settle()
    assert loops.is_dead
    assert loops.is_superseded
    assert [r.message for r in caplog.records] == ["another server has taken over, this one stops"]
