from __future__ import annotations

import asyncio

import pytest

from taskhub.domain.dag import DagSpec
from taskhub.domain.run import Source
from taskhub.domain.task import Status
from taskhub.engine.bus import Topic
from taskhub.errors import ConflictError, NotFoundError, UnavailableError
from taskhub.plugin_api import Result
from taskhub.ports.store import Batch, NumberedQuery
from taskhub.services.history import OUTPUT_BUDGET
from taskhub.testing.faults import Fault
from tests.unit.engine.conftest import task as dag_task
from tests.unit.services.simple_tasks import World, spec


@pytest.fixture
async def world():
    world = await World().start()
    yield world
    await world.engine.kill()


async def test_a_task_is_a_run_of_one_task_under_its_number(world):
    number = await world.tasks.submit(spec("mine", kind=3, params={"a": 1}), owner="ann")
    task = await world.tasks.get(number)
    header = task.header
    assert (number, task.number, header.name, header.owner) == (1, 1, "mine", "ann")
    assert (header.source, task.row.spec.id, task.asked) == (Source.TASK, "1", (3, {"a": 1}))


async def test_numbers_are_given_once_also_after_a_crash(world):
    assert [await world.tasks.submit(spec()) for _ in range(3)] == [1, 2, 3]
    await world.restart()
    assert await world.tasks.submit(spec()) == 4


async def test_numbers_of_expired_tasks_do_not_come_back(world):
    world.script.instant = Result()
    number = await world.tasks.submit(spec())
    await world.ended(number)
    await world.stores.runs.expire(world.clock.now_ms() + 1)
    await world.restart()
    assert await world.tasks.submit(spec()) == number + 1
    with pytest.raises(NotFoundError):
        await world.tasks.get(number)


async def test_a_server_that_becomes_active_late_goes_on_behind_the_other(world):
    await world.stores.runs.commit(Batch(last_number=41))
    await world.tasks.load()
    assert await world.tasks.submit(spec()) == 42
    await world.tasks.load()
    assert await world.tasks.submit(spec()) == 43


async def test_a_submission_that_fails_leaves_a_gap_and_nothing_that_is_followed(world):
    world.store.fail("check_room", Fault.REFUSED)
    with pytest.raises(UnavailableError):
        await world.tasks.submit(spec())
    await world.engine.supervisor.stop(0)
    with pytest.raises(UnavailableError):
        await world.tasks.submit(spec())
    assert len(world.changes) == 0
    assert not world.engine.bus.events.has_subscribers
    await world.restart()
    assert await world.tasks.submit(spec()) == 1, "what was not stored was given to nobody"


async def test_the_same_key_gives_the_same_number(world):
    numbers = await asyncio.gather(*(world.tasks.submit(spec(), key="k") for _ in range(3)))
    again = await world.tasks.submit(spec("other"), key="k")
    assert {*numbers, again} == {numbers[0]}
    assert await world.tasks.submit(spec(), key="l") not in numbers
    await world.restart()
    assert await world.tasks.submit(spec(), key="k") == numbers[0]


async def test_a_key_is_for_a_task_or_for_a_dag(world):
    await world.tasks.submit(spec(), key="task")
    await world.runs.submit(_dag(), key="dag")
    with pytest.raises(ConflictError):
        await world.runs.submit(_dag(), key="task")
    with pytest.raises(ConflictError):
        await world.tasks.submit(spec(), key="dag")


def _dag():
    return DagSpec(name="d", tasks=(dag_task("a"),))


async def test_a_task_shows_each_state_it_is_in(world):
    number = await world.tasks.submit(spec(retry_count=1, retry_delay_ms=1000))
    await world.engine.until_started("1#1")
    created = (await world.tasks.get(number)).header.created_ms
    await world.clock.advance(2)
    world.script.end("1#1", Result.failed("no", 3))
    await world.engine.until(world.engine.is_idle)
    waiting = await world.tasks.get(number)
    assert (waiting.row.state.status, waiting.row.state.exit_code) == (Status.PENDING, 3)
    assert waiting.updated_ms == created + 2000
    await world.clock.advance(1)
    await world.engine.until_started("1#2")
    running = await world.tasks.get(number)
    assert (running.row.state.status, running.row.state.attempt) == (Status.RUNNING, 2)
    assert running.updated_ms == created + 3000
    await world.clock.advance(4)
    world.script.end("1#2")
    ended = await world.ended(number)
    assert (ended.row.state.status, ended.updated_ms) == (Status.SUCCESS, created + 7000)
    assert not ended.cancel_requested


