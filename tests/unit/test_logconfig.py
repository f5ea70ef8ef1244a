from __future__ import annotations

import io
import json
import logging

import pytest

from taskhub.logconfig import configure


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def written(stream, **options):
    configure(stream=stream, **options)
    return logging.getLogger("taskhub.web")


def test_machines_get_a_json_object_a_line():
    stream = io.StringIO()
    log = written(stream)
    log.info("request served", extra={"status": 200, "path": "/a\nb", "level": "mine"})
    line = json.loads(stream.getvalue())
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "taskhub.web",
        "message": "request served",
        "status": 200,
        "path": "/a\nb",
    }


def test_people_get_text_in_which_no_value_can_pose_as_a_line():
    stream = Terminal()
    written(stream).warning("request refused", extra={"status": 400, "path": "/a\nb c"})
    assert stream.getvalue()[9:] == 'WARNING web: request refused status=400 path="/a\\nb c"\n'


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_secrets_never_reach_the_log(stream):
    extra = {"token": "s3cret", "db_password": "s3cret", "api_key": "s3cret", "Cookie": "s3cret"}
    written(stream).info("logged in", extra=extra)
    assert "s3cret" not in stream.getvalue()
    assert "token" in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_comes_with_its_line(form):
    stream = io.StringIO()
    log = written(stream, form=form)
    try:
        raise RuntimeError("boom")  # noqa: TRY301  # there must be a traceback
    except RuntimeError:
        log.exception("broken")
    assert "RuntimeError: boom" in stream.getvalue()
    assert (stream.getvalue().count("\n") == 1) == (form == "json")


def test_what_is_below_the_level_is_not_written():
    stream = io.StringIO()
    written(stream, level="error").warning("hm")
    assert stream.getvalue() == ""
