"""Who did what: one line of the audit."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from taskhub.domain.task import JSON


class Outcome(StrEnum):
    """How it went."""

    OK = "ok"
    DENIED = "denied"
    """Refused: wrong password, missing right."""


class AuditEntry(NamedTuple):
    """One thing that somebody did or tried.

    `id` orders entries and is unique; a store that has another entry of the same `id` and another
    `key` gives the new one the next free id. `key` is random: the same key is the same entry, so
    that a write can be repeated. `actor` is a user name or `cli:<OS user>`, empty where nobody was
    known; `target` names what it was done to; `address` is where it came from. `detail` is a JSON
    object without secrets.
    """

    id: int
    key: str
    ts_ms: int
    actor: str
    action: str
    target: str
    address: str
    outcome: Outcome
    detail: Mapping[str, JSON]
