from __future__ import annotations

import asyncio

from taskhub.adapters.lease import SoleLease
from taskhub.adapters.memory import MemoryStores


async def test_the_only_server_of_a_store_is_always_active():
    lease = MemoryStores().lease
    assert await lease.active_url() == ""
    assert await lease.acquire("http://a.example:1")
    assert await lease.active_url() == "http://a.example:1"
    await lease.release()
    await lease.release()
    assert await lease.acquire("http://a.example:1")


async def test_it_is_held_until_cancelled():
    holding = asyncio.create_task(SoleLease().hold(), name="hold")
    done, _ = await asyncio.wait({holding}, timeout=0)
    assert not done
    holding.cancel()
    await asyncio.wait({holding})
    assert holding.cancelled()
