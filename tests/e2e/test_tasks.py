"""Simple tasks over a crash."""

from __future__ import annotations

from tests.e2e.daemon import Daemon

COUNT = 20


async def test_kill_9_takes_no_number_back(tmp_path):
    server = await Daemon.start(tmp_path / "data")
    try:
        told = []
        for _ in range(2):
            for _ in range(COUNT):
                body = {"name": "t", "params": {"cmd": "true"}}
                status, answer = await server.post("/api/tasks", body)
                assert status == 200
                told.append(answer["data"]["id"])
            await server.kill()
            server = await Daemon.start(tmp_path / "data")
        _, answer = await server.post("/api/tasks", {"name": "last"})
        assert told == sorted(set(told))
        assert answer["data"]["id"] > told[-1]
        _, listed = await server.get("/api/tasks")
        assert [item["id"] for item in listed["data"]] == [answer["data"]["id"], *told[::-1]]
    finally:
        await server.stop()
