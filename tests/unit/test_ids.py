from __future__ import annotations

from taskhub.domain.ids import IdSource


def test_ids_go_on_above_what_another_server_has_given():
    ids = IdSource()
    first = ids.take(1)
    ids.skip_to(first + 100)
    assert ids.take(1) == first + 101
    ids.skip_to(first)
    assert ids.take(1) == first + 102
