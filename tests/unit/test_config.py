from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from taskhub.config import Config, Server, Store, load, sample, to_toml
from taskhub.config.catalogue import DEFAULTS, SETTINGS
from taskhub.config.render import default_text
from taskhub.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "taskhub.toml"
        path.write_text(text)
        return path

    return write


def problems(*args, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return [re.sub(r"^/.*/", "", line) for line in str(caught.value).splitlines()]


def test_without_any_source_the_defaults_hold():
    config = load()
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8082)
    assert config.server.data_dir == Path.cwd() / "taskhub-data"
    assert config.limits == DEFAULTS.limits
    assert not config.dev


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(file):
    path = file("[server]\nport = 1\nws_port = 10\n[limits]\nretries = 7")
    environ = {"TASKHUB_SERVER_PORT": "2", "TASKHUB_LIMITS_RETRIES": "8"}
    assert load(path).server.port == 1
    assert load(path, environ).server.port == 2
    config = load(path, environ, {"--port": "3"})
    assert (config.server.port, config.server.ws_port, config.limits.retries) == (3, 10, 8)


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("TASKHUB_HOST", "::1", "server.host", "::1"),
        ("TASKHUB_PORT", "0", "server.port", 0),
        ("TASKHUB_DATA_DIR", "/srv/x", "server.data_dir", Path("/srv/x")),
        ("TASKHUB_STORE", "memory:", "store.url", "memory:"),
        (
            "TASKHUB_SERVER_ALLOWED_HOSTS",
            "a.example, b",
            "server.allowed_hosts",
            ("a.example", "b"),
        ),
        ("TASKHUB_LIMITS_BODY_BYTES", "2 MiB", "limits.body_bytes", 2 << 20),
        ("TASKHUB_LIMITS_BODY_BYTES", "4096", "limits.body_bytes", 4096),
        ("TASKHUB_RETENTION_LOG_BYTES", "1.5GB", "retention.log_bytes", 1_500_000_000),
        ("TASKHUB_SOCKET_PING_S", "0.5", "socket.ping_s", 0.5),
        ("TASKHUB_LOG_LEVEL", "debug", "log.level", "debug"),
    ],
)
def test_variables_are_read_by_type(variable, text, name, value):
    section, field = name.split(".")
    assert getattr(getattr(load(None, {variable: text}), section), field) == value


def test_a_file_may_set_every_setting():
    uncommented = re.sub(r"(?m)^# (\w+ = .*)$", r"\1", sample().partition("\n# What an exec")[0])
    assert set(SETTINGS) == {
        f"{section}.{key}" for section, table in tomllib.loads(uncommented).items() for key in table
    }


def test_the_sample_holds_the_defaults(file):
    path = file(re.sub(r"(?m)^# (\w+ = .*|\[.*)$", r"\1", sample()))
    assert load(path) == dataclasses.replace(load(), executors={"shell": {"cwd": "/srv/jobs"}})


def test_the_sample_file_is_up_to_date():
    """Else run `python -c 'from taskhub.config import sample; print(sample(), end="")'`."""
    assert (ROOT / "etc/taskhub.toml").read_text() == sample()


def test_the_values_in_force_are_a_file_that_gives_the_same_values(file):
    text = '[executors."my exec"]\ncwd = "/x"\nlist = [1, true, "é\\n"]\ntable = {a = 1.5}'
    config = load(file(text), {"TASKHUB_LIMITS_RETRIES": "3"})
    assert load(file(to_toml(config))) == config


def test_secrets_are_never_shown(file):
    text = '[executors.HttpCall]\napi_key = "s3cret"\nproxy = {password = "s3cret"}'
    assert "s3cret" not in to_toml(load(file(text)))


def test_nor_are_those_in_lists_urls_and_under_names_of_ones_own(file):
    text = (
        '[auth]\nsecret_names = ["*_pin"]\n'
        '[executors.HttpCall]\ntokens = 5\napi_tokens = ["s3cret"]\ncard_pin = ["s3cret"]\n'
        'proxies = ["redis://me:s3cret@example:1"]\nheaders = [{name = "Cookie", value = "s3cret"}]'
    )
    shown = to_toml(load(file(text)))
    assert "s3cret" not in shown
    assert tomllib.loads(shown)["executors"]["httpcall"] == {
        "tokens": 5,
        "api_tokens": "***",
        "card_pin": "***",
        "proxies": ["redis://me:***@example:1"],
        "headers": [{"name": "Cookie", "value": "***"}],
    }
    assert tomllib.loads(shown)["auth"]["secret_names"] == ["*_pin"]


def test_the_password_in_the_url_of_the_store_is_not_shown(file):
    url = "mongodb://me:s3cret@db.example/taskhub?replicaSet=a"
    config = dataclasses.replace(load(), store=Store(url=url))
    assert 'url = "mongodb://me:***@db.example/taskhub?replicaSet=a"' in to_toml(config)
    (problem,) = problems(file(f'[store]\nurl = ["{url}"]'))
    assert "s3cret" not in problem


def test_a_typo_is_answered_with_the_nearest_name_and_its_place(file):
    path = file("[server]\nprot = 1\n[limit]\nretries = 1\n[auth]\nxyzzy = 1")
    assert problems(path, {"TASKHUB_SERVER_PROT": "1", "TASKHUB_XYZZY": "1"}) == [
        "taskhub.toml: unknown setting server.prot; did you mean server.port?",
        "taskhub.toml: unknown section [limit]; did you mean limits?",
        "taskhub.toml: unknown setting auth.xyzzy",
        "TASKHUB_SERVER_PROT: unknown variable; did you mean TASKHUB_SERVER_PORT?",
        "TASKHUB_XYZZY: unknown variable",
    ]


