"""How many records a second the socket sends, and how late: `python tests/bench/bench_socket.py`.

The clients are raw sockets in a process of their own, counting bytes and frames. Loopback only;
everything is bounded in count and time. Prints a table and asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import select
import socket
import statistics
import time
from multiprocessing.connection import Connection

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from taskhub.adapters.memory import MemoryStores
from taskhub.adapters.systemclock import SystemClock
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.engine.bus import Bus
from taskhub.ports.accounts import Account
from taskhub.services.audit_log import AuditLog
from taskhub.services.auth import AuthService
from taskhub.services.live import LiveHub
from taskhub.services.passwords import Passwords
from taskhub.services.tokens import Tokens
from taskhub.web.frames import Frames, log_frames
from taskhub.web.socket import TaskHubSocket

KEY = b"b" * 32
ACCOUNT = Account(username="bench", password_hash="", role="viewer")
LIMIT_S = 60.0
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def connect(port: int, command: bytes) -> socket.socket:
    """Return a connection that is subscribed; the acknowledgement was read."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    size = len(command)
    head = bytes([0x81, 0xFE, size >> 8, size & 255, 0, 0, 0, 0])
    sock.sendall(HANDSHAKE.encode() + head + command)
    answer = b""
    while b'"subscribed"' not in answer:
        answer += sock.recv(4096)
    sock.setblocking(False)  # noqa: FBT003  # its own signature
    return sock


def run_clients(  # one loop, kept flat
    pipe: Connection,
    port: int,
    command: bytes,
    how_many: int,
    lazy: int,
    timed: bool,  # noqa: FBT001
) -> None:
    """Count what comes in until the pipe says how many bytes there will be in all.

    `lazy` sockets more are opened, and never read.
    """
    asleep = [connect(port, command) for _ in range(lazy)]
    socks = {}
    for _ in range(how_many):
        sock = connect(port, command)
        socks[sock.fileno()] = sock
    epoll = select.epoll()
    for fd in socks:
        epoll.register(fd, select.EPOLLIN)
    pipe.send("ready")
    epoll.register(pipe.fileno(), select.EPOLLIN)
    buffer = bytearray(1 << 20)
    received = 0
    wanted = None
    delays: list[float] = []
    deadline = time.monotonic() + LIMIT_S
    while (wanted is None or received < wanted) and time.monotonic() < deadline:
        for fd, _ in epoll.poll(1):
            if fd == pipe.fileno():
                wanted = pipe.recv()
                epoll.unregister(fd)
                continue
            try:
                size = socks[fd].recv_into(buffer)
            except BlockingIOError:
                continue
            if not size:
                pipe.send(("closed", received, []))
                return
            received += size
            if timed:
                now = time.monotonic_ns()
                text = bytes(buffer[:size])
                delays += [
                    (now - int(part.split(b'"', 1)[0])) / 1e6
                    for part in text.split(b'"message":"')[1:]
                ]
    pipe.send(("done", received, delays))
    for sock in (*socks.values(), *asleep):
        sock.close()


class Bench:
    """The server side: an app with the socket, and a bus that is driven directly."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.stores = MemoryStores()
        self.bus = Bus()
        self.hub = LiveHub(self.bus, self.stores.logs, self.stores.runs, clock)
        self.passwords = Passwords()
        audit = AuditLog(self.stores.audit, clock)
        self.auth = AuthService(
            self.stores.accounts, KEY, clock, audit=audit, passwords=self.passwords
        )
        self.token = Tokens(KEY, clock, 3_600_000).issue(ACCOUNT)
        self.seq = 0
        self.id = 0
        self.sent_bytes = 0

    async def start(self) -> int:
        await self.stores.accounts.restore([ACCOUNT], [], {})
        await self.auth.start()
        needs = {"hub": self.hub, "auth": self.auth, "frames": Frames()}
        self.server = HTTPServer(Application([(r"/ws", TaskHubSocket, needs)]))
        (sock,) = bind_sockets(0, "127.0.0.1", backlog=1024)
        self.server.add_socket(sock)
        return sock.getsockname()[1]

    async def publish(self, lines: list[str]) -> None:
        segment = LogSegment(
            attempt=1, stream=Stream.STDOUT, level=Level.INFO, ts_ms=1, duration_ms=1, lines=lines
        )
        self.id += 1
        chunk = LogChunk(
            id=self.id,
            run_id="1893456000000_abcdef",
            task_id="t1",
            first_seq=self.seq + 1,
            count=len(lines),
            size=sum(map(len, lines)),
            ts_ms=1,
            segments=(segment,),
        )
        self.seq += len(lines)
        self.sent_bytes += len(log_frames(chunk))
        await self.stores.logs.append([chunk])
        self.bus.logs.publish(chunk)

    def command(self) -> bytes:
        return json.dumps(
            {
                "token": self.token,
                "op": "subscribe",
                "topic": "task_logs",
                "task_id": "t1",
                "run_id": "1893456000000_abcdef",
                "ack": True,
            }
        ).encode()


async def measure(
    clients: int, chunk: int, chunks: int, pause_s: float = 0.0, lazy: int = 0
) -> None:
    """Publish `chunks` chunks of `chunk` lines to `clients` sockets; print a row."""
    bench = Bench()
    port = await bench.start()
    ours, theirs = multiprocessing.Pipe()
    arguments = (theirs, port, bench.command(), clients, lazy, pause_s > 0)
    process = multiprocessing.get_context("spawn").Process(target=run_clients, args=arguments)
    process.start()
    await asyncio.to_thread(ours.recv)
    loop = asyncio.get_running_loop()
    lag: list[float] = []
    begin, cpu = time.monotonic(), time.process_time()
    for i in range(chunks):
        stamp = time.monotonic_ns()
        await bench.publish(
            [f"{stamp}" if pause_s else f"line {n} of chunk {i}" for n in range(chunk)]
        )
        before = loop.time()
        await asyncio.sleep(pause_s)
        lag.append(loop.time() - before - pause_s)
    ours.send(bench.sent_bytes * clients)
    state, received, delays = await asyncio.to_thread(ours.recv)
    took, cpu = time.monotonic() - begin, time.process_time() - cpu
    process.join()
    lost = bench.sent_bytes * clients - received
    rate = clients * bench.seq / took
    p50, p99 = (statistics.quantiles(delays, n=100)[i] if delays else 0.0 for i in (49, 98))
    print(
        f"{clients:>7} {chunk:>6} {chunks:>7} {rate:>12,.0f} {took:>7.2f} {cpu:>7.2f} "
        f"{p50:>7.1f} {p99:>7.1f} {max(lag) * 1000:>7.1f} {lost:>6} {lazy:>6} {state}"
    )
    await bench.server.close_all_connections()
    bench.server.stop()
    bench.passwords.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    clients = min(parser.parse_args().clients, 1000)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    print(
        "clients  lines  chunks    records/s  time s   cpu s  p50 ms  p99 ms  lag ms   lost   lazy"
    )
    await measure(clients, 1, 200, pause_s=0.1)
    await measure(clients, 1, 200)
    await measure(clients, 10, 200)
    await measure(clients, 100, 100)
    await measure(clients, 1000, 20)
    await measure(clients * 9 // 10, 100, 100, lazy=clients // 10)
    await measure(100, 1000, 100)
    await measure(1, 1, 20_000)
    await measure(1, 1000, 2000)


if __name__ == "__main__":
    asyncio.run(main())
