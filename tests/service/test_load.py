from __future__ import annotations

import pytest

from jobwire_server.service.load import HEAVY, TOLD_EVERY, WINDOW, Load, Look
from jobwire_server.telemetry.metrics import Registry

STEP = 5.0


def worked(load: Load, share: float, *, since: Look, seconds: float) -> Look:
    """Notes what a process does that is at work for that share of the time."""
    for step in range(1, round(seconds / STEP) + 1):
        latest = Look(since.now + step * STEP, since.worked + step * STEP * share)
        load.note(latest)
    return latest


@pytest.fixture
def load() -> Load:
    return Load(Registry(), advice="get another")


def test_a_share_is_of_the_latest_minute(load: Load) -> None:
    begin = Look(100.0, 7.0)
    assert load.share(begin) == 0
    load.note(begin)
    assert load.share(begin) == 0, "no time has passed"
    assert load.share(Look(102.0, 8.0)) == 0.5, "of the two seconds there were"
    busy = worked(load, 0.9, since=begin, seconds=WINDOW)
    assert load.share(busy) == pytest.approx(0.9)
    quiet = worked(load, 0.1, since=busy, seconds=WINDOW)
    assert load.share(quiet) == pytest.approx(0.1)


def test_who_is_busy_for_a_minute_says_so_and_does_not_repeat_it_before_an_hour(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    begin = Look(0.0, 0.0)
    load.note(begin)
    latest = worked(load, 1.0, since=begin, seconds=WINDOW - STEP)
    assert not caplog.messages, "not a minute yet"
    latest = worked(load, HEAVY, since=latest, seconds=TOLD_EVERY - STEP)
    assert caplog.messages == [
        "this server was at work for 98 % of the last minute, and can do little more: get another"
    ]
    worked(load, HEAVY, since=latest, seconds=2 * STEP)
    assert [message.split("%")[0] for message in caplog.messages[1:]] == ["this server was at work for 70 "]


def test_who_is_busy_now_and_then_says_nothing(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    latest = Look(0.0, 0.0)
    for _ in range(10):
        latest = worked(load, 1.0, since=latest, seconds=WINDOW / 2)
        latest = worked(load, 0.3, since=latest, seconds=WINDOW / 2)
    assert not caplog.messages
