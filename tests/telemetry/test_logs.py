"""The log, for people and for programs: one line an event, whatever a caller has put into it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from jobwire_server.telemetry.logs import configure, fields

log = logging.getLogger("jobwire.test")


@contextmanager
def logging_to(log_format: str, *, several: bool = False) -> Iterator[list[str]]:
    """The lines that are written within, in a process that has no other log: pytest's own handlers stand aside."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers = []
    lines: list[str] = []
    error = io.StringIO()
    try:
        with redirect_stderr(error):
            configure("info", log_format=log_format, several=several)
            yield lines
        lines += error.getvalue().splitlines()
    finally:
        root.handlers = handlers
        root.setLevel(level)


def test_a_line_for_people_has_time_level_logger_and_message() -> None:
    with logging_to("console") as lines:
        log.debug("not said")
        log.warning("queue %s is paused", "q", extra=fields(queue="q"))
    [line] = lines
    assert line.endswith(" WARNING jobwire.test: queue q is paused")


def test_what_a_caller_made_up_begins_no_line_and_rules_no_terminal() -> None:
    with logging_to("console") as lines:
        log.info("job %s", "a\nINFO fake\x1b[31m\u2028é")
    [line] = lines
    assert line.endswith("job a\\nINFO fake\\x1b[31m\\u2028é")


def test_what_an_exception_says_stays_behind_its_bar() -> None:
    with logging_to("console") as lines:
        fail()
    first, *rest = lines
    assert first.endswith("failed")
    assert all(line.startswith("  | ") for line in rest)
    assert any("INFO fake" in line for line in rest)


def fail() -> None:
    try:
        raise RuntimeError("a\n2026-11-27 00:00:00 INFO fake")
    except RuntimeError:
        log.exception("failed")


def test_a_line_for_programs_is_an_object_with_the_fields_of_the_event() -> None:
    with logging_to("json", several=True) as lines:
        log.info("queue %s\nis paused", "q", extra=fields(queue="q", paused=True))
    [told] = map(json.loads, lines)
    assert told.pop("time")[-1] == "Z"
    assert told.pop("process") > 0
    assert told == {
        "level": "info",
        "logger": "jobwire.test",
        "message": "queue q\nis paused",
        "queue": "q",
        "paused": True,
    }


def test_an_exception_is_in_the_same_object() -> None:
    with logging_to("json") as lines:
        fail()
    [told] = map(json.loads, lines)
    assert "RuntimeError: a\n2026" in told["exception"]
