"""The supervisor process: it leaks nothing, may die, and never outlives its server's work."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from taskhub.domain.task import Status
from taskhub.executors.shell import ShellExecutor
from taskhub.executors.shell.spawner.trees import Process
from taskhub.testing.executor_contract import RecordingContext, eventually, task_of


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies too."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def test_three_hundred_tasks_leave_no_descriptor_and_no_zombie(shell, context_of):
    await shell.execute(context_of("true"))
    pid = shell._client.pid
    before = descriptors(os.getpid()), descriptors(pid)
    commands = ("true", "echo x; exit 3", "(sleep 0.01 &)", "head -c 300000 /dev/zero", "\0")
    left = 300

    async def work() -> None:
        nonlocal left
        while left:
            left -= 1
            params = {"cwd": "/nowhere"} if left % 7 == 0 else {}
            context = context_of(
                commands[left % 5], capture_output=left % 3 > 0, exec_params=params
            )
            await shell.execute(context)

    await asyncio.gather(*(work() for _ in range(16)))
    assert (descriptors(os.getpid()), descriptors(pid)) == before
    await eventually(lambda: not children(pid), "orphans are reaped when they end")
    assert not shell._client._children


async def test_more_attempts_at_once_than_fit_one_message(shell, context_of):
    contexts = [context_of(f"echo {i}") for i in range(350)]
    await asyncio.gather(*(shell.execute(context) for context in contexts))
    assert [context.text() for context in contexts] == [f"{i}\n" for i in range(350)]


async def test_a_socket_that_is_full_loses_nothing(shell, context_of):
    filler = {"env.FILL": "x" * 100_000}
    contexts = [context_of(f"echo {i}", exec_params=filler) for i in range(100)]
    await asyncio.gather(*(shell.execute(context) for context in contexts))
    assert [context.text() for context in contexts] == [f"{i}\n" for i in range(100)]


async def test_no_descriptors_left_fails_the_attempt_only(shell, context_of):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (await shell.execute(context_of("true"))).status == Status.SUCCESS
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors(os.getpid()) + 1, hard))
    try:
        result = await shell.execute(context_of("true"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (result.status, result.exit_code) == (Status.FAILED, 126)
    assert "Too many open files" in result.message
    assert (await shell.execute(context_of("true"))).status == Status.SUCCESS


async def test_when_the_spawner_dies_attempts_are_lost_and_the_next_one_works(
    shell, context_of, marker
):
    before = descriptors(os.getpid())
    running = context_of(f"echo begun; sleep {marker}")
    work = asyncio.create_task(shell.execute(running))
    await eventually(lambda: running.text() and marker.pids())
    os.kill(shell._client.pid, 9)
    result = await asyncio.wait_for(work, 5)
    assert result.is_lost
    assert result.message == "lost: the process supervisor died"
    assert running.text() == "begun\n"
    for pid in marker.pids():
        os.kill(pid, 9)
    after = context_of("echo again")
    assert (await shell.execute(after)).status == Status.SUCCESS
    assert after.text() == "again\n"
    assert descriptors(os.getpid()) == before


async def test_a_spawner_that_does_not_start_fails_the_attempt(shell, context_of, monkeypatch):
    os.kill(shell._client.pid, 9)
    await eventually(lambda: not shell._client.alive)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    result = await asyncio.wait_for(shell.execute(context_of("true")), 5)
    assert (result.status, result.exit_code) == (Status.FAILED, 126)
    assert result.message == "cannot start: the process supervisor does not start"


async def test_an_executor_that_is_not_running_says_so(context_of):
    shell = ShellExecutor()
    assert (await shell.execute(context_of("true"))).status == Status.FAILED
    await shell.start({})
    await shell.close()
    assert "not running" in (await shell.execute(context_of("true"))).message


async def test_daemons_of_finished_attempts_outlive_the_executor(context_of, marker):
    shell = ShellExecutor()
    await shell.start({})
    await shell.execute(context_of(f"sleep {marker} &"))
    await shell.close()
    (pid,) = marker.pids()
    os.kill(pid, 9)


SERVER = """
import asyncio, os, sys
from taskhub.executors.shell import ShellExecutor
from taskhub.testing.executor_contract import RecordingContext, task_of

