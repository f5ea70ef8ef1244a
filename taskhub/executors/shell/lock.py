"""One spawner at a time for a data directory, over the death of its server."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Final

WAIT_S: Final = 20.0
POLL_S: Final = 0.02


async def acquire(state_dir: str) -> int:
    """Return a locked descriptor; wait while the spawner of a dead server still ends processes.

    A task that is repeated must not meet the attempt before. Raises `TimeoutError`.
    """
    fd = _open(Path(state_dir))
    try:
        async with asyncio.timeout(WAIT_S):
            while not _try_lock(fd):  # noqa: ASYNC110  # the kernel offers nothing to await
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        os.close(fd)
        raise TimeoutError("processes of an earlier server do not end") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(folder / "spawner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
