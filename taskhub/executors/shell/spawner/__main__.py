"""Becomes what children shall inherit, then serves."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taskhub.executors.shell.spawner.serving import Spawner
else:
    from serving import Spawner

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Serve the socket whose descriptor is the first argument; hold on to the others."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, because an ignored one is inherited
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sock = socket.socket(fileno=int(sys.argv[1]))
    for fd in map(int, sys.argv[1:]):
        os.set_inheritable(fd, False)  # noqa: FBT003  # the standard library's own
    gc.disable()
    gc.freeze()
    Spawner(sock).serve()


if __name__ == "__main__":
    main()
