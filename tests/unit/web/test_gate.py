from __future__ import annotations

import base64
import json

import jwt
import pytest
from tornado.web import RequestHandler

from taskhub.errors import ConfigError, UnavailableError
from taskhub.services.roles import Role
from taskhub.web.app import Route, TaskHubApp, offered
from taskhub.web.base import ApiHandler
from taskhub.web.gate import Open, host_name
from tests.access import KEY
from tests.unit.web.conftest import NOW_MS, Site

PUBLIC = {("POST", "/api/login"), ("GET", "/api/health")}


def assert_error(reply, status: int, code: int | None = None) -> None:
    """Every error body can be read by clients of either family of routes."""
    assert reply.status == status, reply.body
    body = reply.json
    assert body["ok"] is False
    assert body["code"] == (status if code is None else code)
    assert body["message"] == body["error"] != ""
    assert body["data"] is None
    assert reply.headers["Content-Type"] == "application/json"


async def test_every_route_but_the_public_ones_asks_for_a_token(site: Site):
    walked = set()
    for route in site.app.table:
        if not issubclass(route.handler, ApiHandler):
            assert route.permissions == {"GET": Open.FIRST_MESSAGE}
            continue
        path = route.path.replace("([^/]+)", "x")
        for method in offered(route.handler):
            walked.add((method, path))
            for body in (None, {}) if method == "POST" else (None,):
                reply = await site.fetch(method, path, body, token="")
                if (method, path) not in PUBLIC:
                    assert_error(reply, 401)
                    assert reply.headers["WWW-Authenticate"] == "Bearer"
                else:
                    assert reply.json["code"] != 401
    assert walked > PUBLIC
    assert not site.runs.calls


def claims(**changes):
    now_s = NOW_MS // 1000
    all_claims = {"iss": "taskhub", "sub": "admin", "jti": "j", "iat": now_s, "exp": now_s + 60}
    merged = {**all_claims, "ver": NOW_MS, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def unsigned(payload) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, payload)
    encoded = [
        base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts
    ]
    return ".".join([*encoded, ""])


def signed(key=KEY, algorithm="HS256", **changes) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm)


async def test_a_token_made_with_our_key_is_good(site: Site):
    assert (await site.get("/api/info", token=signed())).status == 200


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "é",
        "." * 3000,
        "[" * 3000,
        base64.urlsafe_b64encode(b"[" * 2500).decode() + ".e30.x",
        "x" * 20_000,
        unsigned(claims()),
        signed(key=bytes(32)),
        signed(algorithm="HS512", key=KEY * 2),
        signed()[:-2] + "AA",
        *(signed(**{name: None}) for name in ("iss", "sub", "jti", "iat", "exp", "ver")),
        signed(iss="other"),
        signed(exp=NOW_MS // 1000),
        signed(exp="9999999999"),
        signed(exp=1e300),
        signed(ver="1"),
        signed(ver=2),
        signed(sub="nobody"),
    ],
)
async def test_any_other_token_gets_the_same_401(site: Site, token: str):
    reply = await site.get("/api/info", token=token)
    assert_error(reply, 401)
    assert reply.json["message"] == "missing or invalid token"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YWRtaW46c2VjcmV0", "bearer x y"]
)
async def test_a_header_without_a_token_gets_401(site: Site, header: str):
    assert_error(await site.get("/api/info", token="", Authorization=header), 401)


async def test_a_token_ends_with_time(site: Site):
    site.clock.set_wall(NOW_MS + 2 * 3_600_000 - 1)
    assert (await site.get("/api/info")).status == 200
    site.clock.set_wall(NOW_MS + 2 * 3_600_000)
    assert_error(await site.get("/api/info"), 401)


async def test_a_token_ends_at_logout(site: Site):
    assert (await site.post("/api/logout")).json == {"code": 0, "message": "ok", "data": None}
    assert_error(await site.get("/api/info"), 401)
    assert_error(await site.post("/api/logout"), 401)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [(Role.VIEWER, False), (Role.RUNNER, False), (Role.OPERATOR, True), (Role.ADMIN, True)],
)
async def test_runs_are_made_and_stopped_by_operators(site: Site, role: Role, allowed):
    token = site.token if role is Role.ADMIN else await site.token_of(role)
    assert (await site.get("/api/dag/runs", token=token)).status == 200
    for path in ("run", "run_async", "runs/x/cancel", "runs/x/rerun"):
        body = {"tasks": [{"id": "a"}]} if path.startswith("run") and "/" not in path else {}
        reply = await site.post(f"/api/dag/{path}", body, token=token)
        assert reply.status == (200 if allowed else 403), (path, reply.body)
    if not allowed:
        assert_error(reply, 403)
        assert role.word in reply.json["message"]
        assert not [call for call in site.runs.calls if call[0] != "list_runs"]


async def test_a_failing_account_store_is_503_and_not_a_refusal(site: Site):
    async def revision():
        raise UnavailableError("the store is away")

    site.people.store.revision = revision
    await site.clock.advance(10)
    reply = await site.get("/api/info")
    assert_error(reply, 503)
    assert reply.headers["Retry-After"] == "2"


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST", "[::1]:{port}", "10.1.2.3:80"])
async def test_our_own_names_and_addresses_are_accepted(site: Site, host: str):
    reply = await site.get("/api/health", Host=host.format(port=site.port))
    assert reply.status == 200


@pytest.mark.parametrize("path", ["/api/health", "/api/login", "/nothing", "/ws"])
async def test_a_rebound_name_is_refused_on_loopback(site: Site, path: str):
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1.evil.example"):
        assert_error(await site.get(path, Host=host), 403)


async def test_configured_hosts_are_accepted_and_others_are_not(site: Site):
    site.change(is_loopback=False)
    assert (await site.get("/api/health", Host="any.example")).status == 200
    site.change(allowed_hosts=frozenset({"hub.example"}))
    assert (await site.get("/api/health", Host="hub.example:443")).status == 200
    assert_error(await site.get("/api/health", Host="any.example"), 403)


async def test_pages_of_other_sites_are_refused(site: Site):
    for origin in ("http://evil.example", "null", "https://127.0.0.1:1", "http://[", ""):
        assert_error(await site.get("/api/health", Origin=origin), 403)
        assert_error(await site.get("/ws", Origin=origin), 403)
    assert (await site.get("/api/health", Origin=site.url)).status == 200


async def test_a_page_behind_a_proxy_is_accepted_by_its_configured_name(site: Site):
    site.change(allowed_hosts=frozenset({"hub.example"}))
    assert (await site.get("/api/health", Origin="https://hub.example")).status == 200


@pytest.mark.parametrize(
    ("host", "name"),
    [("A.b:80", "a.b"), ("[::1]:80", "::1"), ("a.", "a"), ("", ""), ("[::1", "::1")],
)
def test_host_names(host: str, name: str):
    assert host_name(host) == name


def test_a_method_without_a_permission_stops_the_start():
    class Half(ApiHandler):
        def get(self) -> None: ...

        def post(self) -> None: ...

    with pytest.raises(ConfigError, match="/half"):
        TaskHubApp([Route("/half", Half, {"GET": Role.VIEWER})], gate=None)
    with pytest.raises(ConfigError, match="/none"):
        TaskHubApp([Route("/none", Half, {})], gate=None)
    with pytest.raises(ConfigError):
        TaskHubApp([Route("/empty", RequestHandler, {"GET": Role.VIEWER})], gate=None)
