"""What a command printed: all of it, in order, and never more than there is room for."""

from __future__ import annotations

import asyncio
import hashlib
import resource

import pytest

from taskhub.domain.log import Stream
from taskhub.domain.task import Status
from taskhub.testing.executor_contract import RecordingContext, eventually, task_of


async def test_both_streams_arrive_apart_and_in_order(run):
    command = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    _, context = await run(command)
    assert context.text() == "".join(f"out {i}\n" for i in range(2000))
    assert context.text(Stream.STDERR) == "".join(f"err {i}\n" for i in range(2000))


async def test_output_is_seen_while_the_command_runs(shell, context_of, marker):
    context = context_of(f"echo begun; sleep {marker}")
    work = asyncio.create_task(shell.execute(context))
    await eventually(lambda: context.text() == "begun\n")
    work.cancel()
    await work


async def test_a_line_of_five_megabytes_arrives_whole(run):
    _, context = await run("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert context.text() == "x" * 5_000_000 + "\nend\n"


async def test_bytes_are_not_touched(run, tmp_path):
    data = bytes(range(256)) * 4096
    (tmp_path / "data").write_bytes(data)
    _, context = await run(f"cat {tmp_path}/data; cat {tmp_path}/data >&2")
    for stream in (Stream.STDOUT, Stream.STDERR):
        assert b"".join(data for to, data in context.written if to == stream) == data


async def test_what_is_left_in_the_pipe_at_exit_arrives(run):
    _, context = await run("head -c 65536 /dev/zero | tr '\\0' x")
    assert context.text() == "x" * 65_536


async def test_a_background_child_that_holds_the_pipe_delays_nothing(shell, context_of, marker):
    context = context_of(f"echo before; sleep {marker} & echo after; exit 4")
    result = await asyncio.wait_for(shell.execute(context), 5)
    assert (result.exit_code, context.text()) == (4, "before\nafter\n")
    assert marker.pids(), "a daemon that the user started was killed"


async def test_a_background_child_that_floods_the_pipe_ends_with_it(shell, context_of, marker):
    context = context_of(f"echo before; yes {marker} & sleep 0.1; exit 0", room=1 << 20)
    work = asyncio.create_task(shell.execute(context))
    while not work.done():
        await eventually(lambda: context.waiting > 1 << 20 or work.done())
        context.take()
    assert work.result().status == Status.SUCCESS
    await eventually(lambda: not marker.pids(), "SIGPIPE ends it")


async def test_without_capture_nothing_is_written(run):
    result, context = await run("echo out; echo err >&2; exit 5", capture_output=False)
    assert (result.exit_code, context.written) == (5, [])


async def test_a_flood_waits_for_a_slow_store_and_loses_nothing(shell, context_of):
    size = 200_000_000
    context = context_of(f"yes 0123456789abcde | head -c {size}", room=1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work = asyncio.create_task(shell.execute(context))
    digest, taken = hashlib.sha256(), 0
    while not work.done() or context.written:
        await eventually(lambda: context.waiting > 1 << 20 or work.done())
        for _, data in context.take():
            digest.update(data)
            taken += len(data)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert taken == size
    assert digest.hexdigest() == hashlib.sha256(b"0123456789abcde\n" * (size // 16)).hexdigest()
    assert context.peak < 2 << 20
    assert grown_kib < 32 << 10


async def test_a_full_context_stops_the_child_itself(shell, context_of):
    context = context_of("yes >&2", room=1 << 20)
    work = asyncio.create_task(shell.execute(context))
    await eventually(lambda: context.waiting > 1 << 20)
    seen = context.waiting
    quick = context_of("echo quick")
    await shell.execute(quick)
    assert context.waiting == seen
    work.cancel()
    context.take()
    while not work.done():
        await eventually(lambda: context.waiting > 1 << 20 or work.done())
        context.take()
    assert work.result().exit_code in (143, 141)


async def test_whoever_insists_on_cancelling_need_not_wait_for_room(shell, context_of):
    context = context_of("yes", room=1 << 20)
    work = asyncio.create_task(shell.execute(context))
    await eventually(lambda: context.waiting > 1 << 20)
    while not work.done():
        work.cancel()
        await asyncio.wait({work}, timeout=0.05)
    assert work.cancelled()


async def test_a_context_that_fails_to_drain_ends_the_attempt(shell, context_of, marker):
    class Failing(RecordingContext):
        async def drain(self) -> None:
            raise OSError("disk full")

    context = Failing(task_of("Shell", f"head -c 1000000 /dev/zero; sleep {marker}"))
    with pytest.raises(OSError, match="disk full"):
        await asyncio.wait_for(shell.execute(context), 10)
    assert not marker.pids()
