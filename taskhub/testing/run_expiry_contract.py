"""What every `RunStore` has to do, part 3: old runs go, and nothing else does."""

from __future__ import annotations

from taskhub.ports.store import RunQuery
from taskhub.ports.stores import Stores
from taskhub.testing.store_samples import (
    EMPTY,
    T0,
    dag,
    ended_batch,
    ended_run,
    event,
    full_batch,
    header,
    new_run,
    run_id,
    snapshot,
)


class RunExpiryContract:
    """Old runs go with all that is theirs, and nothing else does."""

    async def test_a_run_goes_with_all_that_is_its(self, stores: Stores) -> None:
        await stores.runs.commit(ended_batch(1, T0 + 1))
        assert await stores.runs.expire(T0 + 2) == 1
        assert await snapshot(stores.runs, 1) == EMPTY
        assert await stores.runs.expire(T0 + 2) == 0

    async def test_others_stay(self, stores: Stores) -> None:
        for number in (1, 2, 3):
            await stores.runs.commit(ended_batch(number, T0 + number))
        await stores.runs.commit(full_batch(4))
        others = [await snapshot(stores.runs, number) for number in (2, 3, 4)]
        assert await stores.runs.expire(T0 + 2) == 1
        assert [await snapshot(stores.runs, number) for number in (2, 3, 4)] == others

    async def test_the_oldest_go_first_and_no_more_than_asked(self, stores: Stores) -> None:
        for number in (2, 1, 3):
            await stores.runs.commit(ended_batch(number, T0 + number))
        assert await stores.runs.expire(T0 + 10, limit=2) == 2
        assert [row.header.run_id for row in (await stores.runs.runs(RunQuery(), 9)).items] == [
            run_id(3)
        ]
        assert await stores.runs.expire(T0 + 10, limit=2) == 1

    async def test_a_big_run_goes_too(self, stores: Stores) -> None:
        batch = ended_run(1, T0)
        batch.new_runs = [(header(1), dag(2000))]
        batch.events = [event(1, seq) for seq in range(1, 3001)]
        await stores.runs.commit(batch)
        assert await stores.runs.expire(T0 + 1) == 1
        assert await snapshot(stores.runs, 1) == EMPTY

    async def test_the_key_of_an_expired_run_is_free(self, stores: Stores) -> None:
        batch = ended_run(1, T0)
        batch.new_runs = [(header(1, unique_key="k"), dag())]
        await stores.runs.commit(batch)
        await stores.runs.expire(T0 + 1)
        await stores.runs.commit(new_run(2, unique_key="k"))
        assert await stores.runs.run_by_key("k") == run_id(2)
