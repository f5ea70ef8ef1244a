"""What every handler shares: the gate, JSON in, JSON out, errors as one envelope."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import cached_property, partial
from types import TracebackType
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, RequestHandler, stream_request_body

from taskhub.domain.task import JSON
from taskhub.errors import TaskHubError, TooLargeError, UnauthorizedError
from taskhub.services.deadline import in_time
from taskhub.services.origin import Origin
from taskhub.services.roles import Principal
from taskhub.services.tokens import NO_TOKEN
from taskhub.spec.strict_json import parse
from taskhub.web.gate import Gate, Permissions
from taskhub.web.offload import encode
from taskhub.web.problems import Answer, NotJsonError, to_answer

T = TypeVar("T")

LOG: Final = logging.getLogger("taskhub.web")
INLINE_BYTES: Final = 16 << 10
LARGE_BYTES: Final = 256 << 10
DRAIN_BYTES: Final = 8 << 20
GONE: Final = 499
LATE: Final = "the store does not answer in time"
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Content-Type": "application/json",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@stream_request_body
class ApiHandler(RequestHandler):
    """Base of every REST handler; subclasses declare the services they need as attributes.

    A request is refused before its body is read, but answered after it: a connection closed under
    a client that is still sending makes it see a reset instead of the answer. What comes with a
    refused request is dropped, and beyond 8 MiB over the limit the connection is closed after all.

    Who asks is found out, and a GET is answered, within `WebSettings.answer_s`, else it is a 503.
    """

    answers: ClassVar[Mapping[type[TaskHubError], Answer]] = {}
    max_body: ClassVar[int | None] = None

    def initialize(
        self, gate: Gate, permissions: Permissions, *, in_seed: bool = False, **needs: Any
    ) -> None:
        self.gate = gate
        self.permissions = permissions
        self.in_seed = in_seed
        self.principal: Principal | None = None
        self.limit = self.max_body or gate.settings.body_bytes
        self._body = bytearray()
        self.received = 0
        self._refusal: Exception | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._is_gone = False
        for name, need in needs.items():
            setattr(self, name, need)

    @cached_property
    def request_id(self) -> str:
        """Names this request in the log and to the client."""
        return secrets.token_hex(8)

    @property
    def username(self) -> str:
        """Who asks; empty on public routes."""
        return self.principal.username if self.principal else ""

    @property
    def somebody(self) -> Principal:
        """Who asks, on routes that ask for a role."""
        if self.principal is None:
            raise UnauthorizedError(NO_TOKEN)
        return self.principal

    @property
    def address(self) -> str:
        """Where the request comes from."""
        return self.request.remote_ip or ""

    @property
    def origin(self) -> Origin:
        """Who asks, and from where, for the audit."""
        token = self.principal.jti if self.principal and self.principal.is_api else ""
        return Origin(self.username, self.address, token)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.set_header("X-Request-Id", self.request_id)

    def compute_etag(self) -> str | None:
        return None  # hashing a large answer would stop the loop, and none is ever cached

    async def prepare(self) -> None:
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.set_max_body_size(1 << 62)  # Tornado's own refusal is not JSON; we count
        deadline = asyncio.get_running_loop().time() + self.gate.settings.answer_s
        if self.request.method == "GET":
            setattr(self, "get", partial(_in_time, deadline, self.get))  # noqa: B010  # a method
        try:
            if self._refusal is None:
                await _in_time(deadline, self._admit)
        except (TaskHubError, HTTPError) as exc:
            self.refuse(exc)
        if self._declared_bytes() > self.limit:
            self.refuse(self._too_large())
        if self._declared_bytes() > self.limit + DRAIN_BYTES:
            raise self._too_large()

    async def _admit(self) -> None:
        permission = self.permissions.get(self.request.method or "")
        if permission is None:
            raise HTTPError(405)
        self.principal = await self.gate.admit(self.request, permission, in_seed=self.in_seed)

    def _declared_bytes(self) -> int:
        length = self.request.headers.get("Content-Length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0  # noqa: PLR2004

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"the body is larger than {self.limit} bytes")

    def refuse(self, exc: Exception) -> None:
        """Answer with an error once the body has come, and drop the body."""
        if self._refusal is None:
            self._refusal = exc
            self._body.clear()
            setattr(self, (self.request.method or "").lower(), self._raise_refusal)

    async def _raise_refusal(self, *_: str) -> NoReturn:
        raise self._refusal or HTTPError(500)

    def data_received(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > self.limit:
            self.refuse(self._too_large())
        if self._refusal is None:
            self._body += chunk
        elif self.received > self.limit + DRAIN_BYTES and not self._finished:
            exc = self._too_large()
            self.send_error(413, exc_info=(type(exc), exc, None))

    async def body(self) -> JSON:
        """Return the request's body; raise `NotJsonError` or `MalformedError`."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise NotJsonError("the body must be sent with Content-Type: application/json")
        depth = self.gate.settings.json_depth
        if len(self._body) <= INLINE_BYTES:
            return parse(bytes(self._body), max_depth=depth)
        return await self.gate.offload.run(parse, bytes(self._body), max_depth=depth)

    async def optional_body(self) -> JSON:
        """Return the request's body, or an empty object where there is none."""
        return await self.body() if self._body else {}

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; stop waiting for it when the client goes away."""
        if self._is_gone:
            work.close()
            raise HTTPError(GONE, reason="Client Closed Request")
        self._waiting = asyncio.create_task(work, name=f"request {self.request_id}")
        try:
            result: T = await self._waiting
        except asyncio.CancelledError:
            if not self._is_gone:
                raise
            raise HTTPError(GONE, reason="Client Closed Request") from None
        finally:
            self._waiting.cancel()
        return result

    def on_connection_close(self) -> None:
        self._is_gone = True
        if self._waiting is not None:
            self._waiting.cancel()
        super().on_connection_close()

    def ok(self, data: object = None) -> None:
        """Finish with data in the code/message/data envelope."""
        self.reply({"code": 0, "message": "ok", "data": data})

    def reply(self, value: object) -> None:
        """Finish with a JSON value that is small."""
        self.finish(encode(value))

    async def reply_large(self, build: Callable[[], object], size: int) -> None:
        """Finish with what `build` returns, in a thread if the answer has some 256 KiB or more."""
        if size < LARGE_BYTES:
            self.reply(build())
        else:
            self.finish(await self.gate.offload.run(lambda: encode(build())))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        exc = kwargs["exc_info"][1] if "exc_info" in kwargs else HTTPError(status_code)
        answer = to_answer(exc, self.answers, self.request_id)
        self.set_status(answer.status, getattr(exc, "reason", None))
        for name, value in answer.headers.items():
            self.set_header(name, value)
        if answer.status == 405:  # noqa: PLR2004
            self.set_header("Allow", ", ".join(self.permissions))
        self.finish(encode(answer.body))

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(value, TaskHubError | HTTPError) or typ is None or value is None:
            return
        extra = {"action": "request_failed", "request_id": self.request_id}
        LOG.error("A request failed unexpectedly", exc_info=(typ, value, tb), extra=extra)


async def _in_time(
    deadline: float, call: Callable[..., Awaitable[None] | None], *args: str
) -> None:
    async with in_time(LATE, deadline - asyncio.get_running_loop().time()):
        waiting = call(*args)
        if waiting is not None:
            await waiting


def log_request(handler: RequestHandler) -> None:
    """Write the one line of a request."""
    request = handler.request
    extra = {
        "action": "request",
        "method": request.method,
        "path": request.path[:200],
        "status": handler.get_status(),
        "duration_ms": round(request.request_time() * 1000, 1),
        "user": getattr(handler, "username", ""),
        "address": request.remote_ip,
        "request_id": getattr(handler, "request_id", ""),
    }
    LOG.info("A request was answered", extra=extra)
