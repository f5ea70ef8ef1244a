"""What every `RunStore` has to do, part 1: what is written is there, once and whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from taskhub.domain.event import EventName
from taskhub.domain.result import NO_EXIT_CODE, Output
from taskhub.domain.run import RunStatus
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.errors import ConflictError, NotFoundError, UnavailableError
from taskhub.ports.store import (
    Batch,
    EventQuery,
    RunQuery,
    TaskOutput,
    TaskQuery,
    TaskUpdate,
)
from taskhub.ports.stores import Stores
from taskhub.testing.faults import Fault, FaultyRunStore
from taskhub.testing.store_samples import (
    EMPTY,
    INT64_MAX,
    INT64_MIN,
    NASTY,
    T0,
    dag,
    event,
    full_batch,
    header,
    new_run,
    run_id,
    run_update,
    snapshot,
    task_run_id,
    task_update,
)


class RunCommitContract:
    """Atomicity, idempotence, keys and lookups."""

    async def test_an_empty_store_has_nothing(self, stores: Stores) -> None:
        assert await stores.runs.last_id() == 0
        assert list(await stores.runs.active()) == []
        assert await snapshot(stores.runs, 1) == EMPTY
        assert (await stores.runs.outputs([])) == {}

    async def test_what_is_not_there_is_not_found(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        with pytest.raises(NotFoundError):
            await stores.runs.load("nobody")
        with pytest.raises(NotFoundError):
            await stores.runs.run("nobody")
        assert await stores.runs.run_by_key("nobody") is None
        assert await stores.runs.run_by_key("") is None
        assert list(await stores.runs.history("nobody")) == []

    async def test_a_new_run_is_there_whole(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1, 3))
        assert await stores.runs.load(run_id(1)) == (header(1), dag(3))
        row = await stores.runs.run(run_id(1))
        assert (row.header, row.total, row.state) == (header(1), 3, run_update(1))
        tasks = (await stores.runs.task_runs(TaskQuery(run_id=run_id(1)), 10)).items
        assert [task.spec for task in tasks] == list(reversed(dag(3).tasks))
        assert list(await stores.runs.history(run_id(1))) == [event(1, 1, EventName.RUN_START)]

    async def test_a_task_without_update_is_pending(self, stores: Stores) -> None:
        batch = new_run(1)
        batch.tasks = [task_update(1, 1)]
        await stores.runs.commit(batch)
        last, first = (await stores.runs.task_runs(TaskQuery(), 10)).items
        i = task_run_id(1, 0)
        pending = TaskUpdate(i, run_id(1), "t0", Status.PENDING, 0, NO_EXIT_CODE, 0, "", 0, 0, {})
        assert first.state == pending
        assert last.state == task_update(1, 1)

    async def test_updates_replace_what_was(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        run = run_update(1, RunStatus.FAILED, T0 + 1, T0 + 2)
        await stores.runs.commit(Batch(runs=[run], tasks=[task_update(1, 0, Status.FAILED)]))
        assert (await stores.runs.run(run_id(1))).state == run
        page = await stores.runs.task_runs(TaskQuery(name="name0"), 10)
        assert page.items[0].state == task_update(1, 0, Status.FAILED)

    async def test_outputs_are_kept_apart_and_replaced(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        first, second = task_run_id(1, 0), task_run_id(1, 1)
        for text in ("old", NASTY):
            output = TaskOutput(first, run_id(1), Output(stdout=text, stderr=text * 2))
            await stores.runs.commit(Batch(outputs=[output]))
        expected = {first: Output(stdout=NASTY, stderr=NASTY * 2)}
        assert await stores.runs.outputs([first, second, 12345]) == expected

    async def test_any_text_and_number_comes_back_as_it_was(self, stores: Stores) -> None:
        values: dict[str, JSON] = {
            "n": [INT64_MAX, INT64_MIN, 0.1, None, True],
            NASTY: {NASTY: NASTY},
            "12": "12",
        }
        task = TaskSpec(
            id="Ä", name=NASTY, exec_type="X", exec_params=values, priority=INT64_MIN,
            timeout_ms=INT64_MAX, metadata=values, idempotent=True,
        )  # fmt: skip
        spec = replace(dag(), name=NASTY, tasks=(task,), max_parallel=INT64_MAX)
        batch = Batch(new_runs=[(replace(header(1, NASTY), owner=NASTY), spec)])
        batch.runs = [run_update(1)._replace(message=NASTY, start_ts_ms=INT64_MIN)]
        batch.tasks = [task_update(1, 0)._replace(task_id="Ä", message=NASTY, metadata=values)]
        batch.events = [event(1, 1, EventName.TASK_END, "Ä", INT64_MAX, values)]
        await stores.runs.commit(batch)
        assert await stores.runs.load(run_id(1)) == batch.new_runs[0]
        assert (await stores.runs.run(run_id(1))).state == batch.runs[0]
        row = (await stores.runs.task_runs(TaskQuery(), 1)).items[0]
        assert (row.spec, row.state) == (task, batch.tasks[0])
        assert list((await stores.runs.events(EventQuery(), 1)).items) == batch.events

    async def test_the_same_batch_twice_is_as_once(self, stores: Stores) -> None:
        batch = full_batch(1)
        await stores.runs.commit(batch)
        once = await snapshot(stores.runs, 1)
        await stores.runs.commit(batch)
        assert await snapshot(stores.runs, 1) == once

    @pytest.mark.parametrize("fault", list(Fault))
    async def test_a_batch_repeated_after_an_error_is_stored_once(
        self, stores: Stores, fault: Fault
    ) -> None:
        faulty = FaultyRunStore(stores.runs)
        for batch in (full_batch(1), Batch(tasks=[task_update(1, 1)], events=[event(1, 3)])):
            faulty.fail("commit", fault)
            with pytest.raises(UnavailableError):
                await faulty.commit(batch)
            await faulty.commit(batch)
        assert [e.seq for e in await stores.runs.history(run_id(1))] == [1, 2, 3]
        assert len((await stores.runs.runs(RunQuery(), 10)).items) == 1
        assert len((await stores.runs.task_runs(TaskQuery(), 10)).items) == 2

    async def test_a_repeated_batch_may_come_with_more(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        await stores.runs.commit(full_batch(1))
        assert (await stores.runs.run(run_id(1))).state == full_batch(1).runs[0]
        assert (await stores.runs.task_runs(TaskQuery(), 10)).items[1].state == task_update(1, 0)

    async def test_an_event_stored_stays(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        other = event(1, 1, EventName.RUN_END)
        await stores.runs.commit(Batch(events=[other, event(1, 2)]))
        names = [e.name for e in await stores.runs.history(run_id(1))]
        assert names == [EventName.RUN_START, EventName.NODE_READY]

    async def test_a_taken_key_is_a_conflict_and_nothing_is_written(self, stores: Stores) -> None:
        await stores.runs.commit(full_batch(1, unique_key="k"))
        before = await snapshot(stores.runs, 1), await snapshot(stores.runs, 2)
        batch = full_batch(2, unique_key="k")
        batch.new_runs.append((header(3), dag()))
        batch.runs += [run_update(3), run_update(1, RunStatus.FAILED)]
        batch.events.append(event(1, 9))
        with pytest.raises(ConflictError):
            await stores.runs.commit(batch)
        assert (await snapshot(stores.runs, 1), await snapshot(stores.runs, 2)) == before
        assert await snapshot(stores.runs, 3) == EMPTY
        await stores.runs.commit(full_batch(2, unique_key="other"))

    async def test_two_new_runs_cannot_share_a_key(self, stores: Stores) -> None:
        batch = new_run(1, unique_key="k")
        batch.new_runs.append((header(2, unique_key="k"), dag()))
        with pytest.raises(ConflictError):
            await stores.runs.commit(batch)
        assert await snapshot(stores.runs, 1) == EMPTY

    async def test_a_run_keeps_its_key(self, stores: Stores) -> None:
        for _ in range(2):
            await stores.runs.commit(new_run(1, unique_key=NASTY))
        assert await stores.runs.run_by_key(NASTY) == run_id(1)
        assert await stores.runs.run_by_key(NASTY.casefold()) is None

    async def test_no_key_is_no_conflict(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        await stores.runs.commit(new_run(2))
        assert len(await stores.runs.active()) == 2

    async def test_the_last_id_is_the_highest_of_all_kinds(self, stores: Stores) -> None:
        for batch, highest in (
            (Batch(new_runs=[(replace(header(1), ord=10, first_task_id=1), dag())]), 10),
            (Batch(new_runs=[(replace(header(2), ord=11, first_task_id=20), dag())]), 21),
            (Batch(events=[event(1, 1)._replace(id=2**53 - 1)]), 2**53 - 1),
        ):
            batch.runs = [run_update(number) for number in (1, 2)][: len(batch.new_runs)]
            await stores.runs.commit(batch)
            assert await stores.runs.last_id() == highest

    async def test_epochs_count_starts(self, stores: Stores) -> None:
        assert await stores.runs.open_epoch("a", T0) == 1
        assert await stores.runs.open_epoch("b", T0) == 2
        assert await stores.runs.open_epoch("b", T0) == 2, "the call was repeated"
        assert await stores.runs.open_epoch("c", T0 - 1) == 3

    async def test_active_runs_come_oldest_first(self, stores: Stores) -> None:
        for number in (3, 1, 2, 4):
            await stores.runs.commit(new_run(number))
        await stores.runs.commit(Batch(runs=[run_update(2, RunStatus.CANCELED, T0, T0)]))
        assert list(await stores.runs.active()) == [run_id(1), run_id(3), run_id(4)]

    async def test_history_comes_in_order_and_in_parts(self, stores: Stores) -> None:
        await stores.runs.commit(new_run(1))
        await stores.runs.commit(Batch(events=[event(1, seq) for seq in range(2, 12)]))
        await stores.runs.commit(Batch(events=[event(2, 1)]))
        seqs = [e.seq for e in await stores.runs.history(run_id(1), after=3, limit=5)]
        assert seqs == [4, 5, 6, 7, 8]
        assert len(await stores.runs.history(run_id(1))) == 11
        assert list(await stores.runs.history(run_id(1), after=11)) == []

    async def test_a_run_of_10000_tasks_is_one_batch(self, stores: Stores) -> None:
        batch = new_run(1, 10_000)
        batch.tasks = [task_update(1, index) for index in range(0, 10_000, 2)]
        batch.events = [event(1, seq) for seq in range(1, 10_001)]
        await stores.runs.commit(batch)
        await stores.runs.commit(Batch(tasks=[task_update(1, i) for i in range(1, 10_000, 2)]))
        assert (await stores.runs.load(run_id(1)))[1] == dag(10_000)
        assert len(await stores.runs.history(run_id(1))) == 10_000
        tasks = (await stores.runs.task_runs(TaskQuery(run_id=run_id(1)), 20_000)).items
        assert {task.state.status for task in tasks} == {Status.SUCCESS}
        assert len(tasks) == 10_000

    async def test_a_reader_never_sees_half_a_batch(self, stores: Stores) -> None:
        async def write() -> None:
            for number in range(1, 40):
                await stores.runs.commit(full_batch(number))

        writer = asyncio.create_task(write(), name="writer")
        while not writer.done():
            await asyncio.sleep(0)
            for row in (await stores.runs.runs(RunQuery(), 1)).items:
                page = await stores.runs.task_runs(TaskQuery(run_id=row.header.run_id), 10)
                assert len(page.items) == 2
                assert len(await stores.runs.history(row.header.run_id)) == 2
        await writer

    async def test_a_cancelled_commit_is_whole_or_not_there(self, stores: Stores) -> None:
        for number in range(1, 20):
            commit = asyncio.create_task(stores.runs.commit(full_batch(number)), name="commit")
            for _ in range(number % 3):
                await asyncio.sleep(0)
            commit.cancel()
            await asyncio.wait([commit])
            await stores.runs.commit(full_batch(number))
            assert len(await stores.runs.history(run_id(number))) == 2
        assert len((await stores.runs.runs(RunQuery(), 100)).items) == 19
