"""Who may use what: every method of every route, by everybody there is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from taskhub.services.roles import Role
from taskhub.web.app import offered
from tests.access import TEST
from tests.unit.web.conftest import Site

ANYBODY, VIEWER, OPERATOR, ADMIN = None, Role.VIEWER, Role.OPERATOR, Role.ADMIN
TABLE = {
    "POST /api/login": ANYBODY,
    "POST /api/logout": VIEWER,
    "GET /api/health": ANYBODY,
    "GET /api/info": VIEWER,
    "GET /api/stats": VIEWER,
    "GET /api/debug/broadcast": ADMIN,
    "GET /api/executors": VIEWER,
    "POST /api/dag/run": OPERATOR,
    "POST /api/dag/run_async": OPERATOR,
    "GET /api/dag/runs": VIEWER,
    "GET /api/dag/runs/x": VIEWER,
    "POST /api/dag/runs/x/cancel": OPERATOR,
    "POST /api/dag/runs/x/rerun": OPERATOR,
    "GET /api/dag/task_runs": VIEWER,
    "GET /api/dag/events": VIEWER,
    "GET /api/tasks/logs": VIEWER,
    "GET /api/tasks": VIEWER,
    "POST /api/tasks": OPERATOR,
    "GET /api/tasks/x": VIEWER,
    "POST /api/tasks/x/cancel": OPERATOR,
    "GET /api/me": VIEWER,
    "POST /api/me/password": VIEWER,
    "GET /api/users": ADMIN,
    "POST /api/users": ADMIN,
    "GET /api/users/x": ADMIN,
    "POST /api/users/x": ADMIN,
    "DELETE /api/users/x": ADMIN,
    "GET /api/tokens": VIEWER,
    "POST /api/tokens": VIEWER,
    "DELETE /api/tokens/x": VIEWER,
    "GET /api/audit": ADMIN,
}
"""The least role that may; the socket asks for a token by itself."""
BY_API_TOKEN = {
    "POST /api/me/password": "nobody",
    "POST /api/tokens": ADMIN,
    "DELETE /api/tokens/x": ADMIN,
}
"""What an API token may not do although its role does it after a login."""


@dataclass
class Caller:
    """Somebody with a token for one request."""

    role: Role | None
    is_api: bool = False
    is_out: bool = False

    async def token(self, site: Site) -> str:
        if self.role is None:
            return ""
        name = f"one-{self.role.word}{'-out' if self.is_out else ''}"
        if name not in {each.username for each in await site.people.accounts.all()}:
            await site.people.add(name, "pw", self.role)
        elif self.is_out:
            await site.people.change(name, disabled=False)
        if self.is_api:
            token = (await site.people.accounts.add_token(name, "x", None, None, TEST))[1]
        else:
            token = await site.auth.login(name, "pw", "test")
        if self.is_out:
            await site.people.change(name, disabled=True)
        return token

    def expected(self, what: str) -> str:
        """Return what the table says of this caller: in, out (401) or refused (403)."""
        least = TABLE[what]
        if least is ANYBODY:
            return "in"
        if self.role is None or self.is_out:
            return "out"
        if self.is_api and (least_by_token := BY_API_TOKEN.get(what)):
            least = least_by_token
        return "in" if least != "nobody" and self.role >= least else "refused"


CALLERS = {
    "nobody": Caller(None),
    **{f"{role.word}": Caller(role) for role in Role},
    **{f"{role.word} token": Caller(role, is_api=True) for role in Role},
    "disabled admin": Caller(ADMIN, is_out=True),
    "disabled admin token": Caller(ADMIN, is_api=True, is_out=True),
}


def offers(site: Site) -> set[str]:
    """Return all methods and paths, an `x` for each part that varies."""
    return {
        f"{method} {route.path.replace('([^/]+)', 'x')}"
        for route in site.app.table
        for method in offered(route.handler)
    }


async def test_the_table_has_every_route(site: Site):
    assert offers(site) == {*TABLE, "GET /ws"}


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
async def test_everybody_may_do_what_the_table_says_and_nothing_else(site: Site, caller: Caller):
    found = {}
    for what in TABLE:
        method, path = what.split()
        body = {} if method == "POST" else None
        reply = await site.fetch(method, path, body, token=await caller.token(site))
        found[what] = {401: "out", 403: "refused"}.get(reply.status, "in")
    assert found == {what: caller.expected(what) for what in TABLE}


async def test_a_path_that_is_none_says_nothing_about_roles(site: Site):
    for caller in CALLERS.values():
        token = await caller.token(site)
        for path in ("/api/user", "/api/users/a/b", "/api/users/", "/api/tokens/a/b"):
            assert (await site.get(path, token=token)).status == 404
