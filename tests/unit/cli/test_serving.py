from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
import tomllib

import pytest

from taskhub import __version__
from taskhub.cli import main
from taskhub.cli.serving import run
from taskhub.config import Config
from taskhub.errors import ConfigError


class Running:
    url = "http://127.0.0.1:1"

    async def wait(self, stop):
        await stop.wait()
        return True


class Dying(Running):
    async def wait(self, stop):
        return False


@contextlib.asynccontextmanager
async def served(_config):
    os.kill(os.getpid(), signal.SIGTERM)
    yield Running()


def refusing(error):
    @contextlib.asynccontextmanager
    async def serve(_config):
        raise error
        yield

    return serve


def test_the_version_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"TaskHub {__version__}\n"


def test_the_settings_in_force_are_printed_and_nothing_is_started(capsys, tmp_path):
    file = tmp_path / "taskhub.toml"
    file.write_text("[limits]\nretries = 3")
    assert main(["--print-config", "--config", str(file)], {"TASKHUB_PORT": "81"}) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert (printed["server"]["port"], printed["limits"]["retries"]) == (81, 3)


def test_a_variable_may_name_the_settings_file(capsys, tmp_path):
    file = tmp_path / "taskhub.toml"
    file.write_text("[server]\nport = 82")
    assert main(["--print-config"], {"TASKHUB_CONFIG": str(file)}) == 0
    assert tomllib.loads(capsys.readouterr().out)["server"]["port"] == 82


def test_every_flag_sets_its_setting(capsys):
    flags = ["--host", "::1", "--port", "0", "--data-dir", "/x", "--store", "memory:"]
    assert main([*flags, "--print-config"], {}) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["store"]["url"] == "memory:"
    server = printed["server"]
    assert (server["host"], server["port"], server["data_dir"]) == ("::1", 0, "/x")


def test_what_is_wrong_with_the_settings_is_said_a_line_each(capsys):
    assert main(["--port", "x", "--dev", "--host", "0.0.0.0"], {"TASKHUB_PROT": "1"}) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "taskhub-server: TASKHUB_PROT: unknown variable; did you mean TASKHUB_PORT?",
        "taskhub-server: --port: server.port must be a whole number, not 'x'",
        "taskhub-server: --dev has a known password, so it listens on loopback only, not '0.0.0.0'",
    ]


def test_an_unknown_flag_is_an_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--prot", "1"])
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_it_prints_its_url_when_it_is_there_and_stops_on_a_signal(capsys, caplog):
    caplog.set_level("INFO")
    assert asyncio.run(run(Config(), served)) == 0
    assert capsys.readouterr().out == f"TaskHub {__version__} listening on http://127.0.0.1:1\n"
    assert [record.signal for record in caplog.records] == ["SIGTERM"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_waits(capsys, number):
    cleaned = []

    @contextlib.asynccontextmanager
    async def serve(_config):
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(cleaned.append, "closed")
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
            yield Running()

    assert asyncio.run(run(Config(), serve)) == 0
    assert cleaned == ["closed"]
    assert capsys.readouterr().out == ""


def test_a_start_that_is_cancelled_by_somebody_else_is_no_orderly_end():
    @contextlib.asynccontextmanager
    async def serve(_config):
        raise asyncio.CancelledError
        yield

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run(Config(), serve))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OSError(errno.EADDRINUSE, "in use"),
            "port 8082 on 127.0.0.1 is taken; choose another with --port",
        ),
        (OSError(errno.EADDRNOTAVAIL, "no such"), "cannot start: 127.0.0.1:8082: no such"),
        (NotADirectoryError(errno.ENOTDIR, "no folder", "/x"), "cannot start: /x: no folder"),
        (ConfigError("the key is gone"), "the key is gone"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(error, reason, capsys):
    with pytest.raises(ConfigError, match=f"^{reason}$"):
        asyncio.run(run(Config(), refusing(error)))
    assert capsys.readouterr().out == ""


def test_a_server_that_cannot_go_on_says_so_and_fails(caplog):
    @contextlib.asynccontextmanager
    async def serve(_config):
        yield Dying()

    assert asyncio.run(run(Config(), serve)) == 1
    assert "cannot go on" in caplog.text


def test_what_breaks_later_is_no_matter_of_settings():
    @contextlib.asynccontextmanager
    async def serve(_config):
        yield Running()
        raise OSError("the disk is gone")

    async def stop_and_run():
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        await run(Config(), serve)

    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(stop_and_run())


def test_the_command_line_imports_neither_tornado_nor_the_database():
    """A start that only prints the version, or what is wrong, must not wait for them."""
    code = "import sys, taskhub.cli; print(sys.modules.keys() & {'tornado', 'sqlite3', 'motor'})"
    process = os.popen(f'{sys.executable} -c "{code}"')
    with process:
        assert process.read() == "set()\n"
