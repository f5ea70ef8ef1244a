"""What a server takes of the machine before anything else: its folder, its secrets, its port."""

from __future__ import annotations

import ctypes
import os
import resource
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from taskhub.errors import ConfigError

KEY_BYTES: Final = 32
PR_SET_DUMPABLE: Final = 4
DESCRIPTORS: Final = 65_536


def make_directory(directory: Path) -> Path:
    """Make the data directory if it is missing, for its owner only; raise `ConfigError`."""
    probe = directory / f".writable-{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from None
    return directory


def secret_key(path: Path) -> bytes:
    """Return this installation's key, made on the first start; refuse one that is too short."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(KEY_BYTES)
        write_private(path, key)
    if len(key) < KEY_BYTES:
        raise ConfigError(f"{path} holds {len(key)} bytes, {KEY_BYTES} are needed")
    return key


def node_id(directory: Path) -> str:
    """Return what names this data directory among those of other servers; made once."""
    path = directory / "node-id"
    if not path.exists():
        write_private(path, secrets.token_hex(8).encode())
    return path.read_text().strip()


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Take an address without listening yet: a taken port is noticed before runs are touched."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)  # noqa: FBT003  # positional only
        listener.bind(address)
        yield listener


def raise_descriptor_limit() -> None:
    """Use what the machine allows: each socket takes one descriptor, each Shell attempt two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, DESCRIPTORS), hard))


def forbid_dumps() -> None:
    """Keep processes of the same user from reading this one's memory, where the keys are."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def boot_id() -> str:
    """Return what tells one start of the machine from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
