"""What a user can measure from outside: a real server, its API, its sockets, its process.

Prints a table; every figure beside a limit measured in the same run. Never fails by time.
    python tests/bench/bench_server.py [shell noop lines dag start] [--rounds N]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "taskhub"]


class Client:
    """A server of its own, and one keep-alive connection to it."""

    def __init__(self, url: str, process: subprocess.Popen) -> None:
        self.url = url
        self.process = process
        self.port = int(url.rsplit(":", 1)[1])
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.token = ""
        self.token = self.call("POST", "/api/login", {"username": "admin", "password": "123456"})[
            "data"
        ]["token"]

    def call(self, method, path, body=None):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        self.connection.request(method, path, None if body is None else json.dumps(body), headers)
        return json.loads(self.connection.getresponse().read())

    def run(self, tasks, **config):
        started = time.perf_counter()
        answer = self.call("POST", "/api/dag/run", {"config": config, "tasks": tasks})
        assert answer["ok"], answer["summary"]
        return time.perf_counter() - started

    def memory_mb(self, field="VmRSS"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024


@contextmanager
def server(**settings):
    """Start a server on a free port and an empty data directory; stop it in order."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {f"TASKHUB_{k.upper()}": str(v) for k, v in settings.items()}
        env |= {"TASKHUB_LOG_LEVEL": "error"}
        command = [*LAUNCH, "--dev", "--port", "0", "--data-dir", folder]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        ready = time.perf_counter() - started
        try:
            client = Client(line.split()[-1], process)
            client.ready_s = ready
            yield client
            client.connection.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            process.stdout.close()


def row(what, figure, target, limit=""):
    print(f"{what:<46} {figure:>22}  {target:>12}  {limit}", flush=True)


def spread(values, form="{:.0f}"):
    shown = [form.format(v) for v in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]}-{shown[2]})"


def bare_spawn(count=1000, parallel=16):
    """Spawn and reap `sh -c true` with `parallel` in flight; return how many a second."""
    started = time.perf_counter()
    live = begun = ended = 0
    while ended < count:
        while begun < count and live < parallel:
            os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {"PATH": "/usr/bin:/bin"})
            begun, live = begun + 1, live + 1
        os.wait()
        ended, live = ended + 1, live - 1
    return count / (time.perf_counter() - started)


def bench_shell(rounds):
    tasks = [{"id": f"t{i}", "exec_type": "Shell", "exec_command": "true"} for i in range(1000)]
    code = (
        "import sys; sys.path.append(sys.argv[1]); import bench_server as b; print(b.bare_spawn())"
    )
    bare_command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    bare, ours = [], []
    with server() as client:
        client.run(tasks[:100], max_parallel=16)
        for _ in range(rounds):
            bare.append(float(subprocess.check_output(bare_command)))
            ours.append(1000 / client.run(tasks, max_parallel=16))
    ratios = [100 * o / b for o, b in zip(ours, bare, strict=True)]
    row("Shell true x 1000, 16 in flight, tasks/s", spread(ours), "", f"bare loop {spread(bare)}")
    row("  of a bare posix_spawn + wait loop, %", spread(ratios), ">= 75")


def bench_noop(rounds):
    side = [{"id": f"t{i}", "exec_type": "Local", "exec_command": "noop"} for i in range(500)]
    chain = [
        {"id": f"t{i}", "exec_type": "Local", "exec_command": "noop"}
        | ({"deps": [f"t{i - 1}"]} if i else {})
        for i in range(200)
    ]
    with server(limits_running_attempts=512) as client:
        client.run(side, max_parallel=512)
        sides, chains, commits = [], [], []
        for _ in range(rounds):
            sides.append(500 / client.run(side, max_parallel=512))
            chains.append(200 / client.run(chain))
            commits.append(bare_commits())
    limit = f"bare SQLite commits (FULL) {spread(commits)}/s"
    row("500 noop over HTTP, JSON and answer included", spread(sides), "")
    row("200 noop in a chain, the same way", spread(chains), "", limit)


def bare_commits(count=200):
    """Insert one small row a commit, WAL and FULL; return commits a second."""
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder, "x.db"), isolation_level=None)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.execute("create table t (a, b)")
        started = time.perf_counter()
        for i in range(count):
            db.execute("insert into t values (?, ?)", (i, "x" * 100))
        elapsed = time.perf_counter() - started
        db.close()
    return count / elapsed


class Subscriber(threading.Thread):
    """A raw WebSocket client that counts log messages and keeps nothing."""

    def __init__(self, client, run_id, last):
        super().__init__()
        self.sock = handshake(client)
        self.last = f'"seq":{last},'.encode()
        self.count = 0
        self.done_at = None
        send(
            self.sock,
            {
                "token": client.token,
                "op": "subscribe",
                "topic": "task_logs",
                "task_id": "a",
                "run_id": run_id,
                "from": 1,
                "ack": True,
            },
        )

    def run(self):
        rest = b""
        while data := self.sock.recv(1 << 20):
            data = rest + data
            self.count += data.count(b'"type":"log"') - rest.count(b'"type":"log"')
            if self.last in data:
                self.done_at = time.perf_counter()
                return
            rest = data[-64:]


