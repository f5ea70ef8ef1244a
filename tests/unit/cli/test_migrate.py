"""What `taskhub-server migrate` prints, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from dataclasses import replace

import pytest

from taskhub.bootstrap.migration import place
from taskhub.cli import main, migrate
from taskhub.cli.migration_text import Printer, table
from taskhub.config import Config
from taskhub.errors import ConfigError, ConflictError, SupersededError, UnavailableError
from taskhub.services.migration import Kind, KindReport, Phase, Tally
from taskhub.testing.clock import FakeClock

OPTIONS = argparse.Namespace(source="sqlite:", target="sqlite:/b")
UNCHANGED = "Nothing was changed at the source.\n"


def report(kind, count, total, other=None):
    made = KindReport(kind, Tally(count, total), Tally(count, other or total))
    if other:
        made.differing.add("first")
    return made


async def same(source, target, config, listener):
    assert (source, target) == ("sqlite:", "sqlite:/b")
    return (report(Kind.RUNS, 1200, 1 << 255), report(Kind.LINES, 0, 0))


async def different(*_):
    return (report(Kind.RUNS, 1200, 1 << 255, 1 << 254), report(Kind.LINES, 0, 0))


def raising(error):
    async def between(*_):
        raise error

    return between


def ended(between):
    return asyncio.run(migrate.run(OPTIONS, Config(), between))


def test_a_copy_that_is_the_same_ends_with_a_table_and_success(capsys):
    assert ended(same) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "kind              source         target   checksum       same",
        "runs               1,200          1,200   800000000000   yes",
        "lines                  0              0   000000000000   yes",
        migrate.SAME,
        UNCHANGED.strip(),
    ]
    assert output.err == ""


def test_a_copy_that_differs_names_what_does_and_fails(capsys):
    assert ended(different) == 1
    output = capsys.readouterr()
    assert "800000000000 / 400000000000   NO\n" in output.out
    assert output.err.splitlines() == [
        "taskhub-server: runs differ: first",
        f"taskhub-server: {migrate.EMPTY_IT}",
    ]


@pytest.mark.parametrize("error", [UnavailableError, SupersededError])
def test_a_store_that_is_away_or_taken_over_ends_it_and_the_next_goes_on(capsys, error):
    assert ended(raising(error("gone"))) == 1
    output = capsys.readouterr()
    assert output.out == UNCHANGED
    assert output.err == f"taskhub-server: gone\ntaskhub-server: {migrate.GO_ON}\n"


def test_a_target_of_somebody_else_is_refused(capsys):
    assert ended(raising(ConflictError("run x"))) == 2
    assert capsys.readouterr().err.startswith("taskhub-server: run x\n")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_it_and_the_next_goes_on(capsys, number, code):
    closed = []

    async def between(*_):
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("stores")

    assert ended(between) == code
    output = capsys.readouterr()
    assert closed == ["stores"]
    assert output.out == UNCHANGED
    assert output.err == f"taskhub-server: interrupted; {migrate.GO_ON}\n"


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("sqlite:", "sqlite:", "--from and --to are the same store: {dir}"),
        ("sqlite:", "sqlite:{dir}/../{name}", "--from and --to are the same store: {dir}"),
        ("sqlite:", "sqlite:/elsewhere", "there is no store in {dir}: it has no taskhub.db"),
        ("memory:", "sqlite:", '"memory:" ends with its process: there is nothing to copy'),
        ("sqlite:", "sqlite:relative", "sqlite: no store that can be copied; "),
        ("sqlite:", "ftp://me:secret@host", "ftp: no store that can be copied; "),
    ],
)
def test_stores_that_cannot_be_copied_are_refused_in_one_line(
    tmp_path, capsys, source, target, reason
):
    words = {"dir": tmp_path, "name": tmp_path.name}
    stores = ["--from", source.format(**words), "--to", target.format(**words)]
    assert main(["migrate", "--data-dir", str(tmp_path), *stores], {}) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith(f"taskhub-server: {reason.format(**words)}")
    assert list(tmp_path.iterdir()) == []


def test_both_stores_must_be_named(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["migrate", "--from", "sqlite:"])
    assert caught.value.code == 2
    assert "--to" in capsys.readouterr().err


def test_the_data_directory_is_that_of_the_settings(tmp_path):
    config = Config()
    config = replace(config, server=replace(config.server, data_dir=tmp_path))
    assert place("sqlite:", config) == str(tmp_path.resolve())
    assert place("sqlite:/x", config) != str(tmp_path.resolve())
    with pytest.raises(ConfigError):
        place("", config)


async def test_a_phase_is_one_line_unless_it_takes_long(capsys):
    clock = FakeClock()
    printer = Printer(clock)
    printer.progress(Phase.COMPARE, {}, over=True)
    for runs in range(1, 8):
        await clock.advance(2)
        printer.progress(Phase.RUNS, {"runs": 1000 * runs, "events": 0}, over=False)
    printer.progress(Phase.RUNS, {"runs": 7000, "events": 0}, over=True)
    await clock.advance(1)
    printer.progress(Phase.LINES, {"lines": 0}, over=True)
    printer.waiting("target", "no route", 0.5)
    assert capsys.readouterr().out.splitlines() == [
        "compared: the target is empty",
        "runs copied so far: 3,000 runs in 6.0 s (500 runs/s)",
        "runs copied so far: 6,000 runs in 12.0 s (500 runs/s)",
        "runs copied: 7,000 runs in 14.0 s (500 runs/s)",
        "lines copied: nothing that was missing",
        "the target does not answer, next try in 0.5 s: no route",
    ]


def test_columns_stay_in_line_whatever_the_counts():
    rows = [report(kind, 10**9, 1) for kind in Kind]
    lines = list(table(rows))
    assert len({line.index("yes") for line in lines[1:]}) == 1
