"""What every `RunStore` has to do, part 2: lists, their filters and their pages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import pytest

from taskhub.domain.event import Event, EventName
from taskhub.ports.store import Batch, EventQuery, RunQuery, RunStore, TaskQuery
from taskhub.ports.stores import Stores
from taskhub.testing.store_samples import (
    T0,
    collect,
    ended_run,
    event,
    new_run,
    run_id,
    task_run_id,
    walk,
)


class RunListContract:
    """Newest first, every item once, filters by what they say and nothing else."""

    async def test_runs_come_newest_first(self, stores: Stores) -> None:
        for number in (2, 5, 1):
            await stores.runs.commit(new_run(number))
        page = await stores.runs.runs(RunQuery(), 10)
        assert [row.header.run_id for row in page.items] == [run_id(n) for n in (5, 2, 1)]
        assert page.next_before is None

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7])
    async def test_pages_have_no_holes_and_no_repeats(self, stores: Stores, limit: int) -> None:
        for number in range(1, 7):
            await stores.runs.commit(new_run(number, 1))
        runs = await collect(partial(stores.runs.runs, RunQuery(), limit))
        tasks = await collect(partial(stores.runs.task_runs, TaskQuery(), limit))
        events = await collect(partial(stores.runs.events, EventQuery(), limit))
        newest_first = [run_id(number) for number in range(6, 0, -1)]
        assert [row.header.run_id for row in runs] == newest_first
        assert [row.state.run_id for row in tasks] == newest_first
        assert [row.run_id for row in events] == newest_first

    async def test_a_list_that_grows_moves_no_later_page(self, stores: Stores) -> None:
        seen = []
        for number in (1, 2, 3, 4):
            await stores.runs.commit(new_run(number))
        number = 5
        async for items in walk(partial(stores.runs.runs, RunQuery(), 2)):
            seen += [row.header.run_id for row in items]
            await stores.runs.commit(new_run(number))
            number += 1
        assert seen == [run_id(n) for n in (4, 3, 2, 1)]

    async def test_a_cursor_need_not_exist(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        await stores.runs.commit(new_run(2))
        cursor = task_run_id(2, 0) - 1
        assert len((await stores.runs.runs(RunQuery(), 9, before=cursor + 1)).items) == 2
        assert len((await stores.runs.task_runs(TaskQuery(), 9, before=cursor)).items) == 2
        query = EventQuery(run_id=run_id(1))
        assert len((await stores.runs.events(query, 9, before=cursor)).items) == 1
        assert not (await stores.runs.events(query, 9, before=1)).items

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("nightly", [1, 2]),
            ("NIGHT", [1, 2]),
            ("ly b", [2]),
            ("ä", [3]),
            ("ÄRGER", [3]),
            ("%", [4]),
            ("_", [4]),
            ("t_y", []),
            ("", [1, 2, 3, 4, 5]),
            ("\\", [5]),
            ("*", []),
            (".", []),
        ],
    )
    async def test_a_name_is_a_substring_without_wildcards(
        self, stores: Stores, name: str, found: list[int]
    ) -> None:
        names = ("Nightly", "nightly build", "Ärger", "100%_sure", "back\\slash [x]")
        for number, run_name in enumerate(names, 1):
            await stores.runs.commit(new_run(number, name=run_name))
        assert await _numbers(stores.runs, RunQuery(name=name)) == found

    async def test_runs_are_filtered_by_start_time_inclusively(self, stores: Stores) -> None:
        for number in (1, 2, 3, 4):
            await stores.runs.commit(ended_run(number, T0, T0 - number, name=f"n{number % 2}"))
        for query, found in (
            (RunQuery(start_ts_ms=T0 - 2), [1, 2]),
            (RunQuery(end_ts_ms=T0 - 3), [3, 4]),
            (RunQuery(start_ts_ms=T0 - 3, end_ts_ms=T0 - 2), [2, 3]),
            (RunQuery(start_ts_ms=T0 - 3, end_ts_ms=T0 - 2, name="N1"), [3]),
            (RunQuery(run_id=run_id(4), start_ts_ms=T0 - 2), []),
            (RunQuery(run_id=run_id(4), name="n0", end_ts_ms=T0), [4]),
            (RunQuery(run_id="nobody"), []),
        ):
            assert await _numbers(stores.runs, query) == found, query

    async def test_task_runs_are_filtered_by_run_and_exact_name(self, stores: Stores) -> None:
        for number in (1, 2):
            await stores.runs.commit(new_run(number, 3))
        for query, found in (
            (TaskQuery(run_id=run_id(1)), [(1, 2), (1, 1), (1, 0)]),
            (TaskQuery(name="name1"), [(2, 1), (1, 1)]),
            (TaskQuery(run_id=run_id(2), name="name1"), [(2, 1)]),
            (TaskQuery(name="name"), []),
            (TaskQuery(name="NAME1"), []),
            (TaskQuery(name="name_"), []),
            (TaskQuery(run_id="nobody"), []),
        ):
            for limit in (1, 2, 10):
                rows = await collect(partial(stores.runs.task_runs, query, limit))
                ids = [row.state.id for row in rows]
                assert ids == [task_run_id(*place) for place in found], query

    async def test_events_are_filtered_by_every_combination(self, stores: Stores) -> None:
        events = await _many_events(stores.runs)
        for run, task, name, start, end in product(
            (None, run_id(1), run_id(3), "nobody"),
            (None, "", "t1", "T1"),
            (None, EventName.NODE_READY, EventName.RUN_END),
            (None, T0 + 2),
            (None, T0 + 4),
        ):
            query = EventQuery(
                run_id=run, task_id=task, event=name, start_ts_ms=start, end_ts_ms=end
            )
            expected = [e for e in reversed(events) if _matches(query, e)]
            assert await collect(partial(stores.runs.events, query, 7)) == expected, query

    async def test_events_of_runs_that_are_stored_one_after_the_other_come_in_order(
        self, stores: Stores
    ) -> None:
        """As a migration stores them: the ids of each run lie between those of the others."""
        stored = []
        for number in (1, 2, 3):
            events = [
                event(number, seq, task_id="t1", ts_ms=T0 + seq)._replace(
                    id=1000 + 3 * seq + number
                )
                for seq in range(1, 40)
            ]
            await stores.runs.commit(Batch(new_runs=new_run(number).new_runs))
            await stores.runs.commit(Batch(events=events))
            stored += events
        stored.sort(key=lambda e: -e.id)
        for query in (
            EventQuery(),
            EventQuery(task_id="t1"),
            EventQuery(event=EventName.NODE_READY, start_ts_ms=T0 + 3, end_ts_ms=T0 + 30),
        ):
            expected = [e for e in stored if _matches(query, e)]
            assert await collect(partial(stores.runs.events, query, 7)) == expected


async def _many_events(store: RunStore) -> Sequence[Event]:
    for number in (1, 2, 3):
        await store.commit(Batch(new_runs=new_run(number).new_runs, runs=new_run(number).runs))
    names = (EventName.NODE_READY, EventName.TASK_START, EventName.TASK_END)
    tasks = ("t1", "t2", "")
    events = [
        event(1 + i % 3, 1 + i // 3, names[i % 2 + i % 5 // 3], tasks[i % 7 // 3], T0 + i % 6)
        for i in range(60)
    ]
    events = [e._replace(id=i) for i, e in enumerate(events, 1000)]
    await store.commit(Batch(events=events))
    return events


def _matches(query: EventQuery, e: Event) -> bool:
    return (
        query.run_id in {None, e.run_id}
        and query.task_id in {None, e.task_id}
        and query.event in {None, e.name}
        and (query.start_ts_ms or e.ts_ms) <= e.ts_ms <= (query.end_ts_ms or e.ts_ms)
    )


async def _numbers(store: RunStore, query: RunQuery) -> list[int]:
    rows = await collect(partial(store.runs, query, 2))
    return sorted(row.header.ord // 100_000 for row in rows)
