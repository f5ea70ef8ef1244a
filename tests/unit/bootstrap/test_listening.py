from __future__ import annotations

import pytest

from taskhub.bootstrap.listening import refuse_beyond_loopback
from taskhub.bootstrap.machine import bound
from taskhub.config import Auth, Config
from taskhub.errors import ConfigError

DEV = Config(dev=True)
SEED = Config(auth=Auth(mode="seed"))


@pytest.mark.parametrize("config", [DEV, SEED], ids=["dev", "seed"])
def test_who_lets_in_whoever_comes_does_not_listen_to_others(config):
    """Whatever the host was called: a name may lead to any address."""
    with bound("0.0.0.0", 0) as listener, pytest.raises(ConfigError, match=r"0\.0\.0\.0 is not"):
        refuse_beyond_loopback(config, listener)


@pytest.mark.parametrize("config", [DEV, SEED], ids=["dev", "seed"])
def test_on_loopback_it_does(config):
    with bound("localhost", 0) as listener:
        refuse_beyond_loopback(config, listener)


def test_who_asks_for_a_token_listens_anywhere():
    with bound("0.0.0.0", 0) as listener:
        refuse_beyond_loopback(Config(), listener)
