"""What an error looks like over HTTP; the only place that knows status codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from tornado.web import HTTPError

from taskhub.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
    SupersededError,
    TaskHubError,
    TooLargeError,
    TooManyError,
    UnauthorizedError,
    UnavailableError,
)


class NotJsonError(InvalidError):
    """The body does not call itself JSON; browsers send other types without asking us first."""

    code = "not_json"


class Answer(NamedTuple):
    """The HTTP status of an error, and the number in `code` of its body."""

    status: int
    code: int


ANSWERS: Final[Mapping[type[TaskHubError], Answer]] = {
    TaskHubError: Answer(500, 500),
    InvalidError: Answer(400, 400),
    MalformedError: Answer(400, 1002),
    NotFoundError: Answer(404, 404),
    ConflictError: Answer(409, 409),
    UnauthorizedError: Answer(401, 401),
    ForbiddenError: Answer(403, 403),
    TooLargeError: Answer(413, 413),
    TooManyError: Answer(429, 429),
    UnavailableError: Answer(503, 503),
    SupersededError: Answer(503, 503),
}
SHOWN: Final = 1000
LONGEST: Final = 500
RETRY_STORE_S: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """A whole answer to a request that failed."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def to_answer(
    exc: BaseException | None, answers: Mapping[type[TaskHubError], Answer], request_id: str
) -> ErrorAnswer:
    """Return the answer for an error; `answers` are those of the route, before the general ones.

    Only `TaskHubError`s and Tornado's own say what is wrong; all else is "internal error".
    """
    match exc:
        case TaskHubError():
            status, code = _find(type(exc), answers)
        case HTTPError():
            status = code = exc.status_code
        case _:
            status = code = 500
    body = envelope(code, _message(exc, status))
    if isinstance(exc, InvalidError):
        body["problems"] = [
            {"pointer": problem.pointer, "message": problem.message[:LONGEST]}
            for problem in exc.problems[:SHOWN]
        ]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        body["request_id"] = request_id
    return ErrorAnswer(status=status, body=body, headers=_headers(exc, status))


def envelope(code: int, message: str) -> dict[str, Any]:
    """Return an error body that readers of both families of routes understand."""
    return {"ok": False, "code": code, "message": message, "error": message, "data": None}


def _find(kind: type[TaskHubError], answers: Mapping[type[TaskHubError], Answer]) -> Answer:
    known = {**ANSWERS, **answers}
    return next(known[base] for base in kind.__mro__ if base in known)


def _message(exc: BaseException | None, status: int) -> str:
    if type(exc) is not TaskHubError and isinstance(exc, TaskHubError):
        return str(exc)[: 5 * LONGEST]
    if isinstance(exc, HTTPError):
        return exc.reason or HTTPStatus(status).phrase.lower()
    return "internal error"


def _headers(exc: BaseException | None, status: int) -> dict[str, str]:
    if isinstance(exc, TooManyError):
        return {"Retry-After": str(max(1, exc.retry_after_s))}
    if isinstance(exc, UnavailableError):
        return {"Retry-After": str(RETRY_STORE_S)}
    if isinstance(exc, TooLargeError):
        return {"Connection": "close"}
    return {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
