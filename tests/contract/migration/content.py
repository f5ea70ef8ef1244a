"""Something of every kind that a store can hold."""

from __future__ import annotations

from dataclasses import replace

from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.domain.event import EventName
from taskhub.domain.log import Level, LogSegment, Stream
from taskhub.domain.result import Output
from taskhub.domain.run import RunStatus, Source
from taskhub.domain.task import TaskSpec
from taskhub.ports.accounts import Account, ApiToken
from taskhub.ports.store import Batch, RunUpdate, TaskOutput
from taskhub.testing.store_samples import (
    INT64_MAX,
    INT64_MIN,
    NASTY,
    T0,
    chunk,
    dag,
    ended_batch,
    event,
    full_batch,
    header,
    new_run,
    run_id,
    segment,
    task_run_id,
    task_update,
)

JSON = {NASTY: [1, 1.0, -0.5, 1e300, None, True, INT64_MIN, INT64_MAX, {"b": 1, "a": [{}]}, ""]}
EPOCH = 7


def nasty_run(number):
    """Return the batch of a run whose every text is awkward, ended."""
    specs = (
        TaskSpec(id="t0", name=NASTY, exec_type="Shell", exec_command=NASTY, exec_params=JSON),
        TaskSpec(id="t1", name="", exec_type="Local", deps=("t0",), metadata=JSON, priority=-5),
    )
    head = replace(header(number, NASTY, unique_key=NASTY), owner=NASTY, source=Source.CRON)
    update = RunUpdate(run_id(number), RunStatus.FAILED, T0, T0 + 5, 1, 1, 0, NASTY)
    return Batch(
        new_runs=[(head, replace(dag(2, NASTY), tasks=specs, max_parallel=99))],
        runs=[update],
        tasks=[task_update(number, 0)._replace(message=NASTY, metadata=JSON)],
        outputs=[
            TaskOutput(task_run_id(number, 0), run_id(number), Output(stdout=NASTY, stderr="\n")),
            TaskOutput(task_run_id(number, 1), run_id(number), Output()),
        ],
        events=[
            event(number, 1, EventName.RUN_START),
            event(number, 2, EventName.TASK_END, "t0", T0 + 1, JSON),
            event(number, 3, EventName.RUN_END, "", T0 + 5, {"status": 2, "message": NASTY}),
        ],
    )


def open_run(number):
    """Return the batch of a run that has not ended, last held by the server of epoch `EPOCH`."""
    batch = full_batch(number, unique_key="open")
    extra = {"attempt": 1, "attempt_key": "k", "epoch": EPOCH}
    batch.events.append(event(number, 3, EventName.ATTEMPT_START, "t1", T0 + 2, extra))
    return batch


def simple_task(number, its_number):
    """Return the batch of a simple task."""
    batch = new_run(number, 1, name="simple")
    head, spec = batch.new_runs[0]
    batch.new_runs = [(replace(head, number=its_number, source=Source.TASK), spec)]
    return batch


def lines():
    """Return chunks of four tasks: mixed up, awkward, and one whose first lines have expired."""
    odd = LogSegment(
        attempt=2, stream=Stream.NONE, level=Level.ERROR, ts_ms=T0 + 1, duration_ms=INT64_MAX,
        lines=["one", "", NASTY, "x" * 20_000], continued=[1, 3], fields=JSON,
    )  # fmt: skip
    mixed = replace(
        chunk(12, 3, ["a"], run=run_id(2), task="t0"), count=5, segments=(segment(["a"]), odd)
    )
    return [
        chunk(10, 1, ["b", "c"], run=run_id(2), task="t0"),
        chunk(11, 41, ["late"], run=run_id(1), task="t0", ts_ms=T0 + 9),
        mixed,
        chunk(13, 1, [""], run=run_id(2), task="t1"),
        chunk(14, 42, ["later"] * 3, run=run_id(1), task="t0"),
        chunk(15, 1, ["of a run that has expired"], run="gone", task="t0"),
    ]


def entry(number, key=""):
    """Return an entry of the audit."""
    key = key or f"key-{number}"
    return AuditEntry(number, key, T0, NASTY, "user.add", "t", "::1", Outcome.DENIED, JSON)


def account(name, version=1, **more):
    """Return an account."""
    return Account(username=name, password_hash=NASTY, role="viewer", version=version, **more)


def token(name, username="a"):
    """Return an API token."""
    return ApiToken(
        id=name, name=NASTY, username=username, role="admin", digest="d" * 64, created_ms=T0
    )


async def fill(stores):
    """Put something of every kind."""
    for batch in (ended_batch(1, T0 + 5), nasty_run(2), simple_task(3, 9), open_run(4)):
        await stores.runs.commit(batch)
    await stores.runs.commit(Batch(last_number=17))
    await stores.logs.append(lines())
    await stores.accounts.restore(
        [account("a", 3), account(NASTY, INT64_MAX, disabled=True, created_ms=T0)],
        [token("one"), replace(token("two"), expires_ms=INT64_MAX)],
        {"jti": T0 + 60_000, "expired": T0 - 1},
    )
    await stores.audit.append([entry(number) for number in (5, 6, 900)])
