"""Which processes belong to an attempt, and how to end them all."""

from __future__ import annotations

import contextlib
import os
import resource
import signal

FREEZE_PASSES = 50
QUICK_LOOKS = 100
KEY_NAME = b"TASKHUB_ATTEMPT_KEY="


class Attempt:
    """The process tree of one attempt; `known` are its members seen, as (pid, start time)."""

    __slots__ = ("deadline", "key", "known", "pid", "reaped", "tag", "token")

    def __init__(self, token: int, pid: int, key: bytes, tag: int) -> None:
        self.token = token
        self.pid = pid
        self.key = KEY_NAME + key + b"\0"
        self.tag = tag
        self.known: set[tuple[int, int]] = set()
        self.reaped = False
        self.deadline = 0.0


class Tags:
    """Marks children by a soft RLIMIT_RTTIME that means nothing: it outlives setsid and `env -i`.

    The limit counts microseconds of real-time scheduling without a blocking call; ours are
    beyond 70,000 years.
    """

    def __init__(self) -> None:
        self._hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
        self._base = (1 << 61) | (int.from_bytes(os.urandom(3), "little") << 36)

    def next(self, token: int) -> int:
        """Mark this process, thus the child it starts next; return the mark, 0 if impossible."""
        tag = self._base + token
        try:
            resource.setrlimit(resource.RLIMIT_RTTIME, (tag, self._hard))
        except (ValueError, OSError):
            return 0
        return tag

    @staticmethod
    def read(pid: int) -> int:
        """Return the mark of a process; whatever its limit is if it has none."""
        try:
            return resource.prlimit(pid, resource.RLIMIT_RTTIME)[0]
        except (ProcessLookupError, PermissionError):
            return 0


class Process:
    """What /proc says of a process."""

    __slots__ = ("group", "pid", "ppid", "session", "start", "state")

    def __init__(self, pid: int, stat: bytes) -> None:
        fields = stat[stat.rindex(b")") + 2 :].split(None, 20)
        self.pid = pid
        self.state = fields[0]
        self.ppid, self.group, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.start = int(fields[19])


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, 1 << 20)
    except OSError:
        return b""
    finally:
        os.close(fd)


class Clues:
    """By what a process is known to belong to an attempt, each kind of number by itself."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self.sessions = {a.pid: a for a in attempts if a.pid > 1}
        self.tags = {a.tag: a for a in attempts if a.tag > 0}
        self.known = {process: a for a in attempts for process in a.known}


def find(attempts: list[Attempt]) -> dict[Attempt, list[Process]]:
    """Return the living processes of each attempt, however they tried to get away.

    A process belongs where it, or the nearest ancestor of which it is known, has the tag, the
    session or the attempt key in its environment, or belonged at an earlier look.
    """
    table: dict[int, Process] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # Path costs more than the rest
        if name.isdigit() and (stat := _read(f"/proc/{name}/stat")):
            table[int(name)] = Process(int(name), stat)
    clues = Clues(attempts)
    owners: dict[int, Attempt | None] = {1: None, os.getpid(): None}
    found: dict[Attempt, list[Process]] = {attempt: [] for attempt in attempts}
    for process in table.values():
        owner = _owner(process, table, owners, clues, attempts)
        if owner and process.state not in b"ZX":
            owner.known.add((process.pid, process.start))
            found[owner].append(process)
    return found


def _owner(
    process: Process | None,
    table: dict[int, Process],
    owners: dict[int, Attempt | None],
    clues: Clues,
    attempts: list[Attempt],
) -> Attempt | None:
    path: list[int] = []
    owner = None
    while process is not None:
        if process.pid in owners:
            owner = owners[process.pid]
            break
        path.append(process.pid)
        owner = (
            clues.sessions.get(process.session)
            or clues.known.get((process.pid, process.start))
            or clues.tags.get(Tags.read(process.pid))
            or _owner_by_environment(process, attempts)
        )
        if owner:
            break
        process = table.get(process.ppid)
    owners.update(dict.fromkeys(path, owner))
    return owner


def _owner_by_environment(process: Process, attempts: list[Attempt]) -> Attempt | None:
    environment = _read(f"/proc/{process.pid}/environ")
    if KEY_NAME in environment:
        for attempt in attempts:
            if attempt.key in environment:
                return attempt
    return None


def send_signal(pid: int, number: int) -> None:
    """Signal a process, or a group by its negative number, that may be gone.

    0, 1 and -1 are nobody's attempt, but this process's own group, init, and everybody.
    """
    if abs(pid) <= 1:
        return
    # pids are given out in turn, so one just seen in /proc is not another's a moment later
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill(attempts: list[Attempt], *, restless: bool) -> None:
    """End all that `find` finds, frozen first: what forks faster than we look cannot get away.

    `restless` says that processes come and go unseen, so the quick look is repeated until it
    catches one: whatever is frozen does not fork.
    """
    frozen: set[int] = set()
    for _ in range(QUICK_LOOKS if restless else 0):
        frozen |= _freeze_on_sight(attempts, frozen)
        if frozen:
            break
    for _ in range(FREEZE_PASSES):
        seen = _freeze_on_sight(attempts, frozen)
        seen |= {p.pid for processes in find(attempts).values() for p in processes}
        if seen <= frozen:
            break
        for pid in seen - frozen:
            send_signal(pid, signal.SIGSTOP)
        frozen |= seen
    for pid in frozen:
        send_signal(pid, signal.SIGKILL)


def _freeze_on_sight(attempts: list[Attempt], frozen: set[int]) -> set[int]:
    """Freeze what has a tag, the newest first: a chain of short-lived forks outruns `find`."""
    tags = {attempt.tag for attempt in attempts} - {0}
    passed = frozen | {os.getpid()}  # we have the tag of the child we started last
    seen = set()
    for name in reversed(os.listdir("/proc")):  # noqa: PTH208  # Path costs more than the rest
        if name.isdigit() and (pid := int(name)) not in passed and Tags.read(pid) in tags:
            send_signal(pid, signal.SIGSTOP)
            seen.add(pid)
    return seen
