"""Cancel reaches every process of an attempt, however it tries to get away."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from taskhub.executors.shell import ShellExecutor
from taskhub.testing.executor_contract import eventually


async def stop(shell, context, begun) -> object:
    """Run until `begun`, cancel, and return the result."""
    work = asyncio.create_task(shell.execute(context))
    await eventually(lambda: begun() or work.done(), "the tree has grown")
    assert not work.done(), (work, context.written)
    work.cancel()
    return await asyncio.wait_for(work, 20)


async def test_a_command_may_clean_up_on_term(shell, context_of, marker):
    command = f"trap 'echo clean; exit 7' TERM; echo ready; sleep {marker} & wait"
    context = context_of(command)
    result = await stop(shell, context, lambda: "ready" in context.text())
    assert (result.exit_code, context.text()) == (7, "ready\nclean\n")
    assert not marker.pids()


async def test_commands_of_a_term_handler_are_let_live_within_the_grace(shell, context_of, marker):
    command = f"trap 'sleep 0.1; echo clean; exit 0' TERM; echo ready; sleep {marker} & wait"
    context = context_of(command)
    await stop(shell, context, lambda: "ready" in context.text())
    assert context.text() == "ready\nclean\n"


async def test_who_ignores_term_is_killed_after_the_grace(shell, context_of, marker):
    context = context_of(f"trap '' TERM; echo ready; sleep {marker}")
    result = await stop(shell, context, lambda: "ready" in context.text() and marker.pids())
    assert result.exit_code == 137
    assert result.message == "killed by SIGKILL"
    assert not marker.pids()


async def test_a_stopped_process_gets_its_term(shell, context_of, marker):
    context = context_of(f"trap 'echo woken; exit 0' TERM; echo {marker}; kill -STOP $$")
    await stop(shell, context, lambda: marker.pids() and state(marker.pids()[0]) == "T")
    assert "woken" in context.text()


ESCAPES = {
    "setsid": "setsid sleep {m} & sleep {m}",
    "env -i": "env -i setsid sleep {m} & sleep {m}",
    "double fork": "(setsid env -i sh -c '(sleep {m} &) ; exit' &) ; sleep {m}",
    "ignores TERM": "(trap '' TERM; exec setsid sleep {m}) & sleep {m}",
    "own limits": "ulimit -R 77; (setsid sh -c 'sleep {m} & sleep {m}' &); sleep {m}",
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
async def test_escapees_are_found(shell, context_of, marker, escape):
    context = context_of(escape.format(m=marker), exec_params={"shell": "bash"})
    await stop(shell, context, lambda: len(marker.sleepers()) >= 2)
    assert not marker.pids()


async def test_one_attempt_is_stopped_and_its_neighbour_is_not(shell, context_of, marker):
    other = type(marker)()
    neighbour = asyncio.create_task(shell.execute(context_of(f"setsid sleep {other} & sleep 99")))
    await eventually(other.pids)
    await stop(shell, context_of(f"setsid sleep {marker} & sleep 99"), marker.pids)
    assert not marker.pids()
    assert other.sleepers()
    neighbour.cancel()
    await neighbour
    assert not other.pids()


BOMB = """
trap '' TERM
bomb() { [ $1 -gt 0 ] && { bomb $(($1 - 1)) & bomb $(($1 - 1)) & }; sleep MARK; }
bomb 6
"""


async def test_a_fork_bomb_is_put_out(shell, context_of, marker):
    context = context_of(BOMB.replace("MARK", str(marker)))
    await stop(shell, context, lambda: len(marker.pids()) > 60)
    assert not marker.pids()


CHAIN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
end = time.monotonic() + 30  # should it get away, it must not run for ever
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


async def test_a_chain_of_forks_is_caught(shell, context_of, marker):
    """Each process lives for a fraction of a millisecond, outside of every group and session."""
    context = context_of(f"exec {sys.executable} -ISc '{CHAIN}' {marker} & sleep {marker}")
    await stop(shell, context, lambda: "ready" in context.text())
    assert not marker.pids()


async def test_a_second_cancel_does_not_wait_for_the_grace(context_of, marker):
    shell = ShellExecutor()
    await shell.start({"kill_grace_ms": 15_000})
    context = context_of(f"trap '' TERM; echo ready; while :; do sleep {marker}; done")
    work = asyncio.create_task(shell.execute(context))
    await eventually(lambda: "ready" in context.text() and marker.pids())
    work.cancel()
    await asyncio.sleep(0.05)
    work.cancel()
    result = await asyncio.wait_for(work, 10)
    assert result.exit_code == 137
    await shell.close()


async def test_many_are_stopped_at_once(shell, context_of, marker):
    contexts = [context_of(f"setsid sleep {marker} & sleep {marker}") for _ in range(40)]
    works = [asyncio.create_task(shell.execute(context)) for context in contexts]
    await eventually(lambda: len(marker.sleepers()) >= 80)
    for work in works:
        work.cancel()
    results = await asyncio.wait_for(asyncio.gather(*works), 10)
    assert {result.exit_code for result in results} == {143}
    assert not marker.pids()


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
