"""Everybody who is known, and what tokens are good, as of one moment."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskhub.errors import UnauthorizedError
from taskhub.ports.accounts import Account, AccountStore, ApiToken
from taskhub.services.roles import Principal, Role
from taskhub.services.tokens import NO_TOKEN, Claims

API_PREFIX = "th_"


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """All accounts, API tokens and revoked login tokens of one revision of the store."""

    revision: int = -1
    accounts: Mapping[str, Account] = field(default_factory=dict)
    tokens: Mapping[str, ApiToken] = field(default_factory=dict)
    revoked: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    async def load(cls, store: AccountStore, now_ms: int) -> People:
        """Read everybody; what changes meanwhile belongs to a later revision."""
        revision = await store.revision()
        return cls(
            revision=revision,
            accounts={account.username: account for account in await store.accounts()},
            tokens={token.id: token for token in await store.tokens()},
            revoked=dict(await store.revoked(now_ms)),
        )

    def of_login(self, claims: Claims) -> Principal:
        """Return whose login token it is; raise `UnauthorizedError`."""
        account = self.accounts.get(claims.username)
        if (
            account is None
            or account.disabled
            or account.version != claims.version
            or claims.jti in self.revoked
        ):
            raise UnauthorizedError(NO_TOKEN)
        return Principal(
            username=account.username,
            role=Role.of(account.role),
            jti=claims.jti,
            expires_ms=claims.expires_ms,
            version=account.version,
        )

    def of_api_token(self, text: str, now_ms: int) -> Principal:
        """Return for whom an API token acts; raise `UnauthorizedError`."""
        token_id, _, secret = text.removeprefix(API_PREFIX).partition("_")
        token = self.tokens.get(token_id)
        digest = digest_of(secret)
        if token is None or not hmac.compare_digest(digest, token.digest):
            raise UnauthorizedError(NO_TOKEN)
        return self._of_api_token(token, now_ms)

    def _of_api_token(self, token: ApiToken, now_ms: int) -> Principal:
        """Return for whom a token acts; one that is older than its user was another's."""
        account = self.accounts.get(token.username)
        is_over = 0 < token.expires_ms <= now_ms
        is_older = account is not None and token.created_ms < account.created_ms
        if account is None or account.disabled or is_over or is_older:
            raise UnauthorizedError(NO_TOKEN)
        return Principal(
            username=account.username,
            role=min(Role.of(account.role), Role.of(token.role)),
            jti=token.id,
            expires_ms=token.expires_ms,
            is_api=True,
        )

    def knows(self, principal: Principal, now_ms: int) -> bool:
        """Say whether somebody who was let in would be let in again, with the same role."""
        try:
            return self._again(principal, now_ms) == principal
        except UnauthorizedError:
            return False

    def _again(self, principal: Principal, now_ms: int) -> Principal:
        if not principal.is_api:
            claims = Claims(
                username=principal.username,
                jti=principal.jti,
                expires_ms=principal.expires_ms,
                version=principal.version,
            )
            return self.of_login(claims)
        token = self.tokens.get(principal.jti)
        if token is None:
            raise UnauthorizedError(NO_TOKEN)
        return self._of_api_token(token, now_ms)


def digest_of(secret: str) -> str:
    """Return what is stored of an API token's secret, which is random enough for a plain hash."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
