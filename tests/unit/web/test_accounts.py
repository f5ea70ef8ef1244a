from __future__ import annotations

import pytest

from taskhub.errors import UnavailableError
from taskhub.services.roles import Role
from tests.access import TEST
from tests.unit.web.conftest import Reply, Site
from tests.unit.web.test_gate import assert_error

PASSWORD = "good enough"


async def made(site: Site, **changes) -> Reply:
    body = {"username": "bob", "password": PASSWORD, "role": "runner", **changes}
    return await site.post("/api/users", {k: v for k, v in body.items() if v is not None})


async def login(site: Site, name: str, password: str) -> str:
    reply = await site.post("/api/login", {"username": name, "password": password}, token="")
    return reply.json["data"]["token"] if reply.status == 200 else ""


def pointers(reply: Reply) -> set[str]:
    assert_error(reply, 400)
    return {problem["pointer"] for problem in reply.json["problems"]}


async def test_a_user_is_made_shown_changed_and_removed(site: Site):
    user = (await made(site)).json["data"]
    assert user == {
        "username": "bob",
        "role": "runner",
        "disabled": False,
        "created_ts_ms": user["created_ts_ms"],
    }
    assert (await site.get("/api/users/bob")).json["data"] == user
    listed = (await site.get("/api/users")).json["data"]
    assert [each["username"] for each in listed["items"]] == ["admin", "bob"]
    assert listed["next_cursor"] is None
    reply = await site.post("/api/users/bob", {"role": "viewer", "disabled": True})
    assert reply.json["data"] == {**user, "role": "viewer", "disabled": True}
    gone = await site.fetch("DELETE", "/api/users/bob")
    assert gone.json == {"code": 0, "message": "ok", "data": None}
    for method, body in (("GET", None), ("POST", {"role": "viewer"}), ("DELETE", None)):
        assert_error(await site.fetch(method, "/api/users/bob", body), 404)


async def test_a_new_user_is_a_viewer_unless_said_otherwise(site: Site):
    assert (await made(site, role=None)).json["data"]["role"] == "viewer"
    assert_error(await made(site), 409)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"username": "a b", "password": "short", "role": "root", "x": 1},
         {"/username", "/password", "/role", "/x"}),
        ({"username": 1, "password": ["x" * 9], "role": None}, {"/username", "/password"}),
        ({"username": None, "password": None, "role": 4}, {"/username", "/password", "/role"}),
        ({"username": "cli:me"}, {"/username"}),
        ({"username": "anonymous"}, {"/username"}),
        ({"password": "x" * 1025}, {"/password"}),
        ({"role": "ADMIN"}, {"/role"}),
    ],
)  # fmt: skip
async def test_all_that_is_wrong_with_a_user_is_said_at_once(site: Site, changes, wrong):
    assert pointers(await made(site, **changes)) == wrong
    assert (await site.get("/api/users")).json["data"]["items"][1:] == []


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {""}),
        ([], {""}),
        ({"roll": "viewer"}, {"/roll"}),
        ({"role": None}, {"/role"}),
        ({"disabled": 1, "password": "", "role": "x"}, {"/disabled", "/password", "/role"}),
    ],
)
async def test_a_change_says_what_and_says_it_right(site: Site, body, wrong):
    await made(site)
    assert pointers(await site.post("/api/users/bob", body)) == wrong


async def test_the_last_administrator_cannot_leave(site: Site):
    for body in ({"disabled": True}, {"role": "operator"}):
        assert_error(await site.post("/api/users/admin", body), 409)
    assert_error(await site.fetch("DELETE", "/api/users/admin"), 409)
    assert (await site.get("/api/me")).status == 200


@pytest.mark.parametrize("change", [{"disabled": True}, {"role": "viewer"}, {"password": PASSWORD}])
async def test_who_is_changed_is_out_at_the_next_request(site: Site, change):
    await made(site)
    token = await login(site, "bob", PASSWORD)
    assert (await site.get("/api/me", token=token)).json["data"]["role"] == "runner"
    assert (await site.post("/api/users/bob", change)).status == 200
    assert_error(await site.get("/api/me", token=token), 401)


