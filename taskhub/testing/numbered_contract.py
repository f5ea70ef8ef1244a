"""What every `RunStore` has to do, part 4: simple tasks, which are runs with a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import pytest

from taskhub.domain.run import RunHeader, RunStatus
from taskhub.domain.task import Status
from taskhub.errors import ConflictError, UnavailableError
from taskhub.ports.store import Batch, NumberedQuery, RunQuery, RunStore
from taskhub.ports.stores import Stores
from taskhub.testing.faults import Fault, FaultyRunStore
from taskhub.testing.store_samples import (
    NASTY,
    STRIDE,
    T0,
    collect,
    dag,
    header,
    new_run,
    run_id,
    run_update,
    task_update,
    walk,
)


def numbered_header(place: int, number: int, name: str = "", unique_key: str = "") -> RunHeader:
    """Return the header of run `place` as that of simple task `number`."""
    return replace(header(place, name, unique_key), number=number)


def new_task(
    place: int,
    number: int,
    status: Status = Status.PENDING,
    *,
    name: str = "",
    unique_key: str = "",
) -> Batch:
    """Return the batch that makes simple task `number` as run `place`, already in a state."""
    batch = new_run(place, 1)
    batch.new_runs = [(numbered_header(place, number, name, unique_key), dag(1))]
    batch.tasks = [task_update(place, 0, status)] if status is not Status.PENDING else []
    if status.is_final:
        batch.runs = [run_update(place, RunStatus.SUCCESS, T0, T0 + place)]
    return batch


async def numbers(
    store: RunStore, query: NumberedQuery | None = None, limit: int = 2
) -> Sequence[int]:
    """Return the numbers in a list, got in pages."""
    tasks = await collect(partial(store.numbered, query or NumberedQuery(), limit))
    return [task.header.number for task in tasks]


class NumberedContract:
    """Numbers are never given back, and only runs that have one are in the list."""

    async def test_an_empty_store_has_no_numbers(self, stores: Stores) -> None:
        assert await stores.runs.last_number() == 0
        assert await numbers(stores.runs) == []

    async def test_a_run_without_a_number_is_no_task(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1, 1))
        await stores.runs.commit(new_task(2, 7))
        assert await numbers(stores.runs) == [7]
        assert not await numbers(stores.runs, NumberedQuery(number=0))
        assert await stores.runs.last_number() == 7

    async def test_a_task_comes_back_as_it_was(self, stores: Stores) -> None:
        large = 2**53
        await stores.runs.commit(new_task(1, large, Status.FAILED, name=NASTY))
        (task,) = (await stores.runs.numbered(NumberedQuery(), 10)).items
        assert task.header == numbered_header(1, large, NASTY)
        assert (task.task.spec, task.task.state) == (
            dag(1).tasks[0],
            task_update(1, 0, Status.FAILED),
        )

    async def test_the_number_is_part_of_the_header_wherever_it_is_read(
        self, stores: Stores
    ) -> None:
        await stores.runs.commit(new_task(1, 12))
        wanted = numbered_header(1, 12)
        assert (await stores.runs.load(run_id(1)))[0] == wanted
        assert (await stores.runs.run(run_id(1))).header == wanted
        assert [r.header for r in (await stores.runs.runs(RunQuery(), 9)).items] == [wanted]

    async def test_the_last_number_is_the_highest_whatever_the_order(self, stores: Stores) -> None:
        for place, number in ((1, 5), (2, 9), (3, 8)):
            await stores.runs.commit(new_task(place, number))
        assert await stores.runs.last_number() == 9

    async def test_a_batch_raises_the_last_number_without_a_run(self, stores: Stores) -> None:
        for last, expected in ((40, 40), (7, 40), (0, 40), (41, 41)):
            await stores.runs.commit(Batch(last_number=last))
            assert await stores.runs.last_number() == expected
        batch = new_task(1, 3)
        batch.last_number = 50
        await stores.runs.commit(batch)
        assert await stores.runs.last_number() == 50
        assert await numbers(stores.runs) == [3]

    async def test_numbers_survive_the_runs_that_had_them(self, stores: Stores) -> None:
        await stores.runs.commit(new_task(1, 4, Status.SUCCESS))
        await stores.runs.commit(new_task(2, 3, Status.RUNNING))
        assert await stores.runs.expire(T0 + 100) == 1
        assert await numbers(stores.runs) == [3]
        assert await stores.runs.last_number() == 4
        assert not await numbers(stores.runs, NumberedQuery(number=4))
        assert not await numbers(stores.runs, NumberedQuery(status=Status.SUCCESS))

    async def test_a_repeated_commit_changes_nothing(self, stores: Stores) -> None:
        batch = new_task(1, 6, Status.SUCCESS)
        for _ in range(2):
            await stores.runs.commit(batch)
            assert await numbers(stores.runs) == [6]
            assert await stores.runs.last_number() == 6

    @pytest.mark.parametrize("fault", Fault)
    async def test_an_unclear_commit_is_repeated_safely(self, stores: Stores, fault: Fault) -> None:
        store = FaultyRunStore(stores.runs)
        store.fail("commit", fault)
        with pytest.raises(UnavailableError):
            await store.commit(new_task(1, 6))
        await store.commit(new_task(1, 6))
        assert await numbers(store) == [6]
        assert await store.last_number() == 6

    async def test_a_refused_batch_takes_no_number(self, stores: Stores) -> None:
        await stores.runs.commit(new_task(1, 1, unique_key="k"))
        with pytest.raises(ConflictError):
            await stores.runs.commit(new_task(2, 2, unique_key="k"))
        assert await stores.runs.last_number() == 1
        assert await numbers(stores.runs) == [1]

    async def test_tasks_come_by_number_and_not_by_age(self, stores: Stores) -> None:
        for place, number in ((1, 20), (2, 3), (3, 11)):
            await stores.runs.commit(new_task(place, number))
        assert await numbers(stores.runs) == [20, 11, 3]

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7])
    async def test_pages_of_tasks_have_no_holes_and_no_repeats(
        self, stores: Stores, limit: int
    ) -> None:
        for place in range(1, 7):
            await stores.runs.commit(new_task(place, place * 10))
            await stores.runs.commit(new_run(10 + place, 1))
        assert await numbers(stores.runs, limit=limit) == [60, 50, 40, 30, 20, 10]

    async def test_a_page_begins_below_any_cursor(self, stores: Stores) -> None:
        for place in (1, 2, 3):
            await stores.runs.commit(new_task(place, place * 10))
        for before, expected in ((31, [30, 20, 10]), (30, [20, 10]), (15, [10]), (10, []), (1, [])):
            page = await stores.runs.numbered(NumberedQuery(), 10, before)
            assert [task.header.number for task in page.items] == expected
            assert page.next_before is None
        page = await stores.runs.numbered(NumberedQuery(), 1, before=30)
        assert page.next_before == 20

    async def test_a_list_of_tasks_that_grows_moves_no_later_page(self, stores: Stores) -> None:
        for place in (1, 2, 3):
            await stores.runs.commit(new_task(place, place))
        seen, place = [], 4
        async for items in walk(partial(stores.runs.numbered, NumberedQuery(), 1)):
            seen += [task.header.number for task in items]
            await stores.runs.commit(new_task(place, place))
            place += 1
        assert seen == [3, 2, 1]

    async def test_a_task_moves_to_the_list_of_its_new_status(self, stores: Stores) -> None:
        await stores.runs.commit(new_task(1, 5))
        for status in (Status.RUNNING, Status.PENDING, Status.RUNNING, Status.TIMEOUT):
            await stores.runs.commit(Batch(tasks=[task_update(1, 0, status)]))
            for other in Status:
                expected = [5] if other is status else []
                assert await numbers(stores.runs, NumberedQuery(status=other)) == expected

    async def test_tasks_are_filtered_by_every_combination(self, stores: Stores) -> None:
        names = ("Nightly", "nightly build", "Ärger", "100%_sure", "")
        kinds = (Status.PENDING, Status.RUNNING, Status.SUCCESS)
        tasks = {
            n: (kinds[n % 3], names[n % 5]) for n in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
        }
        for place, (number, (status, name)) in enumerate(tasks.items(), 1):
            await stores.runs.commit(new_task(place, number, status, name=name))
        words = (None, "NIGHT", "ly b", "ä", "%", "_", "t_y", "", ".")
        for status, word, wanted in product((None, *Status), words, (None, 7, 8)):
            query = NumberedQuery(status=status, name=word, number=wanted)
            expected = [
                n
                for n, (kind, run_name) in sorted(tasks.items(), reverse=True)
                if wanted in {None, n}
                and status in {None, kind}
                and (word or "").casefold() in run_name.casefold()
            ]
            for limit in (1, 3, 20):
                assert await numbers(stores.runs, query, limit) == expected, query

    async def test_one_batch_may_make_many_tasks(self, stores: Stores) -> None:
        count = 300
        batch = Batch(
            new_runs=[(numbered_header(i, i), dag(1)) for i in range(1, count + 1)],
            runs=[run_update(i) for i in range(1, count + 1)],
        )
        await stores.runs.commit(batch)
        assert await numbers(stores.runs, limit=77) == list(range(count, 0, -1))
        assert await stores.runs.last_number() == count
        assert await stores.runs.last_id() == count * STRIDE + 1
