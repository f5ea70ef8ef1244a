from __future__ import annotations

import pytest
from tornado.web import HTTPError

from taskhub.errors import (
    ConfigError,
    InvalidError,
    NotFoundError,
    Problem,
    TaskHubError,
    TooManyError,
    UnauthorizedError,
)
from taskhub.web.problems import ANSWERS, Answer, to_answer


def kinds(base: type[TaskHubError] = TaskHubError) -> list[type[TaskHubError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


def make(kind: type[TaskHubError]) -> TaskHubError:
    return kind("run", "r1") if issubclass(kind, NotFoundError) else kind("what is wrong")


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_an_answer(kind: type[TaskHubError]):
    answer = to_answer(make(kind), {}, "id1")
    assert 400 <= answer.status <= 503
    assert answer.body["code"] >= 400
    if kind not in {TaskHubError, ConfigError}:
        assert answer.status != 500, "an error that is raised on purpose is no bug"
        assert answer.body["message"] not in {"", "internal error"}
    assert ("request_id" in answer.body) == (answer.status >= 500)


def test_codes_are_stable_words_of_their_own():
    codes = [kind.code for kind in kinds()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", [TaskHubError("secret"), KeyError("secret"), None])
def test_what_is_not_meant_for_clients_is_not_shown(error):
    answer = to_answer(error, {}, "id1")
    assert (answer.status, answer.body["message"]) == (500, "internal error")
    assert answer.body["request_id"] == "id1"


def test_a_route_may_answer_differently():
    answers = {InvalidError: Answer(400, 1003)}
    assert to_answer(InvalidError("x"), answers, "").body["code"] == 1003
    assert to_answer(UnauthorizedError("x"), answers, "").body["code"] == 401


def test_problems_are_bounded():
    many = InvalidError([Problem(f"/{i}", "x" * 10_000) for i in range(5000)])
    body = to_answer(many, {}, "").body
    assert len(body["problems"]) == 1000
    assert len(body["message"]) <= 2500
    assert max(len(problem["message"]) for problem in body["problems"]) <= 500


def test_waiting_times_are_at_least_a_second():
    assert to_answer(TooManyError("x", retry_after_s=0), {}, "").headers == {"Retry-After": "1"}


def test_tornados_own_errors_look_like_ours():
    answer = to_answer(HTTPError(404), {}, "")
    assert (answer.status, answer.body["code"], answer.body["error"]) == (404, 404, "not found")


def test_no_answer_is_listed_for_what_cannot_happen():
    assert ANSWERS.keys() <= set(kinds())
