"""Who gets in: the one place where a request is let through or not."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from taskhub.domain.secrets import Secrets
from taskhub.errors import ForbiddenError, UnauthorizedError
from taskhub.services.audit_log import AuditLog
from taskhub.services.auth import AuthService
from taskhub.services.deadline import ANSWER_S
from taskhub.services.origin import Origin
from taskhub.services.roles import Principal, Role
from taskhub.services.tokens import NO_TOKEN
from taskhub.spec.limits import SpecLimits
from taskhub.web.offload import Offload

ANONYMOUS: Final = "anonymous"
LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


class Open(Enum):
    """What stands in the route table where no role is asked for."""

    PUBLIC = "anybody"
    FIRST_MESSAGE = "the socket itself asks for a token before it sends anything"


Permission = Role | Open
Permissions = Mapping[str, Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """What the HTTP layer may be told.

    `is_loopback`: the server listens on loopback addresses only, so a request for any other host
    name is a browser tricked by DNS. With `allowed_hosts` this is checked on every address.
    `answer_s`: within which a GET is answered. `is_seed`: what the original answered without a
    token is answered without one here, too.
    """

    body_bytes: int = 1 << 20
    json_depth: int = 64
    is_loopback: bool = True
    allowed_hosts: frozenset[str] = frozenset()
    answer_s: float = ANSWER_S
    is_seed: bool = False
    spec: SpecLimits = field(default_factory=SpecLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What every handler needs besides its services."""

    auth: AuthService
    audit: AuditLog
    settings: WebSettings
    offload: Offload

    @property
    def secrets(self) -> Secrets:
        """Which values no answer may show."""
        return self.settings.spec.secrets

    def check_site(self, request: HTTPServerRequest) -> None:
        """Refuse a Host that is not ours, and a browser's request from another site's page."""
        if not self._is_our_host(host_name(request.host)):
            raise ForbiddenError("this server is not known by that Host name")
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_our_origin(origin, request.host):
            raise ForbiddenError("requests from pages of other sites are not accepted")

    async def admit(
        self, request: HTTPServerRequest, permission: Permission, *, in_seed: bool = False
    ) -> Principal | None:
        """Return who asks; raise `UnauthorizedError` or `ForbiddenError`.

        `in_seed`: in seed mode nobody needs a token here; a request that has one goes by it.
        """
        if isinstance(permission, Open):
            return None
        if in_seed and self.settings.is_seed and "Authorization" not in request.headers:
            return _anonymous(request, permission)
        principal = await self.auth.authenticate(bearer(request))
        if principal.role < permission:
            needed = permission.word
            token = principal.jti if principal.is_api else ""
            origin = Origin(principal.username, request.remote_ip or "", token)
            target = f"{request.method} {request.path}"
            await self.audit.note_refusal(origin, target, needed)
            raise ForbiddenError(f"this needs the role {needed}; yours is {principal.role.word}")
        return principal

    def _is_our_host(self, name: str) -> bool:
        if not self.settings.is_loopback and not self.settings.allowed_hosts:
            return True
        return name in LOOPBACK_NAMES or name in self.settings.allowed_hosts or _is_address(name)

    def _is_our_origin(self, origin: str, host: str) -> bool:
        try:
            netloc = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return netloc == host.lower() or host_name(netloc) in self.settings.allowed_hosts


def _anonymous(request: HTTPServerRequest, role: Role) -> Principal:
    """Return a caller without a token, who may do what the route asks for and nothing beyond."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        # a page may have its reader's browser ask for an image here, which carries no Origin
        raise ForbiddenError("requests from pages of other sites are not accepted")
    return Principal(username=ANONYMOUS, role=role, jti="", expires_ms=0)


def bearer(request: HTTPServerRequest) -> str:
    """Return the token of the Authorization header, or raise `UnauthorizedError`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError(NO_TOKEN)
    return token.strip()


def host_name(host: str) -> str:
    """Return a Host header without its port, in lower case, an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _is_address(name: str) -> bool:
    # No name server can point an address somewhere else, so none is a trick.
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
