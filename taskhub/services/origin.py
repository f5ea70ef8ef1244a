"""Who asks for something, and from where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """What the audit says of a caller: a user name or `cli:<OS user>`, and a network address."""

    actor: str
    address: str = ""
