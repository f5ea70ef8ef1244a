"""Users, API tokens and the audit as clients see them; never a hash or a digest."""

from __future__ import annotations

from typing import Any

from taskhub.domain.audit import AuditEntry
from taskhub.ports.accounts import Account, ApiToken
from taskhub.services.roles import Principal


def user_item(account: Account) -> dict[str, Any]:
    """Return a user."""
    return {
        "username": account.username,
        "role": account.role,
        "disabled": account.disabled,
        "created_ts_ms": account.created_ms,
    }


def token_item(token: ApiToken) -> dict[str, Any]:
    """Return an API token without its secret."""
    return {
        "id": token.id,
        "name": token.name,
        "user": token.username,
        "role": token.role,
        "created_ts_ms": token.created_ms,
        "expires_ts_ms": token.expires_ms,
    }


def principal_item(principal: Principal) -> dict[str, Any]:
    """Return who asks; `token_id` is null after a login."""
    return {
        "username": principal.username,
        "role": principal.role.word,
        "token_id": principal.jti if principal.is_api else None,
        "expires_ts_ms": principal.expires_ms,
    }


def audit_item(entry: AuditEntry) -> dict[str, Any]:
    """Return what somebody did or tried."""
    return {
        "id": entry.id,
        "ts_ms": entry.ts_ms,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "address": entry.address,
        "outcome": entry.outcome.value,
        "detail": dict(entry.detail),
    }