async def main():
    shell = ShellExecutor()
    await shell.start({})
    if os.fork() == 0:  # it holds copies of all descriptors
        sys.stdin.read()
        os._exit(0)
    command = "trap '' TERM; env -i setsid sleep MARK & sleep MARK; sleep MARK"
    await shell.execute(RecordingContext(task_of("Shell", command.replace("MARK", sys.argv[1]))))

asyncio.run(main())
"""


async def test_when_the_server_dies_so_do_its_tasks(marker):
    server = subprocess.Popen(  # noqa: ASYNC220  # the test has nothing else to do
        [sys.executable, "-c", SERVER, str(marker)], stdin=subprocess.PIPE
    )
    try:
        await eventually(lambda: len(marker.sleepers()) >= 2, "the task runs")
        spawner = next(pid for pid in children(server.pid) if "spawner" in arguments(pid))
    finally:
        server.kill()
        server.wait()
    await eventually(lambda: not marker.sleepers(), "every tree is killed")
    await eventually(lambda: not Path(f"/proc/{spawner}").exists(), "the spawner is gone")
    server.stdin.close()  # the fork, which did not keep them alive, may go


async def test_the_spawner_outlives_the_signals_of_a_stopping_service(shell, context_of):
    await shell.execute(context_of("true"))
    for number in (2, 15, 1):
        os.kill(shell._client.pid, number)
    assert (await shell.execute(context_of("true"))).status == Status.SUCCESS
    assert shell._client.alive


@pytest.mark.parametrize("name", [b"sh", b"a) R 1 2 (b", b""])
def test_a_process_name_cannot_forge_its_ancestry(name):
    stat = b"42 (" + name + b") S 7 8 9 0 -1 " + b" ".join(b"%d" % i for i in range(9, 52))
    process = Process(42, stat)
    assert (process.ppid, process.group, process.session) == (7, 8, 9)


async def test_the_first_attempt_need_not_wait_for_start():
    shell = ShellExecutor()
    await shell.start({})
    result = await shell.execute(RecordingContext(task_of("Shell", "true")))
    assert result.status == Status.SUCCESS
    await shell.close()


STUBBORN = """
import asyncio, sys
from taskhub.executors.shell import ShellExecutor
from taskhub.testing.executor_contract import RecordingContext, task_of

async def main():
    shell = ShellExecutor()
    await shell.start({"state_dir": sys.argv[2]})
    command = f"trap '' TERM; while :; do sleep {sys.argv[1]}; done"
    await shell.execute(RecordingContext(task_of("Shell", command)))

asyncio.run(main())
"""


async def test_a_new_server_waits_until_the_processes_of_a_dead_one_have_ended(marker, tmp_path):
    arguments = [sys.executable, "-c", STUBBORN, str(marker), str(tmp_path)]
    server = subprocess.Popen(arguments)  # noqa: ASYNC220  # the test has nothing else to do
    try:
        await eventually(marker.sleepers, "the task runs")
    finally:
        server.kill()
        server.wait()
    assert marker.pids(), "a task that ignores SIGTERM outlives its server for a moment"
    shell = ShellExecutor()
    await shell.start({"state_dir": str(tmp_path)})
    assert not marker.pids()
    await shell.close()


async def test_what_a_killed_spawner_leaves_is_ended_before_the_attempt_is(
    shell, context_of, marker
):
    command = f"trap '' TERM; sleep {marker} & while :; do sleep {marker}; done"
    bystander = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220  # it only has to be there
    work = asyncio.create_task(shell.execute(context_of(command)))
    await eventually(lambda: len(marker.sleepers()) >= 2, "the task runs")
    os.kill(shell._client.pid, 9)
    result = await work
    assert result.message == "lost: the process supervisor died"
    assert not marker.pids()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("grace", [-1, 15_001, "5", True, 1.5])
async def test_a_grace_that_makes_no_sense_is_refused(grace):
    with pytest.raises(ValueError, match="kill_grace_ms"):
        await ShellExecutor().start({"kill_grace_ms": grace})
