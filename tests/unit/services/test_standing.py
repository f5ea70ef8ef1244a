from __future__ import annotations

import pytest

from taskhub.errors import UnavailableError
from taskhub.services.standing import Standing


@pytest.mark.parametrize(
    ("say", "refusal"),
    [
        (lambda s: s.stand_by(), "this server stands by"),
        (
            lambda s: s.stand_by("http://a.example:1"),
            "this server stands by; the active one is http://a.example:1",
        ),
        (lambda s: s.take_over(), "this server is taking over; try again"),
        (lambda s: s.lose(), "another server has taken over; ask that one"),
    ],
)
def test_only_the_active_server_may_change_runs(say, refusal):
    standing = Standing()
    standing.check()
    say(standing)
    assert not standing.is_active
    with pytest.raises(UnavailableError, match=refusal):
        standing.check()
    standing.activate()
    standing.check()


def test_being_superseded_is_not_standing_by():
    standing = Standing()
    standing.stand_by("http://a.example:1")
    assert not standing.is_superseded
    standing.lose()
    assert standing.is_superseded