async def test_everybody_knows_who_they_are(site: Site):
    me = (await site.get("/api/me")).json["data"]
    assert (me["username"], me["role"], me["token_id"]) == ("admin", "admin", None)
    assert me["expires_ts_ms"] > site.clock.now_ms()
    token = (await site.post("/api/tokens", {"name": "ci", "role": "viewer"})).json["data"]
    me = (await site.get("/api/me", token=token["token"])).json["data"]
    assert me == {
        "username": "admin",
        "role": "viewer",
        "token_id": token["id"],
        "expires_ts_ms": 0,
    }


async def test_a_user_changes_the_own_password_and_logs_in_again(site: Site):
    token = await site.token_of(Role.VIEWER)
    reply = await site.post("/api/me/password", {"old": "pw", "new": PASSWORD}, token=token)
    assert reply.json == {"code": 0, "message": "ok", "data": None}
    assert_error(await site.get("/api/me", token=token), 401)
    assert await login(site, "viewer", "pw") == ""
    assert await login(site, "viewer", PASSWORD)


async def test_the_own_password_needs_the_old_one_and_a_good_new_one(site: Site):
    token = await site.token_of(Role.VIEWER)
    for body, wrong in (
        ({}, {"/old", "/new"}),
        ({"old": 1, "new": "short", "x": 1}, {"/old", "/new", "/x"}),
    ):
        assert pointers(await site.post("/api/me/password", body, token=token)) == wrong
    guess = {"old": "guess", "new": PASSWORD}
    for _ in range(5):
        assert_error(await site.post("/api/me/password", guess, token=token), 403)
    refused = await site.post("/api/me/password", {"old": "pw", "new": PASSWORD}, token=token)
    assert_error(refused, 429)
    assert await login(site, "viewer", "pw") == "", "guesses here count at the login, too"
    assert (await site.get("/api/me", token=token)).status == 200


async def test_a_token_is_shown_once_works_and_is_revoked(site: Site):
    made = (await site.post("/api/tokens", {"name": "ci", "role": "runner", "days": 2})).json[
        "data"
    ]
    text = made.pop("token")
    assert text.startswith(f"th_{made['id']}_")
    assert (made["name"], made["user"], made["role"]) == ("ci", "admin", "runner")
    assert made["expires_ts_ms"] == made["created_ts_ms"] + 2 * 86_400_000
    listed = await site.get("/api/tokens")
    assert listed.json["data"] == {"items": [made], "next_cursor": None}
    assert text.encode() not in listed.body
    assert (await site.get("/api/info", token=text)).status == 200
    assert (await site.fetch("DELETE", f"/api/tokens/{made['id']}")).status == 200
    assert_error(await site.get("/api/info", token=text), 401)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"/name"}),
        ({"name": "a\nb", "role": "root", "days": 0, "x": 1}, {"/name", "/role", "/days", "/x"}),
        ({"name": "a", "role": None, "days": None}, {"/role", "/days"}),
        ({"name": "a", "days": 3651}, {"/days"}),
        ({"name": "a", "days": 1.5}, {"/days"}),
        ({"name": "x" * 129}, {"/name"}),
        ({"name": "a", "role": "admin"}, {"/role"}),
    ],
)
async def test_all_that_is_wrong_with_a_token_is_said_at_once(site: Site, body, wrong):
    token = await site.token_of(Role.OPERATOR)
    assert pointers(await site.post("/api/tokens", body, token=token)) == wrong


async def test_what_others_have_looks_like_what_nobody_has(site: Site):
    token = await site.token_of(Role.OPERATOR)
    theirs, _ = await site.people.accounts.add_token("admin", "ci", None, None, TEST)

    async def answers(user: str, token_id: str):
        replies = [
            await site.get(f"/api/tokens?user={user}", token=token),
            await site.post(f"/api/tokens?user={user}", {"name": "x"}, token=token),
            await site.post(f"/api/tokens?user={user}", {"name": 1}, token=token),
            await site.fetch("DELETE", f"/api/tokens/{token_id}", token=token),
        ]
        for reply in replies:
            assert_error(reply, 404)
        return [
            r.body.replace(user.encode(), b"?").replace(token_id.encode(), b"?") for r in replies
        ]

    assert await answers("admin", theirs.id) == await answers("nobody", "f" * 16)
    assert_error(await site.get("/api/tokens?user=*", token=token), 404)
    assert list(await site.people.accounts.tokens()) == [theirs]


