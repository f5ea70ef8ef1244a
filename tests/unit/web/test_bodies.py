from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest

from taskhub.web.base import DRAIN_BYTES, ApiHandler
from tests.unit.web.conftest import Site
from tests.unit.web.test_gate import assert_error

MIB = 1 << 20
DAG = {"tasks": [{"id": "a"}]}


async def raw(site: Site, head: str, *parts: bytes) -> tuple[int, dict, bytes]:
    """Send bytes, then return what the server answered until it closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n")
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    headers, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = headers.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


def post_head(site: Site, length: str, token: str | None = None) -> str:
    token = site.token if token is None else token
    return (
        f"POST /api/dag/run HTTP/1.1\nHost: 127.0.0.1:{site.port}\n{length}\n"
        f"Content-Type: application/json\nAuthorization: Bearer {token}\n"
    )


async def test_a_body_over_the_limit_is_413_as_json(site: Site):
    reply = await site.post("/api/dag/run", b" " * (MIB + 1))
    assert_error(reply, 413)
    assert reply.headers["Connection"] == "close"
    assert (await site.post("/api/dag/run", b" " * (MIB - 100) + json.dumps(DAG).encode())).json[
        "ok"
    ]


async def test_gigabytes_are_refused_before_they_are_read(site: Site):
    status, headers, body = await raw(site, post_head(site, "Content-Length: 5000000000"))
    assert (status, headers["Connection"], json.loads(body)["code"]) == (413, "close", 413)


CHUNK = b"%x\r\n%s\r\n" % (MIB, b"x" * MIB)
CHUNKED = "Transfer-Encoding: chunked\nConnection: close"


async def test_a_chunked_body_over_the_limit_is_413_as_json(site: Site):
    status, _, body = await raw(site, post_head(site, CHUNKED), CHUNK, CHUNK, b"0\r\n\r\n")
    assert (status, json.loads(body)["code"]) == (413, 413)


async def test_an_endless_body_is_cut_off(site: Site, caplog):
    parts = [CHUNK] * (8 * DRAIN_BYTES // MIB)
    with caplog.at_level(logging.INFO), suppress(ConnectionError):
        await raw(site, post_head(site, CHUNKED), *parts)
    (record,) = caplog.records
    assert record.status == 413


async def test_a_chunked_body_within_the_limit_is_read(site: Site):
    data = json.dumps(DAG).encode()
    head = post_head(site, CHUNKED)
    status, _, body = await raw(site, head, b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
    assert (status, json.loads(body)["ok"]) == (200, True)


async def test_a_refused_client_can_send_its_body_to_the_end_and_read_why(site: Site):
    reply = await site.post("/api/dag/run", b"[" + b" " * (MIB - 2) + b"]", token="x")
    assert_error(reply, 401)


async def test_a_connection_is_kept_after_an_error(site: Site):
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for _ in range(3):
        writer.write(post_head(site, "Content-Length: 1", "x").replace("\n", "\r\n").encode())
        writer.write(b"\r\n1")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 401 " in head
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        await reader.readexactly(int(length.split()[1]))
    writer.close()


async def test_nobody_without_a_token_makes_the_server_keep_a_body(site: Site, monkeypatch):
    kept = []
    original = ApiHandler.data_received

    def data_received(self, chunk):
        original(self, chunk)
        kept.append(len(self._body))

    monkeypatch.setattr(ApiHandler, "data_received", data_received)
    await site.post("/api/dag/run", b" " * MIB, token="")
    assert kept
    assert not any(kept)


async def test_a_login_body_is_small(site: Site):
    assert_error(await site.post("/api/login", b" " * 8193, token=""), 413)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
async def test_json_must_be_called_json(site: Site, kind: str):
    reply = await site.post("/api/dag/run", DAG, Content_Type=kind)
    assert_error(reply, 400)
    assert "Content-Type" in reply.json["message"]


async def test_a_charset_beside_the_type_is_fine(site: Site):
    reply = await site.post("/api/dag/run", DAG, Content_Type="Application/JSON; charset=utf-8")
    assert reply.status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "line 1 column 2"),
        (b"[" * MIB, "nested more than 64"),
        (b'{"tasks": [], "tasks": []}', "/tasks: the name 'tasks' is given twice"),
        (b"[NaN]", "NaN"),
        (b"9" * 20_000, "64 bits"),
        (b'"\xff"', "UTF-8"),
        (b'"\\ud800"', "surrogate"),
    ],
    ids=["empty", "cut", "deep", "twice", "NaN", "huge int", "latin", "surrogate"],
)
@pytest.mark.parametrize("path", ["run", "run_async", "runs/x/cancel", "runs/x/rerun"])
async def test_malformed_json_is_1002_on_every_route(
    site: Site, path: str, body: bytes, message: str
):
    reply = await site.post(f"/api/dag/{path}", body)
    if body or path.startswith("run_") or path == "run":
        assert_error(reply, 400, 1002)
        assert message in reply.json["message"]
        assert reply.json["problems"]
    assert not [call for call in site.runs.calls if call[0] == "submit"]


async def test_a_large_body_is_parsed_and_checked_off_the_loop(site: Site):
    tasks = [{"id": f"t{i}", "deps": [f"t{i - 1}"][: i > 0]} for i in range(10_000)]
    parsing = []
    run = site.offload.run

    async def watched(work, *args, **kwargs):
        parsing.append(work.__name__)
        return await run(work, *args, **kwargs)

    site.offload.run = watched
    reply = await site.post("/api/dag/run", {"tasks": tasks})
    assert len(reply.json["nodes"]) == 10_000
    assert parsing[:2] == ["parse", "load_dag"]


async def test_a_client_that_leaves_does_not_stop_its_run(site: Site, caplog):
    site.runs.gate.clear()
    data = json.dumps(DAG).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = post_head(site, f"Content-Length: {len(data)}").replace("\n", "\r\n")
    with caplog.at_level(logging.INFO):
        writer.write(head.encode() + b"\r\n" + data)
        await site.runs.begun.wait()
        writer.close()
        await site.runs.left.wait()
        await asyncio.sleep(0.01)
    assert [call[0] for call in site.runs.calls] == ["submit"]
    (record,) = caplog.records
    assert (record.status, record.exc_info) == (499, None)


async def test_a_request_leaves_one_line(site: Site, caplog):
    with caplog.at_level(logging.INFO):
        reply = await site.get("/api/info?secret=1")
    (record,) = caplog.records
    assert record.getMessage() == "A request was answered"
    assert (record.method, record.path, record.status) == ("GET", "/api/info", 200)
    assert (record.user, record.request_id) == ("admin", reply.headers["X-Request-Id"])


async def test_an_unexpected_error_says_nothing_but_its_request_id(site: Site, caplog):
    site.runs.error = RuntimeError("the password is 123")
    reply = await site.get("/api/dag/runs")
    assert_error(reply, 500)
    assert b"123" not in reply.body
    assert reply.json["request_id"] == reply.headers["X-Request-Id"]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.request_id == reply.headers["X-Request-Id"]


async def test_answers_carry_security_headers_and_no_version(site: Site):
    for reply in (await site.get("/api/health"), await site.get("/x"), await site.get("/api/info")):
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "Server" not in reply.headers
        assert "Etag" not in reply.headers


async def test_unknown_paths_and_methods_are_errors_like_all_others(site: Site):
    for path in ("/", "/api", "/api/dag/runs/", "/api/dag/runs/a/b", "/api/login/x", "/%ff"):
        assert_error(await site.get(path), 404)
        assert_error(await site.post(path, {}), 404)
    for method in ("PUT", "DELETE", "PATCH", "GET"):
        reply = await site.fetch(method, "/api/dag/run")
        assert_error(reply, 405)
        assert reply.headers["Allow"] == "POST"
    assert (await site.fetch("HEAD", "/api/health")).status == 405
    assert_error(await site.fetch("BREW", "/api/health"), 405)
    assert_error(await site.get("/api/dag/runs/%ff"), 400)
