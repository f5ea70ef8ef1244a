"""Who may log in after the first start, with and without --dev, in any order."""

from __future__ import annotations

from dataclasses import replace

from taskhub.bootstrap import serve
from tests.api.conftest import Api


async def logins(config, *passwords):
    """Start a server and return which of the passwords let admin in."""
    async with serve(config) as server:
        api = Api(server.url, server)
        tried = [
            await api.post("/api/login", {"username": "admin", "password": password})
            for password in passwords
        ]
    return [status == 200 for status, _ in tried]


async def test_the_first_password_is_random_shown_once_and_kept_for_the_owner(config, capfd):
    config = replace(config, dev=False)
    path = config.server.data_dir / "admin-password"
    assert await logins(config, "123456") == [False]
    password = path.read_text().strip()
    assert len(password) >= 20
    assert path.stat().st_mode & 0o777 == 0o600
    assert password in capfd.readouterr().err
    assert await logins(config, password) == [True]
    assert capfd.readouterr().err == ""


async def test_the_password_of_dev_mode_is_good_in_dev_mode_only(config, capfd):
    plain = replace(config, dev=False)
    path = config.server.data_dir / "admin-password"
    assert await logins(config, "123456") == [True]
    assert await logins(plain, "123456") == [False]
    first = path.read_text().strip()
    assert await logins(config, "123456", first) == [True, False]
    assert "123456" in capfd.readouterr().err
    assert await logins(plain, "123456", first) == [False, False]
    assert await logins(plain, path.read_text().strip()) == [True]