async def test_an_administrator_manages_the_tokens_of_others(site: Site):
    token = await site.token_of(Role.OPERATOR)
    made = (await site.post("/api/tokens?user=operator", {"name": "ci"})).json["data"]
    assert (made["user"], made["role"]) == ("operator", "operator")
    own = await site.get("/api/tokens", token=token)
    assert [each["id"] for each in own.json["data"]["items"]] == [made["id"]]
    assert (await site.get("/api/tokens")).json["data"]["items"] == []
    for user in ("operator", "*"):
        reply = await site.get(f"/api/tokens?user={user}")
        assert [each["id"] for each in reply.json["data"]["items"]] == [made["id"]]
    for method, body in (("GET", None), ("POST", {"name": "x"})):
        assert_error(await site.fetch(method, "/api/tokens?user=nobody", body), 404)
    assert (await site.fetch("DELETE", f"/api/tokens/{made['id']}")).status == 200


async def test_a_leaked_api_token_makes_no_others(site: Site):
    await site.token_of(Role.OPERATOR)
    one, text = await site.people.accounts.add_token("operator", "ci", None, 1, TEST)
    assert_error(await site.post("/api/tokens", {"name": "x"}, token=text), 403)
    assert_error(await site.fetch("DELETE", f"/api/tokens/{one.id}", token=text), 403)
    body = {"old": "pw", "new": PASSWORD}
    assert_error(await site.post("/api/me/password", body, token=text), 403)
    assert (await site.get("/api/tokens", token=text)).status == 200


async def test_no_answer_shows_a_hash_or_a_digest(site: Site):
    await made(site)
    await site.post("/api/tokens", {"name": "ci"})
    account, (token,) = (
        await site.people.accounts.get("bob"),
        await site.people.accounts.tokens("admin"),
    )
    for path in ("users", "users/bob", "tokens?user=*", "me", "audit"):
        body = (await site.get(f"/api/{path}")).body
        assert account.password_hash.encode() not in body
        assert b"scrypt" not in body
        assert token.digest.encode() not in body
        assert PASSWORD.encode() not in body


async def entries(site: Site, query: str = "") -> list:
    return (await site.get(f"/api/audit{query}")).json["data"]["items"]


async def test_the_audit_says_who_did_what_and_from_where(site: Site):
    await made(site)
    operator = await site.token_of(Role.OPERATOR)
    assert_error(await site.get("/api/users", token=operator), 403)
    newest, *_ = await entries(site)
    assert newest == {
        "id": newest["id"],
        "ts_ms": site.clock.now_ms(),
        "actor": "operator",
        "action": "request",
        "target": "GET /api/users",
        "address": "127.0.0.1",
        "outcome": "denied",
        "detail": {"needed": "admin"},
    }
    (added,) = await entries(site, "?action=user.add&target=bob")
    assert (added["actor"], added["detail"]) == ("admin", {"role": "runner"})


async def test_the_audit_is_filtered_and_paged(site: Site):
    for name in ("one", "two", "three"):
        await made(site, username=name)
    assert [e["target"] for e in await entries(site, "?action=user.add&actor=admin")] == [
        *("three", "two", "one")
    ]
    assert await entries(site, "?outcome=denied") == []
    assert await entries(site, f"?start_ts_ms={site.clock.now_ms() + 1}") == []
    assert await entries(site, "?actor=%25") == []
    first = (await site.get("/api/audit?action=user.add&limit=2")).json["data"]
    rest = await entries(site, f"?action=user.add&actor=admin&cursor={first['next_cursor']}")
    assert [e["target"] for e in (*first["items"], *rest)] == ["three", "two", "one"]
    wrong = await site.get("/api/audit?outcome=maybe&limit=0&cursor=x&start_ts_ms=2&end_ts_ms=1")
    assert pointers(wrong) == {"?outcome", "?limit", "?cursor", "?end_ts_ms"}


async def test_the_same_refusal_again_is_written_down_once_a_minute(site: Site):
    token = await site.token_of(Role.VIEWER)
    for _ in range(5):
        assert_error(await site.get("/api/audit", token=token), 403)
    assert len(await entries(site, "?outcome=denied")) == 1
    await site.clock.advance(60)
    assert_error(await site.get("/api/audit", token=token), 403)
    assert len(await entries(site, "?outcome=denied")) == 2


async def test_a_store_that_is_away_is_503_and_nothing_is_half_done(site: Site):
    async def away(*_):
        raise UnavailableError("away")

    site.people.store.add_account = away
    reply = await made(site)
    assert_error(reply, 503)
    assert reply.headers["Retry-After"] == "2"
    assert_error(await site.get("/api/users/bob"), 404)