def handshake(client):
    sock = socket.create_connection(("127.0.0.1", client.port))
    sock.sendall(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert b" 101 " in head, head
    return sock


def send(sock, message):
    data = json.dumps(message).encode()
    head = (
        bytes([0x81, 0x80 | len(data)])
        if len(data) < 126
        else (bytes([0x81, 0x80 | 126]) + len(data).to_bytes(2, "big"))
    )
    sock.sendall(head + bytes(4) + data)


class PeakMemory(threading.Thread):
    """Watches a server's resident memory."""

    def __init__(self, client):
        super().__init__()
        self.client = client
        self.over = threading.Event()
        self.peak = client.memory_mb()

    def run(self):
        while not self.over.wait(0.02):
            self.peak = max(self.peak, self.client.memory_mb())


def bench_lines(rounds, count=1_000_000):
    task = {"id": "a", "exec_type": "Shell", "exec_command": f"seq {count}"}
    rates, growth, pushed, limits = [], [], [], []
    with server() as client:
        for _ in range(rounds):
            limits.append(bare_lines(count))
            before = client.memory_mb()
            memory = PeakMemory(client)
            memory.start()
            started = time.perf_counter()
            run_id = client.call("POST", "/api/dag/run_async", {"tasks": [task]})["data"]["run_id"]
            subscriber = Subscriber(client, run_id, count)
            subscriber.start()
            while client.call("GET", f"/api/dag/runs/{run_id}")["data"]["run"]["status"] == 0:
                subscriber.join(0.02)
            rates.append(count / (time.perf_counter() - started))
            subscriber.join(60)
            memory.over.set()
            memory.join()
            pushed.append(subscriber.count / (subscriber.done_at - started))
            growth.append(memory.peak - before)
            subscriber.sock.close()
    row(
        "1 M lines of one child, stored, lines/s",
        spread(rates),
        ">= 300,000",
        f"bare read + split {spread(limits)}",
    )
    row("  and pushed to one subscriber, lines/s", spread(pushed), ">= 300,000")
    row("  server memory growth, MB", spread(growth), "< 64")


def bare_lines(count):
    """Read the same child's output and split it into lines; return lines a second."""
    started = time.perf_counter()
    child = subprocess.Popen(["seq", str(count)], stdout=subprocess.PIPE)
    lines = 0
    while data := os.read(child.stdout.fileno(), 65536):
        lines += len(data.decode().split("\n")) - 1
    child.wait()
    child.stdout.close()
    return count / (time.perf_counter() - started)


def bench_dag(rounds):
    tasks = [
        {"id": f"t{i}", "exec_type": "Local", "exec_command": "noop"}
        | ({"deps": [f"t{i // 2}"]} if i > 1 else {})
        for i in range(10_000)
    ]
    answers, p99s, worst = [], [], []
    with server() as client:
        for _ in range(rounds):
            started = time.perf_counter()
            data = client.call("POST", "/api/dag/run_async", {"tasks": tasks})["data"]
            answers.append(time.perf_counter() - started)
            waits = []
            path = f"/api/dag/runs?run_id={data['run_id']}"
            for turn in range(100_000):
                begun = time.perf_counter()
                client.call("GET", "/api/health")
                waits.append(time.perf_counter() - begun)
                if turn % 20 == 0 and client.call("GET", path)["data"]["items"][0]["status"]:
                    break
            p99s.append(1000 * statistics.quantiles(waits, n=100)[98])
            worst.append(1000 * max(waits))
    row("10,000-task DAG checked, stored, answered, s", spread(answers, "{:.2f}"), "<= 1")
    row(
        "  health p99 while it runs, ms",
        spread(p99s, "{:.1f}"),
        "< 50",
        f"slowest {spread(worst, '{:.0f}')}",
    )


def bench_start(rounds):
    ready, rss, bare = [], [], []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import tornado.web, tornado.httpserver"], check=True)
        bare.append(time.perf_counter() - started)
        with server() as client:
            ready.append(client.ready_s)
            rss.append(client.memory_mb())
    row(
        "start to ready, s",
        spread(ready, "{:.2f}"),
        "<= 0.7",
        f"python + tornado alone {spread(bare, '{:.2f}')}",
    )
    row("idle RSS, MB", spread(rss), "<= 60")


BENCHES = {
    "start": bench_start,
    "shell": bench_shell,
    "noop": bench_noop,
    "lines": bench_lines,
    "dag": bench_dag,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("which", nargs="*", choices=[*BENCHES, []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{'':<46} {'median (min-max)':>22}  {'target':>12}  limit in the same run")
    for name in options.which or BENCHES:
        BENCHES[name](options.rounds)


if __name__ == "__main__":
    main()
