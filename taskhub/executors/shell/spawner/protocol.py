"""What the server and the spawner say to each other.

A request frame is a length (`FRAME`) and the marshalled list of requests, each a tuple:
(SPAWN, token, shell, command, cwd, env, key, captured), (STOP, token, seconds of grace) or (SWEEP,
token, key, seconds of grace), which stops what a spawner that died has left of an attempt. Two
descriptors, stdout and stderr, come along in order for each captured SPAWN. An answer is
(token, kind, value) as `ANSWER` packs it: READY pid, NO_CWD errno, NOT_STARTED errno, EXITED
wait status, STOPPED number of processes that are still alive.
"""

from __future__ import annotations

import struct

FRAME = struct.Struct("<I")
ANSWER = struct.Struct("<qii")
SPAWN, STOP, SWEEP = range(3)
READY, NO_CWD, NOT_STARTED, EXITED, STOPPED = range(5)
