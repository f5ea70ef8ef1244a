"""Who asks for something, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Origin:
    """What the audit says of a caller.

    A user name or `cli:<OS user>`, a network address, and the id of the API token that was shown.
    """

    actor: str
    address: str = ""
    token: str = ""


NOBODY: Final = Origin("")
