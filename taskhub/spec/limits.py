"""What a DAG may hold, and what of it may not be repeated; defaults as in docs/limits.md."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskhub.domain.secrets import Secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecLimits:
    """Upper bounds of what a task or DAG may say of itself; all inclusive.

    `secrets` tells which values no message about it may show.
    """

    tasks: int = 10_000
    name_chars: int = 256
    exec_command_bytes: int = 64 << 10
    exec_params_bytes: int = 256 << 10
    metadata_bytes: int = 64 << 10
    names: int = 1000
    retries: int = 100
    retry_delay_ms: int = 3_600_000
    secrets: Secrets = field(default_factory=Secrets)
