"""Logging in and out."""

from __future__ import annotations

from taskhub.errors import InvalidError, UnauthorizedError
from taskhub.services.auth import AuthService
from taskhub.spec.fields import Fields, Findings
from taskhub.web.base import ApiHandler
from taskhub.web.gate import bearer
from taskhub.web.problems import Answer, NotJsonError


class LoginHandler(ApiHandler):
    """/api/login. Its body is small, for it is read from anybody."""

    auth: AuthService
    max_body = 8 << 10
    answers = {  # noqa: RUF012  # declared on the base
        NotJsonError: Answer(400, 1001),
        InvalidError: Answer(400, 1003),
        UnauthorizedError: Answer(401, 1004),
    }

    async def post(self) -> None:
        findings = Findings()
        fields = Fields.of(await self.body(), "", findings)
        username, password = (_required(fields, name) for name in ("username", "password"))
        findings.raise_any()
        token = await self.auth.login(username, password, self.address)
        self.ok({"token": token, "username": username})


def _required(fields: Fields, name: str) -> str:
    value = fields.text(name)
    if not value and isinstance(fields.value.get(name, ""), str):
        fields.wrong(name, "is missing")
    return value


class LogoutHandler(ApiHandler):
    """/api/logout."""

    auth: AuthService

    async def post(self) -> None:
        await self.auth.logout(bearer(self.request), self.address)
        self.ok()
