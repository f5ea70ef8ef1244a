"""What an operator may set, declared once: default, range and help in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T", str, int, float, Path, tuple[str, ...])

DATA_DIR: Final = Path("taskhub-data")


def setting(
    default: T,
    help: str,  # noqa: A002  # the word for it
    *,
    least: float = 0,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """Declare a setting; its type is that of its default. `least` and `most` bound numbers."""
    limits = {"help": help, "least": least, "most": most, "choices": choices}
    return field(default=default, metadata=limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where it listens, and where it keeps what it knows."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8082, "Port of the API and of /ws; 0 takes a free one.", most=65535)
    data_dir: Path = setting(  # noqa: RUF009  # a Path is immutable
        DATA_DIR,
        "Folder of the database, keys and running attempts, for one server. Made if missing.",
    )
    ws_port: int = setting(
        0, "A second port that only speaks WebSocket, on any path; 0 is off.", most=65535
    )
    allowed_hosts: tuple[str, ...] = setting(
        (), "Host names that clients may use; empty: any, or on loopback only its own."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """How runs, logs and accounts are stored."""

    url: str = setting(
        "sqlite:",
        'Files in server.data_dir ("sqlite:"), "mongodb://host/database", or "memory:" for tests.',
    )
    sync: str = setting(
        "FULL",
        "FULL survives a power failure; NORMAL is faster and survives a crash of the server only.",
        choices=("FULL", "NORMAL"),
    )
    start_timeout_s: float = setting(
        60.0, "Seconds that a start waits for a store that is away, then it gives up."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who gets in."""

    mode: str = setting(
        "closed",
        "closed asks for a token; seed opens what the original left open, on loopback only.",
        choices=("closed", "seed"),
    )
    token_ttl_s: int = setting(7200, "Life of a login token, in seconds.", least=1)
    login_failures: int = setting(5, "Wrong passwords until a name has to wait.", least=1)
    login_window_s: int = setting(300, "Seconds over which these are counted.", least=1)
    secret_names: tuple[str, ...] = setting(
        (), 'More names whose values are masked, beside password, token and such: "*_pin".'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request, one task and one server may use."""

    body_bytes: int = setting(1 << 20, "Size of a request body.", least=1024)
    json_depth: int = setting(64, "Depth of nesting in a body.", least=4, most=200)
    dag_tasks: int = setting(10_000, "Tasks in one DAG.", least=1)
    exec_command_bytes: int = setting(64 << 10, "Size of an exec_command.", least=1)
    exec_params_bytes: int = setting(256 << 10, "Size of exec_params as JSON.", least=2)
    retries: int = setting(100, "Highest retry_count a task may ask for.")
    running_attempts: int = setting(64, "Attempts that run at once, over all runs.", least=1)
    queued_runs: int = setting(10_000, "Runs not ended yet; above, a new one gets 429.", least=1)
    line_bytes: int = setting(
        16 << 10,
        "Length at which an output line is continued in the next record.",
        least=64,
        most=128 << 10,
    )
    output_bytes: int = setting(
        64 << 20, "Output kept of one attempt; what is beyond is counted and marked.", least=1024
    )
    answer_output_bytes: int = setting(
        256 << 10,
        "End of stdout, and of stderr, that a task_run's answer carries.",
        least=0,
        most=3 << 20,
    )
    free_disk_bytes: int = setting(
        512_000_000, "Free space in server.data_dir below which nothing new is accepted.", least=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """What one WebSocket client may use."""

    connections: int = setting(1000, "Sockets at once.", least=1)
    subscriptions: int = setting(200, "Subscriptions of one socket.", least=1)
    queue_messages: int = setting(512, "Messages waiting for a slow reader.", least=1)
    queue_bytes: int = setting(1 << 20, "Bytes waiting for a slow reader.", least=1024)
    auth_timeout_s: float = setting(5.0, "Seconds to send a valid token.", least=0.01)
    ping_s: float = setting(30.0, "Seconds between pings; two without an answer close.", least=0.1)
    commands: int = setting(30, "Commands of one socket in socket.command_window_s.", least=1)
    command_window_s: float = setting(10.0, "Seconds over which these are counted.", least=0.1)
    stall_s: float = setting(5.0, "Seconds a full queue may make no progress.", least=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long history is kept."""

    run_days: int = setting(30, "Days that ended runs and their events are kept.", least=1)
    log_days: int = setting(14, "Days that log lines are kept.", least=1)
    log_bytes: int = setting(
        10_000_000_000, "Log text kept in all; the oldest goes first.", least=1 << 20
    )
    audit_days: int = setting(365, "Days that the audit is kept.", least=1)
    interval_s: float = setting(600.0, "Seconds between clean-ups.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """What SIGTERM grants."""

    grace_s: float = setting(20.0, "Seconds that running work gets to finish before it is ended.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the server says of itself, on stderr."""

    level: str = setting(
        "info",
        "The least grave line to write: debug, info, warning or error.",
        choices=("debug", "info", "warning", "error"),
    )
    format: str = setting(
        "auto",
        "text is for people, json for machines; auto is text on a terminal, else json.",
        choices=("auto", "json", "text"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of one server; only the command line and `bootstrap` look at it.

    `executors` maps an exec_type in lower case to its free-form `[executors.NAME]` table. `dev`
    comes from the flag only.
    """

    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)
    auth: Auth = field(default_factory=Auth)
    limits: Limits = field(default_factory=Limits)
    socket: Socket = field(default_factory=Socket)
    retention: Retention = field(default_factory=Retention)
    shutdown: Shutdown = field(default_factory=Shutdown)
    log: Log = field(default_factory=Log)
    executors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dev: bool = False
