"""What a login hands out: a signed, short-lived statement of who it was."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from taskhub.errors import ConfigError, UnauthorizedError
from taskhub.ports.accounts import Account
from taskhub.ports.clock import Clock

ALGORITHM: Final = "HS256"
ISSUER: Final = "taskhub"
SHORTEST_KEY: Final = 32
LONGEST_TOKEN: Final = 4096
REQUIRED: Final = ("exp", "iat", "iss", "jti", "sub", "ver")
NO_TOKEN: Final = "missing or invalid token"  # noqa: S105  # one message for all that is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says: whose it is, its own name, until when, and of which account version."""

    username: str
    jti: str
    expires_ms: int
    version: int


class Tokens:
    """Signs and reads JSON Web Tokens, HS256 and nothing else.

    Expiry is judged by our clock, so that tests and a clock set back behave. PyJWT is imported on
    first use: it brings urllib along, and the start must be quick.
    """

    def __init__(self, key: bytes, clock: Clock, ttl_ms: int) -> None:
        if len(key) < SHORTEST_KEY:
            raise ConfigError(f"the token key needs {SHORTEST_KEY} bytes or more, not {len(key)}")
        self._key = key
        self._clock = clock
        self._ttl_ms = ttl_ms

    def issue(self, account: Account) -> str:
        """Return a new token for the account as it is now."""
        import jwt  # noqa: PLC0415  # see the class

        now_s = self._clock.now_ms() // 1000
        claims = {
            "iss": ISSUER,
            "sub": account.username,
            "jti": secrets.token_hex(16),
            "iat": now_s,
            "exp": now_s + self._ttl_ms // 1000,
            "ver": account.version,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def read(self, token: str) -> Claims:
        """Return what a good token says; raise `UnauthorizedError` for any other."""
        claims = self._verified(token)
        match claims:
            case {"sub": str(sub), "jti": str(jti), "iat": int(), "exp": int(exp), "ver": int(ver)}:
                found = Claims(username=sub, jti=jti, expires_ms=exp * 1000, version=ver)
            case _:
                raise UnauthorizedError(NO_TOKEN)
        if found.expires_ms <= self._clock.now_ms():
            raise UnauthorizedError(NO_TOKEN)
        return found

    def _verified(self, token: str) -> dict[str, Any]:
        import jwt  # noqa: PLC0415  # see the class

        if len(token) > LONGEST_TOKEN:
            raise UnauthorizedError(NO_TOKEN)
        options: Any = {
            "require": REQUIRED,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        }
        try:
            return jwt.decode(
                token, self._key, algorithms=[ALGORITHM], issuer=ISSUER, options=options
            )
        except Exception:  # noqa: BLE001  # a header of 1,500 brackets is a RecursionError
            raise UnauthorizedError(NO_TOKEN) from None
