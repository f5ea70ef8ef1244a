from __future__ import annotations

import argparse

from taskhub.cli.commands import Commands
from taskhub.config import Config


def perform(act):
    """Add `act` as a command, and give it; return its exit code."""
    parser = argparse.ArgumentParser()
    Commands(parser, "COMMAND", required=True).add("work", "work", act)
    options = parser.parse_args(["work"])
    return options.act(options, Config())


def test_a_command_returns_its_exit_code():
    assert perform(lambda _options, _config: 7) == 7


def test_an_interrupted_command_is_one_line(capsys):
    def interrupted(_options, _config):
        raise KeyboardInterrupt

    assert perform(interrupted) == 130
    assert capsys.readouterr().err == (
        "taskhub-server: interrupted; it may have been done or not\n"
    )
