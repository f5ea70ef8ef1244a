"""A store that hangs: whoever asks gets a 503 in time, and what was begun is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.web.conftest import Site
from tests.unit.web.test_gate import assert_error

LATE = "the store does not answer in time"


class Hanging:
    """Stands for a service or a store none of whose calls ever returns."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def call(self, *_args, **_kwargs):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    page = get = list_runs = list_tasks = list_events = account = call


def hang(site: Site) -> Hanging:
    """Let every service that a GET asks hang."""
    hanging = Hanging()
    for rule in site.app.default_router.rules[0].target.rules:
        for need in {"runs", "logs"} & rule.target_kwargs.keys():
            rule.target_kwargs[need] = hanging
    site.change(answer_s=0.05)
    return hanging


@pytest.mark.parametrize(
    "path",
    ["dag/runs", "dag/runs/r1", "dag/task_runs", "dag/events", "tasks/logs?task_id=a&run_id=r"],
)
async def test_a_read_of_a_store_that_hangs_is_a_503(site: Site, path):
    hanging = hang(site)
    reply = await site.get(f"/api/{path}")
    assert_error(reply, 503, 503)
    assert reply.json["message"] == LATE
    assert reply.headers["Retry-After"] == "2"
    assert hanging.cancelled == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_asks_must_be_found_out_in_time_too(site: Site, method):
    hanging = Hanging()
    site.people.store.account = site.people.store.revision = hanging.call
    await site.clock.advance(60)  # what is known of accounts is out of date by then
    site.change(answer_s=0.05)
    path = "/api/dag/runs" if method == "GET" else "/api/dag/run"
    body = {"tasks": []} if method == "POST" else None
    reply = await site.fetch(method, path, body)
    assert_error(reply, 503, 503)
    assert site.runs.calls == []
    assert hanging.cancelled == 1


async def test_a_run_that_somebody_waits_for_may_take_longer(site: Site):
    site.change(answer_s=0.05)
    site.runs.gate.clear()
    body = {"tasks": [{"id": "a", "exec_type": "Local", "exec_command": "noop"}]}
    asking = asyncio.create_task(site.post("/api/dag/run", body), name="ask")
    await site.runs.begun.wait()
    done, _ = await asyncio.wait({asking}, timeout=0.2)
    assert not done
    site.runs.gate.set()
    assert (await asking).status == 200
