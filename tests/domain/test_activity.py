"""What is counted, and what the marks of a tally say of the last minutes."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from jobwire_server.domain.activity import (
    LONG,
    RINGS,
    SHORT,
    WINDOWS,
    Event,
    Marks,
    Ring,
    Tally,
    by_minute,
    lately,
    minutes_since,
    window_lengths,
)
from jobwire_server.domain.guard import Guard
from jobwire_server.domain.job import HOUR, MINUTE, SECOND, JobState, Verb
from jobwire_server.domain.move import Move

START = 1_700_000_000 * SECOND
"""In the middle of a minute, at the beginning of ten seconds."""


def test_a_tally_counts_every_event_and_the_run_time() -> None:
    assert Tally._fields == (*Event, "run_time")


def test_the_steps_of_one_ring_are_those_of_the_other() -> None:
    """Whoever begins a long step begins a short one: stores look for the short one only."""
    assert LONG.step % SHORT.step == 0


def test_no_window_is_longer_than_its_ring() -> None:
    for length, ring in WINDOWS:
        assert length < ring.step * ring.slots


def kept(times: list[int]) -> tuple[Tally, Marks]:
    """As stores keep it: a create at each of these times, in slots that later marks take over."""
    tally, last, slots = Tally(), 0, dict[tuple[Ring, int], tuple[int, Tally]]()
    for time in times:
        for ring in RINGS:
            number, slot = ring.at(time)
            if number != last // ring.step:
                slots[ring, slot] = number, tally
        tally, last = tally._replace(created=tally.created + 1), time
    return tally, {(ring, number): before for (ring, _), (number, before) in slots.items()}


def created(times: list[int], now: int) -> list[int]:
    tally, marks = kept(times)
    return [each.created for each in lately(now=now, tally=tally, marks=marks)]


@pytest.mark.parametrize("seed", range(20))
def test_a_window_counts_what_happened_since_it_began(seed: int) -> None:
    random = Random(seed)
    pauses = [0, 1, SECOND, 9 * SECOND, 10 * SECOND, 59 * SECOND, MINUTE, 7 * MINUTE]
    times = [START]
    for _ in range(300):
        times.append(times[-1] + random.choice(pauses))
    now = times[-1] + random.choice([0, 1, 30 * SECOND, MINUTE, 20 * MINUTE, 2 * HOUR])
    began = [now - window for window in window_lengths(now=now, since=0)]
    assert created(times, now) == [sum(time >= start for time in times) for start in began]


@pytest.mark.parametrize("seed", range(20))
def test_the_minutes_of_the_last_hour_are_told_one_by_one(seed: int) -> None:
    random = Random(seed)
    times = [START]
    for _ in range(500):
        times.append(times[-1] + random.choice([0, SECOND, 20 * SECOND, MINUTE, 3 * MINUTE]))
    now = times[-1] + random.choice([0, MINUTE, 30 * MINUTE])
    tally, marks = kept(times)
    this = now - now % MINUTE
    begins = [this - number * MINUTE for number in range(60, 0, -1)]
    told = [each.created for each in by_minute(now=now, tally=tally, marks=marks)]
    assert told == [sum(begin <= time < begin + MINUTE for time in times) for begin in begins]


@pytest.mark.parametrize(
    ("after", "lengths"),
    [
        (0, [60, 280, 880]),  # at the beginning of ten seconds, 40 s into a minute: 22:13:20
        (1, [51, 281, 881]),
        (20, [60, 300, 900]),
        (9.5, [59.5, 289.5, 889.5]),
    ],
)
def test_a_window_begins_with_a_step_and_is_never_longer_than_it_says(after: float, lengths: list[float]) -> None:
    now = START + 20 * SECOND + round(after * SECOND)
    assert window_lengths(now=now, since=0) == tuple(round(each * SECOND) for each in lengths)


def test_no_window_reaches_back_before_the_store() -> None:
    now = START + 100 * SECOND
    assert window_lengths(now=now, since=START + 70 * SECOND) == (30 * SECOND,) * 3
    assert window_lengths(now=now, since=now + 1) == (0, 0, 0), "a clock that was set back"


def test_a_minute_without_a_store_is_not_told() -> None:
    minute = START - START % MINUTE
    for since, number in [(minute, 2), (minute + 1, 1), (minute + MINUTE, 1), (minute + 2 * MINUTE, 0), (0, 60)]:
        assert minutes_since(now=minute + 2 * MINUTE + 1, since=since) == number
    assert minutes_since(now=minute, since=minute + HOUR) == 0, "a clock that was set back"


def move(verb: Verb, to: JobState, **changes: Any) -> Move:
    return Move(job_id="j", verb=verb, guard=Guard(), to=to, changes=changes)  # type: ignore[arg-type]  # any of them


@pytest.mark.parametrize(
    ("decided", "cost"),
    [
        (move(Verb.FAIL, JobState.SCHEDULED, retry_count=1), Event.RETRIED),
        (move(Verb.REAP, JobState.SCHEDULED, retry_count=1), Event.RETRIED),
        (move(Verb.RELEASE, JobState.SCHEDULED, retry_count=1), Event.RETRIED),
        (move(Verb.FAIL, JobState.FAILED), None),
        (move(Verb.RELEASE, JobState.QUEUED, release_count=1), None),
        (move(Verb.REAP, JobState.QUEUED, interruption_count=1), Event.INTERRUPTED),
        (move(Verb.RECOVER, JobState.FAILED, interruption_count=4), Event.INTERRUPTED),
        (move(Verb.REAP, JobState.QUEUED, return_count=1), None),
        (move(Verb.REPLAY, JobState.QUEUED, retry_count=0, interruption_count=0), None),
        (move(Verb.CANCEL, JobState.CANCELED), None),
    ],
)
def test_what_a_move_takes_from_the_budgets_is_its_cost(decided: Move, cost: Event | None) -> None:
    assert decided.cost is cost