def test_all_wrong_values_are_reported_at_once(file):
    path = file(
        '[server]\nport = "80"\nallowed_hosts = "x"\n[limits]\nretries = true\n'
        'body_bytes = "1 XB"\n'
        '[log]\nlevel = "loud"\n[socket]\nping_s = nan\n[auth]\ntoken_ttl_s = 1.5\n'
    )
    assert problems(path, {"TASKHUB_WS_PORT": "1"}, {"--port": "99999", "--host": ""}) == [
        "TASKHUB_WS_PORT: unknown variable; did you mean TASKHUB_PORT?",
        "taskhub.toml: server.port must be a whole number, not '80'",
        "taskhub.toml: server.allowed_hosts must be a list of texts, not 'x'",
        "taskhub.toml: limits.retries must be a whole number, not True",
        "taskhub.toml: limits.body_bytes must be bytes, or a text like \"10 MiB\", not '1 XB'",
        "taskhub.toml: log.level must be one of debug, info, warning, error, not 'loud'",
        "taskhub.toml: socket.ping_s must be at least 0.1, not nan",
        "taskhub.toml: auth.token_ttl_s must be a whole number, not 1.5",
        "--port: server.port must be 0 to 65535, not '99999'",
        "--host: server.host must be a text, not ''",
    ]


@pytest.mark.parametrize(
    "text",
    ["x", "-1", "1e3", "1.5", "\N{FULLWIDTH DIGIT NINE}", "1_000", " ", "0x10", "9" * 5000],
)
def test_text_that_is_no_number_in_range_is_refused(text):
    assert len(problems(None, {"TASKHUB_PORT": text})) == 1


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "a\0b"])
def test_a_folder_that_cannot_be_is_refused(text):
    (problem,) = problems(None, {"TASKHUB_DATA_DIR": text})
    assert problem.startswith("TASKHUB_DATA_DIR: server.data_dir must be a path, not ")


def test_the_same_setting_from_two_variables_is_refused():
    both = {"TASKHUB_PORT": "1", "TASKHUB_SERVER_PORT": "2"}
    assert problems(None, both) == [
        "TASKHUB_SERVER_PORT: server.port is set by TASKHUB_PORT already"
    ]


def test_an_empty_variable_says_nothing():
    assert load(None, {"TASKHUB_PORT": ""}).server.port == 8082


def test_a_server_may_be_started_by_a_task():
    given = {"TASKHUB_RUN_ID": "r", "TASKHUB_TASK_ID": "t", "TASKHUB_ATTEMPT": "1"}
    assert load(None, {**given, "TASKHUB_ATTEMPT_KEY": "k"}) == load()


def test_executors_have_tables_of_their_own(file):
    config = load(file('[executors.Shell]\ncwd = "/srv"\nkill_grace_ms = 5'))
    assert config.executors == {"shell": {"cwd": "/srv", "kill_grace_ms": 5}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("executors = 1", "taskhub.toml: executors must be sections, [executors.NAME]"),
        (
            "[executors]\nShell = 1",
            "taskhub.toml: executors.Shell must be a section, [executors.Shell]",
        ),
        ("[executors.Shell]\n[executors.shell]", "taskhub.toml: executors.shell is there twice"),
        ("server = 1", "taskhub.toml: server must be a section, [server]"),
        (
            "[server",
            "taskhub.toml: Expected ']' at the end of a table declaration (at end of document)",
        ),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(file, text, problem):
    assert problems(file(text)) == [problem]


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert problems(tmp_path / "x.toml") == ["x.toml: No such file or directory"]
    (tmp_path / "x.toml").write_bytes(b"\xff")
    (problem,) = problems(tmp_path / "x.toml")
    assert "utf-8" in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_dev_listens_on_loopback(host):
    assert load(None, {"TASKHUB_HOST": host}, dev=True).dev


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_dev_listens_nowhere_else(host):
    assert "--dev" in problems(None, {}, {"--host": host or "*"}, dev=True)[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_seed_mode_listens_on_loopback(host):
    assert load(None, {"TASKHUB_HOST": host, "TASKHUB_AUTH_MODE": "seed"}).auth.mode == "seed"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "*"])
def test_seed_mode_listens_nowhere_else(host):
    given = {"TASKHUB_HOST": host, "TASKHUB_AUTH_MODE": "seed", "TASKHUB_SERVER_WS_PORT": "1"}
    assert problems(None, given) == [
        f"auth.mode is seed, so it listens on loopback only, not {host!r}"
    ]


def test_two_listeners_need_two_ports():
    same = {"TASKHUB_PORT": "81", "TASKHUB_SERVER_WS_PORT": "81"}
    assert problems(None, same) == ["server.port and server.ws_port are both 81"]


@pytest.mark.parametrize("url", ["mysql://u:s3cret@h/db", "sqlite:/x", "s3cret"])
def test_a_store_that_is_not_there_is_refused_and_its_url_not_shown(url):
    (problem,) = problems(None, {"TASKHUB_STORE": url})
    assert "s3cret" not in problem
    assert '"sqlite:", "mongodb://host/database" or "memory:"' in problem


def test_settings_can_be_built_in_code():
    assert Config(server=Server(port=0)).server.host == "127.0.0.1"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_every_setting_explains_itself_and_accepts_its_default(setting):
    assert setting.help.endswith(".")
    assert all(choice in setting.help for choice in setting.choices)
    raw = tomllib.loads(f"it = {default_text(setting.name)}")["it"]
    section, name = setting.name.split(".")
    assert setting.parse(raw, is_text=False) == getattr(getattr(load(), section), name)
