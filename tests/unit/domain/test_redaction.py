from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from taskhub.domain.redaction import MOST, Redaction, without_password
from taskhub.domain.secrets import MASK, Secrets

PARAMS = {"env.API_KEY": "hunter2", "header": {"Authorization": ["Basic", "hunter2:more"]}}


def redaction(*known):
    return Redaction(Secrets(), *(known or (PARAMS,)))


def test_a_secret_that_was_given_is_taken_out_of_what_is_said():
    assert redaction().text("hunter2 is wrong, hunter2!") == "*** is wrong, ***!"


def test_the_longer_secret_goes_first():
    assert redaction().text("hunter2:more hunter2") == "*** ***"


@pytest.mark.parametrize("quotes", ["", "'", '"', "'\""])
@pytest.mark.parametrize(
    "write",
    [str, repr, json.dumps, lambda text: repr(f"'{text}"), lambda text: quote(text, safe="")],
    ids=["as it is", "in Python", "in JSON", "in Python beside a quote", "in a URL"],
)
def test_a_secret_is_found_as_others_write_it(write, quotes):
    key = f"-----BEGIN é{quotes}\n\tKEY/+"
    told = redaction({"private_key": key}).text(f"<{write(key)}>")
    assert MASK in told
    assert "KEY" not in told


def test_where_secrets_are_very_many_nothing_of_a_text_is_shown():
    known = {"secrets": [f"secret-{i}" for i in range(MOST + 1)]}
    assert redaction(known).text("secret-1 or any other") == MASK
    assert redaction(known).object({"a": "secret-1", "n": 1}) == {"a": MASK, "n": 1}


def test_short_secrets_are_left_for_they_are_found_in_any_text():
    assert redaction({"password": "a", "token": "12345"}).text("a 12345") == "a 12345"


def test_numbers_and_other_parameters_stay():
    text = redaction({"token": 123456, "url": "example"}).text("123456 example")
    assert text == "123456 example"


def test_both_kinds_of_secrets_are_taken_out_of_an_object():
    said = {
        "url": "http://example?k=hunter2",
        "list": [{"a": "hunter2"}, 1],
        "password": "new",
        "n": 1,
    }
    assert redaction().object(said) == {
        "url": "http://example?k=***",
        "list": [{"a": MASK}, 1],
        "password": MASK,
        "n": 1,
    }


def test_without_secrets_an_object_is_returned_as_it_is():
    said = {"url": "http://example", "list": [1]}
    assert redaction({"url": "hunter2"}).object(said) is said


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://me:pw@host:1,other/db?w=1", "mongodb://me:***@host:1,other/db?w=1"),
        ("mongodb://me:p@w/x:y@host/db", "mongodb://me:***@host/db"),
        ("mongodb+srv://me:@host", "mongodb+srv://me:***@host"),
        ("ssh://ghp_123@host/x", "ssh://***@host/x"),
        ("mongodb://host/?tlsCertificateKeyFilePassword=pw&w=1", "mongodb://host/?tls"),
        ("mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:pw&w=1", "mongodb://h/?auth"),
        ("cannot reach 'redis://:pw@h': refused", "cannot reach 'redis://:***@h': refused"),
        ("mongodb://host:27017/db?replicaSet=rs", "mongodb://host:27017/db?replicaSet=rs"),
        ("sqlite:", "sqlite:"),
        ("me@host, no URL", "me@host, no URL"),
    ],
)
def test_urls_are_shown_without_passwords(url, shown):
    told = without_password(url)
    assert told.startswith(shown)
    assert "pw" not in told
    assert without_password(told) == told