async def test_a_cancel_is_seen_at_once_and_for_ever(world):
    number = await world.tasks.submit(spec())
    await world.engine.until_started("1#1")
    await world.tasks.cancel(number, by="ann")
    ended = await world.ended(number)
    assert (ended.row.state.status, ended.cancel_requested) == (Status.CANCELED, True)
    with pytest.raises(ConflictError):
        await world.tasks.cancel(number, by="ann")
    with pytest.raises(NotFoundError):
        await world.tasks.cancel(99, by="ann")


async def test_a_cancel_that_came_too_late_is_still_shown(world):
    world.script.ignores_cancel = True
    number = await world.tasks.submit(spec())
    await world.engine.until_started("1#1")
    await world.tasks.cancel(number, by="ann")
    task = await world.tasks.get(number)
    assert (task.row.state.status, task.cancel_requested) == (Status.RUNNING, True)
    world.script.end("1#1")
    ended = await world.ended(number)
    assert (ended.row.state.status, ended.cancel_requested) == (Status.SUCCESS, True)


async def test_a_cancel_of_its_run_or_its_task_is_a_cancel_too(world):
    for number, task_id in ((1, None), (2, "2")):
        await world.tasks.submit(spec())
        run_id = (await world.tasks.get(number)).header.run_id
        await world.runs.cancel(run_id, by="ann", task_id=task_id)
        assert (await world.ended(number)).cancel_requested


async def test_a_dag_keeps_no_flag(world):
    run_id = await world.runs.submit(_dag())
    await world.runs.cancel(run_id, by="ann")
    view = await world.runs.wait(run_id)
    assert view.tasks[0].row.state.metadata == {}


async def test_lists_come_newest_first_and_filtered(world):
    world.script.instant = Result()
    for name in ("Alpha", "beta", "alphabet"):
        await world.ended(await world.tasks.submit(spec(name)))
    await world.runs.submit(_dag())
    page = await world.tasks.page(NumberedQuery(name="ALPHA"), 10, None)
    assert [t.number for t in page.items] == [3, 1]
    page = await world.tasks.page(NumberedQuery(status=Status.SUCCESS), 2, None)
    assert ([t.number for t in page.items], page.next_before) == ([3, 2], 2)
    assert (await world.tasks.page(NumberedQuery(status=Status.FAILED), 2, None)).items == []


async def test_a_page_of_much_output_ends_early_and_the_next_goes_on(world):
    world.script.instant = Result()
    world.script.output = b"x" * 60_000
    count = 250
    for _ in range(count):
        await world.ended(await world.tasks.submit(spec()))
    seen, before, pages = [], None, 0
    while True:
        page = await world.tasks.page(NumberedQuery(), 1000, before)
        assert sum(task.size for task in page.items) < OUTPUT_BUDGET + 2_000_000
        seen += [task.number for task in page.items]
        before, pages = page.next_before, pages + 1
        if before is None:
            break
    assert seen == list(range(count, 0, -1))
    assert pages == 2


async def test_a_page_of_large_params_ends_early(world):
    world.script.instant = Result()
    params = {"text": "x" * 200_000}
    for _ in range(60):
        await world.ended(await world.tasks.submit(spec(params=params)))
    page = await world.tasks.page(NumberedQuery(), 1000, None)
    assert (len(page.items), page.next_before) == (50, 11)


async def test_what_is_followed_is_let_go_at_its_end(world):
    number = await world.tasks.submit(spec())
    run_id = (await world.tasks.get(number)).header.run_id
    await world.runs.submit(_dag())
    assert len(world.changes) == 1, "a DAG is nobody's business here"
    await world.engine.until_started("1#1")
    world.script.end("1#1")
    await world.ended(number)
    assert len(world.changes) == 0
    world.engine.bus.events.remove(Topic("", run_id), print)  # unknown subscribers are fine
    assert not world.engine.bus.events.has_subscribers


async def test_nothing_is_noted_while_nobody_listens(world):
    world.script.instant = Result()
    await world.ended(await world.tasks.submit(spec()))
    assert (len(world.hub.bulletin), world.hub.bulletin.last) == (0, 0)


async def test_tasks_of_an_earlier_server_are_followed(world):
    number = await world.tasks.submit(spec(idempotent=True))
    await world.engine.until_started("1#1")
    await world.restart()
    assert len(world.changes) == 1
    await world.clock.advance(2)
    await world.engine.until_started("1#2")
    world.script.end("1#2")
    assert (await world.ended(number)).row.state.status is Status.SUCCESS
    assert len(world.changes) == 0
