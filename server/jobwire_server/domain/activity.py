"""What happens to the jobs of a queue, counted: since the queue came into being, and in the last minutes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from jobwire_server.domain.job import MINUTE, SECOND, JobState


class Event(StrEnum):
    """What is counted, by its name in `Tally`."""

    CREATED = "created"
    """A create stored it."""
    CLAIMED = "claimed"
    """A claim leased it, whatever comes of the delivery."""
    COMPLETED = "completed"
    """It became COMPLETED."""
    FAILED = "failed"
    """It became FAILED."""
    RETRIED = "retried"
    """An attempt cost a retry, and there will be another."""
    INTERRUPTED = "interrupted"
    """An acknowledged lease ended without a word from its worker."""


ENDED_BY: Final[Mapping[JobState, Event]] = {JobState.COMPLETED: Event.COMPLETED, JobState.FAILED: Event.FAILED}
"""A job that comes to this state from another one is counted so."""


class Tally(NamedTuple):
    """How often each event has happened, in the order of `Event`, and for how long all attempts ran that completed."""

    created: int = 0
    claimed: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    interrupted: int = 0
    run_time: int = 0
    """From claim to end."""

    def minus(self, other: Tally) -> Tally:
        return Tally(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


NOTHING: Final = Tally()


class Ring(NamedTuple):
    """How marks are kept: one for each step of time in which something happened, over and over in the same slots."""

    step: int
    slots: int
    """One more than the longest window has steps: the step that is under way counts too."""

    def at(self, time: int) -> tuple[int, int]:
        """The number of the step at that time, counted from 1970, and its slot."""
        number = time // self.step
        return number, number % self.slots


SHORT: Final = Ring(10 * SECOND, 7)
LONG: Final = Ring(MINUTE, 61)
RINGS: Final = (SHORT, LONG)

MINUTES: Final = LONG.slots - 1
"""So many are told of one by one."""

WINDOWS: Final = ((MINUTE, SHORT), (5 * MINUTE, LONG), (15 * MINUTE, LONG))
"""The length of each window at most, and the marks that it is told by."""

LONGEST: Final = {ring: max(length for length, told_by in WINDOWS if told_by is ring) for ring in RINGS}
"""The longest window that each ring tells of."""

Marks = Mapping[tuple[Ring, int], Tally]
"""Ring and number of a step → the tally as it was when the first event of that step happened."""

Lately = tuple[Tally, ...]
"""What happened in each of WINDOWS, up to now."""


def lately(*, now: int, tally: Tally, marks: Marks) -> Lately:
    """The difference between the tally and what it was when each window began.

    A step without a mark had no event, so that the tally at its beginning is the one at the next mark.
    """
    return tuple(
        tally.minus(next((marks[mark] for mark in _steps(now, length, ring) if mark in marks), tally))
        for length, ring in WINDOWS
    )


def by_minute(*, now: int, tally: Tally, marks: Marks) -> tuple[Tally, ...]:
    """What happened in each of the last MINUTES that are over, oldest first."""
    this = now // LONG.step
    minutes: list[Tally] = []
    end = tally
    for step in range(this, this - MINUTES - 1, -1):
        begin = marks.get((LONG, step), end)
        minutes.append(end.minus(begin))
        end = begin
    return tuple(reversed(minutes[1:]))  # the first is the one that is not over


def window_lengths(*, now: int, since: int) -> tuple[int, ...]:
    """How long each of WINDOWS is in truth: it begins with a step, and not before `since`, when the store began."""
    return tuple(max(0, now - max(_first_step(now, length, ring) * ring.step, since)) for length, ring in WINDOWS)


def minutes_since(*, now: int, since: int) -> int:
    """How many of the MINUTES had a store from their beginning to their end."""
    return max(0, min(MINUTES, now // LONG.step - -(-since // LONG.step)))


def _steps(now: int, length: int, ring: Ring) -> Iterator[tuple[Ring, int]]:
    """Those that begin within the window, the first one first."""
    return ((ring, step) for step in range(_first_step(now, length, ring), now // ring.step + 1))


def _first_step(now: int, length: int, ring: Ring) -> int:
    return -((length - now) // ring.step)
