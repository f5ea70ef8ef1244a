from __future__ import annotations

import subprocess
import sys

import pytest

from taskhub.bootstrap.machine import bound, make_directory, secret_key
from taskhub.errors import ConfigError

DUMPABLE = """
import ctypes
from taskhub.bootstrap.machine import forbid_dumps
forbid_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_a_server_cannot_be_read_by_its_tasks():
    assert subprocess.check_output([sys.executable, "-c", DUMPABLE], text=True) == "0\n"


def test_a_key_is_made_once_for_its_owner_only(tmp_path):
    path = tmp_path / "secret.key"
    key = secret_key(path)
    assert len(key) == 32
    assert secret_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_short_key_is_refused_and_not_replaced(tmp_path):
    path = tmp_path / "secret.key"
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes, 32 are needed"):
        secret_key(path)
    assert path.read_bytes() == b"short"


def test_an_address_that_is_taken_is_noticed_before_listening():
    with bound("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(OSError, match="in use"), bound(*first.getsockname()):
            pass


def test_a_file_where_the_directory_should_be_is_one_clear_line(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match=r"cannot write to .*data"):
        make_directory(tmp_path / "data")
