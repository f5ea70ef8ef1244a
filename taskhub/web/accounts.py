"""Users, API tokens, and who did what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from taskhub.domain.audit import Outcome
from taskhub.errors import ForbiddenError, NotFoundError, UnauthorizedError
from taskhub.ports.accounts import AuditQuery
from taskhub.ports.store import Page
from taskhub.services.accounts import Accounts
from taskhub.services.audit_log import AuditLog
from taskhub.services.auth import AuthService
from taskhub.services.roles import Role
from taskhub.web.account_bodies import load_change, load_password_change, load_token, load_user
from taskhub.web.account_views import audit_item, principal_item, token_item, user_item
from taskhub.web.base import ApiHandler
from taskhub.web.query import Query
from taskhub.web.views import page

EVERYBODY: Final = "*"
ITEM_BYTES: Final = 300
"""About what one user, token or entry takes."""
OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
WHOLE: Final[Page[Any]] = Page(items=())


class UsersHandler(ApiHandler):
    """/api/users."""

    accounts: Accounts

    async def get(self) -> None:
        users = await self.accounts.all()
        await self.reply_large(lambda: _listed([user_item(each) for each in users]), _size(users))

    async def post(self) -> None:
        user = load_user(await self.body())
        made = await self.accounts.create(user.username, user.password, user.role, self.origin)
        self.ok(user_item(made))


class UserHandler(ApiHandler):
    """/api/users/{name}."""

    accounts: Accounts

    async def get(self, name: str) -> None:
        self.ok(user_item(await self.accounts.get(name)))

    async def post(self, name: str) -> None:
        change = load_change(await self.body())
        changed = await self.accounts.change(
            name,
            password=change.password,
            role=change.role,
            disabled=change.disabled,
            origin=self.origin,
        )
        self.ok(user_item(changed))

    async def delete(self, name: str) -> None:
        await self.accounts.remove(name, self.origin)
        self.ok()


class MeHandler(ApiHandler):
    """/api/me."""

    def get(self) -> None:
        self.ok(principal_item(self.somebody))


class MyPasswordHandler(ApiHandler):
    """/api/me/password."""

    accounts: Accounts
    auth: AuthService

    async def post(self) -> None:
        if self.somebody.is_api:
            raise ForbiddenError("an API token cannot change its user's password; log in")
        change = load_password_change(await self.body())
        try:
            await self.auth.confirm(self.username, change.old, self.address)
        except UnauthorizedError:
            raise ForbiddenError("the old password is wrong") from None
        await self.accounts.change(self.username, password=change.new, origin=self.origin)
        self.ok()


class OwnedHandler(ApiHandler):
    """Base of what users have of their own, and administrators of everybody."""

    accounts: Accounts

    @property
    def is_admin(self) -> bool:
        """Whether who asks may see and change what others have."""
        return self.somebody.role >= Role.ADMIN

    def owner(self) -> str:
        """Return who `?user=` names, or who asks; raise `NotFoundError` for whom they may not see.

        The error is that for a user who does not exist.
        """
        query = Query(self.request)
        user = query.text("user") or self.username
        query.check()
        if user != self.username and not self.is_admin:
            raise NotFoundError("account", user)
        return user

    def check_login(self) -> None:
        """Raise `ForbiddenError` for an API token: one that leaked must not outlive its end."""
        if self.somebody.is_api and not self.is_admin:
            raise ForbiddenError("an API token cannot manage API tokens; log in")


class TokensHandler(OwnedHandler):
    """/api/tokens; `?user=` names somebody else, in a GET with `*` everybody."""

    async def get(self) -> None:
        user = self.owner()
        tokens = await self.accounts.tokens(None if user == EVERYBODY else user)
        await self.reply_large(
            lambda: _listed([token_item(each) for each in tokens]), _size(tokens)
        )

    async def post(self) -> None:
        user = self.owner()
        self.check_login()
        wanted = load_token(await self.body())
        token, text = await self.accounts.add_token(
            user, wanted.name, wanted.role, wanted.days, self.origin
        )
        self.ok({**token_item(token), "token": text})


class TokenHandler(OwnedHandler):
    """/api/tokens/{id}."""

    async def delete(self, token_id: str) -> None:
        self.check_login()
        owner = None if self.is_admin else self.username
        await self.accounts.remove_token(token_id, self.origin, owner=owner)
        self.ok()


class AuditHandler(ApiHandler):
    """/api/audit."""

    audit: AuditLog

    async def get(self) -> None:
        query = Query(self.request)
        start, end = query.time_range()
        wanted = AuditQuery(
            actor=query.text("actor"),
            action=query.text("action"),
            target=query.text("target"),
            outcome=query.word("outcome", OUTCOMES),
            start_ts_ms=start,
            end_ts_ms=end,
        )
        limit, before = query.limit(100, 1000), query.cursor()
        query.check()
        found = await self.audit.page(wanted, limit, before)
        await self.reply_large(
            lambda: _listed([audit_item(entry) for entry in found.items], found),
            _size(found.items),
        )


def _listed(items: Sequence[dict[str, Any]], source: Page[Any] = WHOLE) -> dict[str, Any]:
    return {"code": 0, "message": "ok", "data": page(items, source)}


def _size(items: Sequence[object]) -> int:
    return ITEM_BYTES * len(items)
