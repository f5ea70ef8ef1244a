from __future__ import annotations

import copy
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskhub.domain.secrets import DEEPEST, LONGEST, MASK, REMEMBERED, Secrets

SECRET = [
    *("password", "PASSWORD", "db_password", "dbPassword", "PGPASSWORD", "passwd", "passphrase"),
    *("pwd", "MYSQL_PWD", "DB_PASS", "passwords", "password2", "db-password-2", " Password "),
    *("token", "access_token", "accessToken", "APIToken", "authtoken", "X-Auth-Token", "jwt"),
    *("secret", "client_secret", "clientSecret", "secrets", "AWS_SECRET_ACCESS_KEY"),
    *("api_key", "apiKey", "APIKey", "apikey", "API key", "X-API-Key", "private_key", "ssh-key"),
    *("privateKey", "api_keys", "secretAccessKey", "Authorization", "proxy-authorization"),
    *("credentials", "google_credentials", "Cookie", "Set-Cookie", "basic_auth", "_auth"),
    *("connection_string", "ConnectionString", "SENTRY_DSN"),
    *("env.DB_PASSWORD", "env.API_KEY", "header.Authorization", "header.X-Api-Key"),
    *("inner.exec_params.env.API_KEY", "//registry.example/:_authToken", "vault/db/password"),
    "\N{LATIN SMALL LETTER LONG S}ecret",
]
OPEN = [
    *("max_tokens", "tokens", "total_tokens", "token_count", "tokenizer", "token_ttl_s"),
    *("key", "keys", "primary_key_column", "keyboard", "monkey", "turnkey", "sort_keys"),
    *("attempt_key", "password_policy", "secretary", "passed", "passing", "compass", "bypass"),
    *("author", "authority", "auth", "cookies_enabled", "secret_name", "passport", "pin"),
    *("", "_", ".", "password.length", "cwd", "handler", "message", "url", "env.HOME"),
]


@pytest.mark.parametrize("name", SECRET)
def test_a_telling_name_is_secret(name):
    assert Secrets().is_secret(name)


@pytest.mark.parametrize("name", OPEN)
def test_a_name_that_only_looks_like_one_is_not(name):
    assert not Secrets().is_secret(name)


def test_a_secret_is_masked_whole_wherever_it_stands():
    value = {
        "a": [{"password": "x"}, 1, [{"token": {"id": 1}}]],
        "b": {"c": {"api_key": ["x", "y"], "n": 1}},
        "secret": 5,
        "cookie": False,
    }
    assert Secrets().mask(value) == {
        "a": [{"password": MASK}, 1, [{"token": MASK}]],
        "b": {"c": {"api_key": MASK, "n": 1}},
        "secret": MASK,
        "cookie": MASK,
    }


def test_what_is_empty_stays_for_it_says_that_nothing_is_set():
    value = {"password": "", "token": None}
    assert Secrets().mask(value) is value


@pytest.mark.parametrize(
    ("called", "held"), [("name", "value"), ("key", "value"), ("Name", "Value"), ("Key", "Value")]
)
def test_a_list_of_names_and_values_is_understood(called, held):
    env = [{called: "HOME", held: "/x"}, {called: "DB_PASSWORD", held: "x", "more": 1}]
    masked = [env[0], {called: "DB_PASSWORD", held: MASK, "more": 1}]
    assert Secrets().mask({"env": env}) == {"env": masked}


@pytest.mark.parametrize(
    "pair",
    [{"name": "password"}, {"name": 1, "value": "x"}, {"name": "token", "value": ""}, {"value": 1}],
)
def test_an_object_that_is_no_such_pair_stays(pair):
    assert Secrets().mask(pair) is pair


