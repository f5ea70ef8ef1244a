from __future__ import annotations

import pytest

from taskhub.config import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:", "sqlite:"),
        ("mongodb://db:27017/taskhub", "mongodb://db:27017/taskhub"),
        ("mongodb://db:27017,other:27018/x?a=b", "mongodb://db:27017,other:27018/x?a=b"),
        ("mongodb://me@db/x", "mongodb://me@db/x"),
        ("mongodb://me:secret@db:27017/x?a=b", "mongodb://me:***@db:27017/x?a=b"),
        ("mongodb://me:se@cr/et@db,other/x", "mongodb://me:***@db,other/x"),
    ],
)
def test_a_password_in_an_address_is_not_shown(url, shown):
    assert without_password(url) == shown
