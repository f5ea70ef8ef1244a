"""`taskhub-server`: parse, call, print. Without a command it is the server.

Exit codes: 0 done, 1 broken or refused, 2 the settings or the machine made it impossible.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from taskhub.cli.arguments import load_config, parse
from taskhub.cli.commands import PROGRAM
from taskhub.config import to_toml
from taskhub.errors import ConfigError, InvalidError, TaskHubError


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Do what the arguments say; return the exit code."""
    options = parse(argv)
    try:
        config = load_config(options, os.environ if environ is None else environ)
        if options.print_config:
            print(to_toml(config), end="")
            return 0
        code: int = options.act(options, config)
    except TaskHubError as error:
        for line in _lines(error):
            print(f"{PROGRAM}: {line}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return code


def _lines(error: TaskHubError) -> Iterator[str]:
    if isinstance(error, InvalidError):
        for problem in error.problems:
            name = problem.pointer.removeprefix("/")
            yield f"{name}: {problem.message}" if name else problem.message
    else:
        yield from str(error).splitlines()
