"""Two real mongods for all tests of a process: a standalone, and a replica set of one."""

from __future__ import annotations

import atexit
import itertools
from contextlib import ExitStack

from taskhub.testing.mongod import Mongod

NAMES = (f"t{number}" for number in itertools.count(1))
SERVERS = ExitStack()
RUNNING: dict[bool, Mongod] = {}
atexit.register(SERVERS.close)


def running(*, replica_set: bool) -> Mongod:
    """Return the one of that kind, started when it is first wanted."""
    if replica_set not in RUNNING:
        RUNNING[replica_set] = SERVERS.enter_context(Mongod(replica_set=replica_set))
    return RUNNING[replica_set]


def new_url(mongod: Mongod) -> str:
    """Return the address of a database that was not there before."""
    return mongod.database_url(next(NAMES))
