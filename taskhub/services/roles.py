"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from taskhub.errors import InvalidError


class Role(IntEnum):
    """What an account may do; each may do what those below it may."""

    VIEWER = 1
    RUNNER = 2
    OPERATOR = 3
    ADMIN = 4

    @property
    def word(self) -> str:
        """The name that accounts carry."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """Return the role an account's word names; raise `InvalidError`."""
        try:
            return cls[word.upper()]
        except KeyError:
            known = ", ".join(role.word for role in cls)
            raise InvalidError(f"no role {word[:40]!r}; there are {known}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who has shown a good token.

    `jti` names the token, `version` is the account's when it was shown. `is_api` says that it is
    an API token; `expires_ms` is 0 for one that never expires.
    """

    username: str
    role: Role
    jti: str
    expires_ms: int
    version: int = 0
    is_api: bool = False
