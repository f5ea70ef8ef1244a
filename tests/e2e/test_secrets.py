"""What a whole server writes to stderr, and what its children get to see."""

from __future__ import annotations

import sys

from tests.e2e.daemon import Daemon

LAUNCHER = ("sh", "-c", 'exec "$@" 2>"$STDERR_FILE"', "sh", sys.executable, "-m", "taskhub")


async def test_no_secret_of_a_task_is_in_the_servers_log(tmp_path):
    log = tmp_path / "stderr"
    env = {"STDERR_FILE": str(log), "TASKHUB_LOG_LEVEL": "debug"}
    server = await Daemon.start(tmp_path / "data", "--store", "memory:", env=env, launcher=LAUNCHER)
    try:
        params = {"env.API_KEY": "hunter2-key", "cwd": "/no/such/folder"}
        tasks = [
            {"id": "bad", "exec_type": "Shell", "exec_command": "true", "exec_params": params},
            {"id": "odd", "exec_command": "noop", "exec_params": {"password": "hunter2-odd"}},
            {"id": "good", "exec_type": "Shell", "exec_command": 'test "$TOKEN" = hunter2-token'}
            | {"exec_params": {"env.TOKEN": "hunter2-token"}},
        ]
        status, refused = await server.post("/api/dag/run", {"tasks": tasks})
        assert status == 400
        status, answer = await server.post("/api/dag/run", {"tasks": [tasks[0], tasks[2]]})
        assert (status, answer["summary"]["success"]) == (200, ["good"])
        assert "hunter2" not in str((refused, answer))
    finally:
        assert await server.stop() == 0
    written = log.read_text()
    assert "run ended" in written
    assert "hunter2" not in written


async def test_children_do_not_see_the_servers_environment(tmp_path):
    env = {"MY_PASSWORD": "hunter2", "TASKHUB_AUTH_SECRET_NAMES": "pin, *_pin"}
    server = await Daemon.start(tmp_path / "data", "--store", "memory:", env=env)
    try:
        task = {"id": "a", "exec_type": "Shell", "exec_command": "env"}
        _, answer = await server.post("/api/dag/run", {"task": task})
        stdout = answer["nodes"][0]["result"]["stdout"]
        assert "TASKHUB_TASK_ID=a" in stdout
        assert "hunter2" not in stdout
        assert "SECRET_NAMES" not in stdout
    finally:
        assert await server.stop() == 0
