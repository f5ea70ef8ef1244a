from __future__ import annotations

import pytest

from tests.unit.web.conftest import Site
from tests.unit.web.test_gate import assert_error


async def login(site: Site, body, **headers):
    return await site.post("/api/login", body, token="", **headers)


async def test_a_login_gives_a_token_that_works(site: Site):
    reply = await login(site, {"username": "admin", "password": "secret"})
    data = reply.json["data"]
    assert (reply.json["code"], reply.json["message"], data["username"]) == (0, "ok", "admin")
    assert (await site.get("/api/info", token=data["token"])).status == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ({"username": "admin"}, {"Content_Type": "text/plain"}, 400, 1001),
        (None, {}, 400, 1001),
        (b"{", {}, 400, 1002),
        (b'{"username": "a", "username": "a"}', {}, 400, 1002),
        (b"[" * 8000, {}, 400, 1002),
        ([], {}, 400, 1003),
        ({}, {}, 400, 1003),
        ({"username": "admin"}, {}, 400, 1003),
        ({"username": "", "password": ""}, {}, 400, 1003),
        ({"username": 1, "password": ["x"]}, {}, 400, 1003),
        ({"username": "admin", "password": "wrong"}, {}, 401, 1004),
        ({"username": "nobody", "password": "secret"}, {}, 401, 1004),
        ({"username": "admin", "password": "x" * 5000}, {}, 401, 1004),
        ({"username": "\x00' OR 1=1", "password": "x"}, {}, 401, 1004),
    ],
)
async def test_each_mistake_has_the_code_of_the_seed(site: Site, body, headers, status, code):
    assert_error(await login(site, body, **headers), status, code)


async def test_too_many_failures_are_429_with_the_time_to_return(site: Site):
    for _ in range(5):
        assert_error(await login(site, {"username": "admin", "password": "x"}), 401, 1004)
    reply = await login(site, {"username": "admin", "password": "secret"})
    assert_error(reply, 429)
    assert reply.headers["Retry-After"] == "300"
