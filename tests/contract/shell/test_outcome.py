"""How a command ended, and what it could see."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from taskhub.domain.log import Stream
from taskhub.domain.task import Status
from taskhub.executors.shell import ShellExecutor, clean_environment
from taskhub.testing.executor_contract import eventually, task_of


@pytest.mark.parametrize("code", [1, 3, 126, 255])
async def test_an_exit_code_is_passed_on(run, code):
    result, _ = await run(f"exit {code}")
    assert (result.status, result.exit_code) == (Status.FAILED, code)
    assert result.message == f"exit code {code}"


async def test_exit_code_zero_is_success_and_needs_no_words(run):
    result, _ = await run("true")
    assert (result.status, result.exit_code, result.message) == (Status.SUCCESS, 0, "")


@pytest.mark.parametrize("command", ["", " \n\t"])
async def test_no_command_is_a_failure_that_says_what_is_missing(run, command):
    result, context = await run(command)
    assert (result.status, result.exit_code) == (Status.FAILED, -1)
    assert "exec_command" in result.message
    assert "params.cmd" in result.message
    assert context.text(Stream.STDERR) == ""


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (11, "SIGSEGV"), (40, "signal 40")]
)
async def test_a_signal_is_named_and_coded_as_a_shell_does(run, number, name):
    result, _ = await run(f"kill -{number} $$")
    assert result.exit_code == 128 + number
    assert result.message == f"killed by {name}"


async def test_a_process_killed_by_somebody_else_is_reported(shell, context_of, marker):
    context = context_of(f"exec sleep {marker}")

    async def kill() -> None:
        await eventually(marker.pids)
        for pid in marker.pids():
            os.kill(pid, 9)

    result, _ = await asyncio.gather(shell.execute(context), kill())
    assert result.message == "killed by SIGKILL"


async def test_a_missing_command_is_127_in_the_words_of_the_shell(run):
    result, context = await run("no-such-command-anywhere")
    assert result.exit_code == 127
    assert "not found" in context.text(Stream.STDERR)


async def test_a_missing_shell_is_127(run):
    result, _ = await run("true", exec_params={"shell": "/no/such/shell"})
    assert result.exit_code == 127
    assert result.message == "cannot run /no/such/shell: No such file or directory"


async def test_a_shell_that_is_not_executable_is_126(run, tmp_path):
    (tmp_path / "sh").write_text("#!/bin/sh\n")
    result, _ = await run("true", exec_params={"shell": str(tmp_path / "sh")})
    assert result.exit_code == 126
    assert "Permission denied" in result.message


async def test_another_shell_is_found_by_path_and_gets_the_command(run):
    result, context = await run('echo "${BASH_VERSION:+bash}"', exec_params={"shell": "bash"})
    assert (result.exit_code, context.text()) == (0, "bash\n")


async def test_a_missing_cwd_says_so(run):
    result, _ = await run("true", exec_params={"cwd": "/no/such/folder"})
    assert (result.status, result.exit_code) == (Status.FAILED, 126)
    assert result.message == "cannot enter cwd: No such file or directory"


async def test_a_command_too_long_for_the_kernel_fails_with_a_reason(run):
    result, _ = await run("true " + "x" * 140_000)
    assert (result.status, result.exit_code) == (Status.FAILED, 126)
    assert "Argument list too long" in result.message


async def test_a_long_command_and_a_large_environment_arrive_whole(run):
    params = {f"env.V{i}": "v" * 64_000 for i in range(4)}
    result, context = await run(": " + "x" * 64_000 + '; echo "$V0$V1$V2$V3"', exec_params=params)
    assert result.exit_code == 0
    assert context.text() == "v" * 256_000 + "\n"


async def test_cwd_is_where_the_command_runs(run, tmp_path):
    (tmp_path / "ä b").mkdir()
    _, context = await run("pwd", exec_params={"cwd": str(tmp_path / "ä b")})
    assert context.text() == f"{tmp_path}/ä b\n"


async def test_cwd_is_the_servers_by_default(run):
    _, context = await run("pwd -P")
    assert context.text() == f"{Path.cwd()}\n"


async def test_no_secret_of_the_server_is_visible(context_of, monkeypatch):
    monkeypatch.setenv("TASKHUB_AUTH_JWT_SECRET", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    shell = ShellExecutor()
    await shell.start({})
    context = context_of("env; cat /proc/$PPID/environ | tr '\\0' '\\n'")
    await shell.execute(context)
    await shell.close()
    assert "s3cret" not in context.text()
    names = {line.partition("=")[0] for line in context.text().splitlines()}
    own = {"TASKHUB_RUN_ID", "TASKHUB_TASK_ID", "TASKHUB_ATTEMPT", "TASKHUB_ATTEMPT_KEY"}
    allowed = clean_environment(os.environ).keys() | own | {"PWD", "OLDPWD", "SHLVL", "_"}
    assert own | {"LC_TIME", "PATH"} <= names <= allowed


async def test_variables_are_given_as_text_and_an_empty_one_is_not_set(run):
    params = {"env.S": "a b", "env.N": 1.5, "env.B": True, "env.E": "", "env.TASKHUB_TASK_ID": "x"}
    _, context = await run('echo "$S|$N|$B|${E-unset}|$TASKHUB_TASK_ID"', exec_params=params)
    assert context.text() == "a b|1.5|true|unset|t\n"


async def test_a_task_knows_which_attempt_it_is(run):
    command = "echo $TASKHUB_RUN_ID $TASKHUB_TASK_ID $TASKHUB_ATTEMPT $TASKHUB_ATTEMPT_KEY"
    _, context = await run(command)
    assert context.text() == f"{context.run_id} t 1 {context.attempt_key}\n"


async def test_a_child_has_three_descriptors_default_signals_and_a_session_of_its_own(run):
    _, context = await run("ls /proc/self/fd | wc -l; grep -E 'Sig(Blk|Ign)' /proc/self/status")
    fds, blocked, ignored = context.text().splitlines()
    assert int(fds) == 4  # the fourth is the folder that ls reads
    assert int(blocked.split()[1], 16) == 0
    libc_own = 1 << 31 | 1 << 32  # signals 32 and 33, which a C library does not let us set
    assert int(ignored.split()[1], 16) & ~libc_own == 0
    _, context = await run(
        'read -r line </proc/$$/stat; set -- $line; test "$1" = "$6" && echo own'
    )
    assert context.text() == "own\n"


async def test_stdin_is_empty(run):
    result, context = await run("cat; echo end")
    assert (result.exit_code, context.text()) == (0, "end\n")


@pytest.mark.parametrize(
    ("task", "pointer"),
    [
        (task_of("Shell", " "), "/exec_command"),
        (task_of("Shell", "a\0b"), "/exec_command"),
        (task_of("Shell", "a\ud800b"), "/exec_command"),
        (task_of("Shell", "a", exec_params={"cwd": "a\0b"}), "/exec_params/cwd"),
        (task_of("Shell", "a", exec_params={"env.A": "a\0b"}), "/exec_params/env.A"),
    ],
)
def test_what_no_process_can_be_given_is_refused_at_submit(task, pointer):
    (problem,) = ShellExecutor().check(task)
    assert problem.pointer == pointer


async def test_what_was_not_checked_still_fails_without_a_traceback(run):
    result, _ = await run("a\0b")
    assert result.status == Status.FAILED
    assert (await run("true"))[0].status == Status.SUCCESS
