"""A real mongod for tests: from the wheel that only the `test` extra installs, or from PATH."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from pymongo import MongoClient
from pymongo.errors import PyMongoError

START_S: Final = 30.0
REPLICA_SET: Final = "rs0"
MEMORY: Final = "/dev/shm"  # noqa: S108  # a folder in it, private to us


def find_mongod() -> str:
    """Return the path of a mongod; raise `FileNotFoundError` with what to do."""
    spec = importlib.util.find_spec("fiftyone")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(place) / "db/bin/mongod").exists():
            return str(path)
    if found := shutil.which("mongod"):
        return found
    raise FileNotFoundError("no mongod: install the extra `test`, or put one on PATH")


class Mongod:
    """One mongod on a free loopback port, with a folder of its own; standalone or replica set.

    `start` again after `stop` or `kill` finds the same port and data, which are kept in memory
    where that is possible, unless `on_disk`.
    """

    def __init__(
        self, *, replica_set: bool = False, on_disk: bool = False, flags: Sequence[str] = ()
    ) -> None:
        self.is_replica_set = replica_set
        self._flags = tuple(flags)
        self.port = _free_port()
        place = None if on_disk or not os.access(MEMORY, os.W_OK) else MEMORY
        self._folder = Path(tempfile.mkdtemp(prefix="taskhub-mongod-", dir=place))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address without a database: `mongodb://...`."""
        more = f"?replicaSet={REPLICA_SET}" if self.is_replica_set else ""
        return f"mongodb://127.0.0.1:{self.port}/{more}"

    def database_url(self, name: str) -> str:
        """Return the address of a database."""
        return self.url.replace("/?", f"/{name}?") if "?" in self.url else f"{self.url}{name}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it and wait until it takes writes."""
        folder = self._folder
        command = [find_mongod(), "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        command += ["--dbpath", str(folder), "--quiet", "--wiredTigerCacheSizeGB", "0.5"]
        command += ["--setParameter", "enableTestCommands=1", "--nounixsocket"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        command += self._flags
        if self.is_replica_set:
            command += ["--replSet", REPLICA_SET, "--oplogSize", "128"]
        with (folder / "mongod.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._await_writable(time.monotonic() + START_S)

    def _await_writable(self, deadline: float) -> None:
        with self.client() as client:
            is_told = not self.is_replica_set
            while True:
                try:
                    if not is_told:
                        is_told = self._initiate(client)
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return
                except PyMongoError:
                    self._raise_if_dead()
                if time.monotonic() > deadline:
                    raise TimeoutError("mongod does not become writable")
                time.sleep(0.02)  # of a process, not of our clock

    def _initiate(self, client: MongoClient[dict[str, object]]) -> bool:
        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        settings = {"electionTimeoutMillis": 1000}
        config = {"_id": REPLICA_SET, "members": [member], "settings": settings}
        try:
            client.admin.command("replSetInitiate", config)
        except PyMongoError as error:
            if getattr(error, "code", None) != 23:  # AlreadyInitialized
                raise
        return True

    def _raise_if_dead(self) -> None:
        process = self._process
        if process is not None and process.poll() is not None:
            log = (self._folder / "mongod.log").read_text(errors="replace")
            raise RuntimeError(f"mongod ended with {process.returncode}: {log[-2000:]}")

    def client(self) -> MongoClient[dict[str, object]]:
        """Return a client of its own, for looking behind the store's back."""
        return MongoClient(
            "127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=2000
        )

    def stop(self) -> None:
        """Shut it down in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure of the machine would, but for the disk's cache."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def step_down(self, seconds: int = 1) -> None:
        """Make the primary step down; alone in its set, it is elected again after that."""
        with self.client() as client:
            client.admin.command({"replSetStepDown": seconds, "force": True})

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: int) -> None:
        self._signal(number)
        if self._process is not None:
            self._process.wait(30)
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
