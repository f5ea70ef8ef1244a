"""`auth.mode = "seed"`: open is what the original left open, and nothing else."""

from __future__ import annotations

import pytest

from taskhub.web.app import METHODS
from taskhub.web.gate import Open
from tests.unit.web.conftest import Site
from tests.unit.web.test_gate import assert_error, signed

DAG = {"tasks": [{"id": "a"}]}
ORIGINALLY_OPEN = {
    ("GET", "/api/health"): None,
    ("GET", "/api/info"): None,
    ("GET", "/api/stats"): None,
    ("GET", "/api/debug/broadcast"): None,
    ("POST", "/api/dag/run"): DAG,
    ("POST", "/api/dag/run_async"): DAG,
    ("GET", "/api/dag/runs"): None,
    ("GET", "/api/dag/task_runs"): None,
    ("GET", "/api/dag/events"): None,
    ("GET", "/api/tasks/logs?task_id=a"): None,
}


def rows(site: Site) -> dict[tuple[str, str], bool]:
    """Return every method of every path that asks for a role, and whether seed mode opens it."""
    return {
        (method, route.path.replace("([^/]+)", "x")): route.in_seed
        for route in site.app.table
        for method, permission in route.permissions.items()
        if not isinstance(permission, Open)
    }


@pytest.mark.parametrize(("method", "path"), ORIGINALLY_OPEN)
async def test_what_the_original_left_open_needs_no_token(site: Site, method, path):
    site.change(is_seed=True)
    body = ORIGINALLY_OPEN[method, path]
    assert (await site.fetch(method, path, body, token="")).status == 200


async def test_nothing_else_does(site: Site):
    site.change(is_seed=True)
    for (method, path), in_seed in rows(site).items():
        is_open = (method, path) in {(m, p.partition("?")[0]) for m, p in ORIGINALLY_OPEN}
        assert in_seed == is_open, path
        if not is_open:
            assert_error(await site.fetch(method, path, token=""), 401)


async def test_in_closed_mode_all_of_it_asks_for_a_token(site: Site):
    for method, path in rows(site):
        assert_error(await site.fetch(method, path, token=""), 401)
    assert not site.runs.calls


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x", "Basic YTpi", f"Bearer {signed(ver=9)}"]
)
async def test_a_request_with_credentials_is_judged_by_them(site: Site, header):
    site.change(is_seed=True)
    assert_error(await site.get("/api/info", token="", Authorization=header), 401)
    assert (await site.get("/api/info")).status == 200


async def test_the_runs_of_nobody_are_those_of_anonymous(site: Site):
    site.change(is_seed=True)
    await site.post("/api/dag/run_async", DAG, token="")
    await site.post("/api/dag/run_async", DAG)
    assert [call[:2] for call in site.runs.calls] == [("submit", "anonymous"), ("submit", "admin")]


async def test_a_route_opens_only_the_methods_it_has(site: Site):
    site.change(is_seed=True)
    for method in set(METHODS) - {"GET"}:
        body = b"" if method != "DELETE" else None
        assert_error(await site.fetch(method, "/api/info", body, token=""), 405)


@pytest.mark.parametrize("relation", ["cross-site", "same-site", "odd"])
async def test_a_page_of_another_site_is_nobody_here(site: Site, relation):
    """An <img> of any page reaches loopback without an Origin, but says where it is from."""
    site.change(is_seed=True)
    headers = {"Sec_Fetch_Site": relation}
    assert_error(await site.get("/api/debug/broadcast", token="", **headers), 403)
    assert not site.live.sent
    assert (await site.get("/api/debug/broadcast", **headers)).status == 200


@pytest.mark.parametrize("relation", ["none", "same-origin"])
async def test_an_own_page_and_an_address_bar_are_let_in(site: Site, relation):
    site.change(is_seed=True)
    assert (await site.get("/api/info", token="", Sec_Fetch_Site=relation)).status == 200


async def test_a_json_body_is_still_asked_for(site: Site):
    """A form of another site's page can post text, but not ask for JSON's type."""
    site.change(is_seed=True)
    reply = await site.post("/api/dag/run", b"{}", token="", Content_Type="text/plain")
    assert_error(reply, 400)
    assert not site.runs.calls