def test_names_can_be_added_as_globs():
    secrets = Secrets(["webhook-url", "*_Pin", "env.SLACK_*", "slot?", "odd[1]"])
    for name in ("webhook_url", "Webhook-URL", "card_pin", "env.SLACK_X", "slot7", "odd[1]"):
        assert secrets.is_secret(name), name
    for name in ("webhook_urls", "pin", "x.SLACK_X", "slot", "odd1"):
        assert not secrets.is_secret(name), name
    assert secrets.is_secret("password"), "they add to the built-in ones"


def test_no_glob_and_no_name_takes_long():
    """Neither ends in anybody's lifetime if a pattern is tried in every possible way."""
    secrets = Secrets(["*a" * 40 + "b", "?*" * 40 + "b"])
    assert not secrets.is_secret("a" * 200)
    assert not secrets.is_secret("a" * 10_000_000)
    assert secrets.is_secret("x" * 10_000_000 + "_key")


def test_verdicts_are_remembered_within_bounds():
    secrets = Secrets()
    for i in range(3 * REMEMBERED):
        secrets.is_secret(f"name{i}x")
        secrets.is_secret(f"{i}".rjust(LONGEST + 1))
    assert 0 < len(secrets._verdicts) <= REMEMBERED
    assert all(len(name) <= LONGEST for name in secrets._verdicts)


def test_what_is_nested_too_deep_to_look_into_is_masked():
    value: dict = {"password": "x"}
    for _ in range(5 * DEEPEST):
        value = {"a": [value]}
    masked = Secrets().mask(value)
    assert '"x"' not in json.dumps(masked)


def test_nothing_secret_means_no_copy():
    value = {"a": [{"b": "c"}], "d": {"e": [1, "f"]}}
    secrets = Secrets()
    assert secrets.mask(value) is value
    masked = secrets.mask({**value, "token": "x"})
    assert isinstance(masked, dict)
    assert masked["a"] is value["a"]


names = st.sampled_from([*SECRET, *OPEN, "name", "value"]) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(names, inner, max_size=4)
        | st.fixed_dictionaries({"name": names, "value": inner})
    ),
    max_leaves=30,
)


def oracle(value, secrets):
    """Mask in the plainest way: a copy, name by name."""
    if isinstance(value, list):
        return [oracle(inner, secrets) for inner in value]
    if not isinstance(value, dict):
        return value
    hidden = {name for name in value if secrets.is_secret(name)}
    for called in ("name", "key"):
        if isinstance(value.get(called), str) and secrets.is_secret(value[called]):
            hidden.add("value")
    return {
        name: MASK if name in hidden and inner not in (None, "") else oracle(inner, secrets)
        for name, inner in value.items()
    }


@given(values)
def test_nothing_changes_but_values_under_secret_names(value):
    before = copy.deepcopy(value)
    secrets = Secrets()
    masked = secrets.mask(value)
    assert value == before, "the input is never modified"
    assert masked == oracle(value, secrets)
    assert secrets.mask(masked) is masked or masked == MASK, "masking twice is masking once"


@given(st.dictionaries(names, values, max_size=4))
def test_no_secret_text_survives(value):
    """Every text is made unique, so that one that is found is one that was let through."""
    marked = number(value, iter(range(10_000)))
    secrets = Secrets()
    masked = json.dumps(secrets.mask_object(marked))
    hidden = {text for text in secrets.values(marked) if text.startswith("text-")}
    assert {text for text in texts(marked) if f'"{text}"' not in masked} == hidden


def number(value, numbers):
    if isinstance(value, str):
        return f"text-{next(numbers)}-end"
    if isinstance(value, list):
        return [number(inner, numbers) for inner in value]
    if isinstance(value, Mapping):
        kept = {"name", "key"}
        return {
            name: inner if name in kept and isinstance(inner, str) else number(inner, numbers)
            for name, inner in value.items()
        }
    return value


def texts(value):
    if isinstance(value, str) and value.startswith("text-"):
        yield value
    for inner in value if isinstance(value, list) else ():
        yield from texts(inner)
    for inner in value.values() if isinstance(value, dict) else ():
        yield from texts(inner)
