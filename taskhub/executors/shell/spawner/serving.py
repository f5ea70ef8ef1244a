"""Takes requests from the server, one turn after another."""

from __future__ import annotations

import array
import contextlib
import errno
import marshal
import os
import select
import signal
import socket
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taskhub.executors.shell.spawner.protocol import (
        ANSWER,
        EXITED,
        FRAME,
        NO_CWD,
        NOT_STARTED,
        READY,
        SPAWN,
        STOP,
        STOPPED,
    )
    from taskhub.executors.shell.spawner.trees import Attempt, Tags, find, kill, send_signal
else:
    from protocol import ANSWER, EXITED, FRAME, NO_CWD, NOT_STARTED, READY, SPAWN, STOP, STOPPED
    from trees import Attempt, Tags, find, kill, send_signal

ORPHAN_GRACE_S = 2.0
GIVE_UP_S = 10.0
TICK_S = 0.02
LOOK_SHARE = 4.0
"""Time left for starting others, in times of what a look at /proc takes."""
UNREST = 3
"""Looks in a row between which orphans ended: something forks and exits all the time."""
UNKNOWN = 0
SPAWNS_A_TURN = 8
MSG_CMSG_CLOEXEC = 0x40000000


class Spawner:
    """Serves one socket until it closes."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._requests: deque[tuple[object, ...]] = deque()
        self._answers: list[bytes] = []
        self._running: dict[int, Attempt] = {}
        self._tokens: dict[int, Attempt] = {}
        self._asked: list[Attempt] = []
        self._stopping: list[Attempt] = []
        self._tags = Tags()
        self._orphans = 0
        self._unrest = 0
        self._next_look = 0.0
        self._alone = False
        self._nowhere = os.open(os.devnull, os.O_RDWR)
        wake, wake_writer = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_writer, False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self._epoll = select.epoll()
        self._epoll.register(wake, select.EPOLLIN)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        # the socket alone would not tell while a fork of the server holds its other end
        self._server = os.pidfd_open(os.getppid())
        self._epoll.register(self._server, select.EPOLLIN)

    def serve(self) -> None:
        """Do as the server says; when it is gone, end what runs and return."""
        self._answer(0, READY, os.getpid())
        self._flush()
        poll, wake = self._epoll.poll, self._wake
        while not self._alone or self._stopping:
            for fd, _ in poll(0 if self._requests else self._patience()):
                if fd == wake:
                    os.read(wake, 4096)
                elif fd == self._server:
                    self._server_gone()
                elif not self._alone:
                    self._receive()
            self._turn()

    def _turn(self) -> None:
        spawns = 0
        while self._requests and spawns < SPAWNS_A_TURN:
            request = self._requests.popleft()
            if request[0] == SPAWN:
                spawns += 1
                self._spawn(*request[1:])  # type: ignore[arg-type]
            elif request[0] == STOP:
                self._stop(*request[1:])  # type: ignore[arg-type]
            else:
                self._sweep(*request[1:])  # type: ignore[arg-type]
        self._reap()
        if self._asked:
            self._ask_the_rest()
        if self._stopping and time.monotonic() >= self._next_look:
            self._press()
        if self._answers:
            self._flush()

    def _patience(self) -> float:
        return max(0.0, self._next_look - time.monotonic()) if self._stopping else -1

    def _receive(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                1 << 18, socket.CMSG_SPACE(4 * 256), MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except OSError:
            data, ancillary = b"", []
        for _, _, content in ancillary:
            self._descriptors.extend(array.array("i", content))
        if not data:
            self._server_gone()
            return
        received = self._received
        received += data
        while len(received) >= FRAME.size:
            end = FRAME.size + FRAME.unpack_from(received)[0]
            if len(received) < end:
                break
            self._requests.extend(marshal.loads(received[FRAME.size : end]))  # noqa: S302  # from our own server
            del received[:end]

    def _server_gone(self) -> None:
        if self._alone:
            return
        self._alone = True
        self._epoll.unregister(self._socket.fileno())
        self._epoll.unregister(self._server)
        self._requests.clear()
        for token in list(self._tokens):
            self._stop(token, ORPHAN_GRACE_S)

    def _spawn(
        self,
        token: int,
        shell: bytes,
        command: bytes,
        cwd: bytes,
        env: dict[bytes, bytes],
        key: bytes,
        captured: bool,  # noqa: FBT001  # fields of a message
    ) -> None:
        nowhere = self._nowhere
        take = self._descriptors.popleft
        out, err = (take(), take()) if captured else (nowhere, nowhere)
        kind = NO_CWD
        try:
            os.chdir(cwd)
            kind = NOT_STARTED
            tag = self._tags.next(token)
            start = os.posix_spawn if b"/" in shell else os.posix_spawnp
            pid = start(
                shell,
                (shell, b"-c", command),
                env,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ),
                setsid=True,
            )
        except (OSError, ValueError) as exc:
            self._answer(token, kind, getattr(exc, "errno", None) or errno.EINVAL)
        else:
            self._running[pid] = self._tokens[token] = Attempt(token, pid, key, tag)
        if captured:
            os.close(out)
            os.close(err)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            attempt = self._running.pop(pid, None)
            if attempt is None:
                self._orphans += 1
                continue
            attempt.reaped = True
            self._answer(attempt.token, EXITED, status)
            if attempt.deadline:
                self._next_look = 0.0  # it may have been the last of its tree
            else:
                del self._tokens[attempt.token]

    def _stop(self, token: int, grace: float) -> None:
        attempt = self._tokens.get(token)
        if attempt is None:
            self._answer(token, STOPPED, 0)
            return
        deadline = time.monotonic() + grace
        if attempt.deadline:
            attempt.deadline = min(attempt.deadline, deadline)
            return
        attempt.deadline = deadline
        self._stopping.append(attempt)
        self._asked.append(attempt)
        self._next_look = 0.0
        # the whole group at once, so that a shell cannot start its next command in between
        send_signal(-attempt.pid, signal.SIGTERM)
        send_signal(-attempt.pid, signal.SIGCONT)

    def _sweep(self, token: int, key: bytes, grace: float) -> None:
        attempt = Attempt(token, UNKNOWN, key, 0)
        attempt.reaped = True
        attempt.deadline = time.monotonic() + grace
        self._tokens[token] = attempt
        self._stopping.append(attempt)
        self._asked.append(attempt)
        self._next_look = 0.0

    def _ask_the_rest(self) -> None:
        for attempt, processes in find(self._asked).items():
            for process in processes:
                if process.group != attempt.pid:
                    send_signal(process.pid, signal.SIGTERM)
                    send_signal(process.pid, signal.SIGCONT)
        self._asked.clear()

    def _press(self) -> None:
        """Look at what is being stopped: all gone, time to kill, or wait on.

        Where orphans ended since the last look, others may have been born and missed: look again.
        """
        now = time.monotonic()
        self._unrest = self._unrest + 1 if self._orphans else 0
        self._orphans = 0
        due = []
        for attempt, processes in find(self._stopping).items():
            gone = not processes and attempt.reaped and not self._unrest
            if gone or now > attempt.deadline + GIVE_UP_S:
                self._stopping.remove(attempt)
                del self._tokens[attempt.token]
                self._answer(attempt.token, STOPPED, len(processes))
            elif now >= attempt.deadline:
                due.append(attempt)
        looked = time.monotonic()
        if due:
            kill(due, restless=self._unrest >= UNREST)
        self._next_look = time.monotonic() + max(TICK_S, LOOK_SHARE * (looked - now))

    def _answer(self, token: int, kind: int, value: int) -> None:
        self._answers.append(ANSWER.pack(token, kind, value))

    def _flush(self) -> None:
        with contextlib.suppress(OSError):  # the next receive finds the socket closed
            if not self._alone:
                self._socket.sendall(b"".join(self._answers), socket.MSG_NOSIGNAL)
        self._answers.clear()
