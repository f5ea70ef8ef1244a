"""What every `Lease` that several servers compete for has to do, with the stores it guards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import pytest

from taskhub.errors import NotFoundError, SupersededError
from taskhub.ports.lease import Lease
from taskhub.ports.store import LogStore, RunStore
from taskhub.testing.store_samples import chunk, full_batch, new_run, run_id, snapshot

FIRST, SECOND = "http://first.example:1", "http://second.example:2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """One server's lease, and the stores as that server has them open."""

    lease: Lease
    runs: RunStore
    logs: LogStore


class Rivals(Protocol):
    """Servers on one store, which is empty at first."""

    async def join(self) -> Rival:
        """Return another server."""
        ...

    async def lapse(self) -> None:
        """Let the lease run out under its holder, as if that had been paused for long."""
        ...


class LeaseContract:
    """Subclass it and give a fixture `rivals`."""

    async def test_one_server_is_active_and_the_others_know_where(self, rivals: Rivals) -> None:
        first, second = await rivals.join(), await rivals.join()
        assert await second.lease.active_url() == ""
        assert await first.lease.acquire(FIRST)
        assert not await second.lease.acquire(SECOND)
        assert await first.lease.acquire(FIRST)
        assert await second.lease.active_url() == await first.lease.active_url() == FIRST

    async def test_of_many_at_once_one_is_active(self, rivals: Rivals) -> None:
        servers = [await rivals.join() for _ in range(5)]
        won = await asyncio.gather(*(server.lease.acquire(FIRST) for server in servers))
        assert sorted(won) == [False] * 4 + [True]

    async def test_a_lease_that_is_released_is_free_at_once(self, rivals: Rivals) -> None:
        first, second = await rivals.join(), await rivals.join()
        await first.lease.acquire(FIRST)
        await first.lease.release()
        await first.lease.release()
        assert await second.lease.active_url() == ""
        assert await second.lease.acquire(SECOND)
        await first.lease.release()
        assert not await first.lease.acquire(FIRST), "who does not hold it cannot give it away"
        assert await first.lease.active_url() == SECOND

    async def test_a_lease_that_ran_out_is_free(self, rivals: Rivals) -> None:
        first, second = await rivals.join(), await rivals.join()
        await first.lease.acquire(FIRST)
        await rivals.lapse()
        assert await second.lease.acquire(SECOND)
        assert not await first.lease.acquire(FIRST)

    async def test_the_new_server_sees_what_the_old_one_stored(self, rivals: Rivals) -> None:
        first, second = await rivals.join(), await rivals.join()
        await first.lease.acquire(FIRST)
        await first.runs.commit(full_batch(1))
        await first.logs.append([chunk(1, 1, ["line"])])
        await rivals.lapse()
        await second.lease.acquire(SECOND)
        assert await snapshot(second.runs, 1) == await snapshot(first.runs, 1)
        assert await second.logs.last_seq("t", "r") == 1
        await second.runs.commit(new_run(2))
        assert list(await second.runs.active()) == [run_id(1), run_id(2)]

    async def test_a_superseded_server_can_write_nothing(self, rivals: Rivals) -> None:
        first, second = await rivals.join(), await rivals.join()
        await first.lease.acquire(FIRST)
        await rivals.lapse()
        await second.lease.acquire(SECOND)
        with pytest.raises(SupersededError):
            await first.runs.commit(new_run(1))
        with pytest.raises(SupersededError):
            await first.logs.append([chunk(1, 1, ["line"])])
        with pytest.raises(NotFoundError):
            await second.runs.run(run_id(1))
        assert await second.logs.last_seq("t", "r") == 0

    async def test_a_superseded_server_hears_of_it(self, rivals: Rivals) -> None:
        first, second = await rivals.join(), await rivals.join()
        await first.lease.acquire(FIRST)
        holding = asyncio.create_task(first.lease.hold(), name="hold")
        await asyncio.sleep(0)
        assert not holding.done()
        await rivals.lapse()
        await second.lease.acquire(SECOND)
        with pytest.raises(SupersededError):
            await holding
