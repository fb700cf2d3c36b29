"""The order of a queue: queue time, and what a level of priority is worth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.domain.life import NOW

from jobwire_server.domain.job import DAY, MINUTE
from jobwire_server.domain.queue import (
    DEFAULT_AGEING,
    MAX_AGEING,
    MAX_PRIORITY,
    MIN_PRIORITY,
    Queue,
    next_queue_time,
    rank,
)

instants = st.integers(0, 2**52)
ageings = st.integers(0, MAX_AGEING)
priorities = st.integers(MIN_PRIORITY, MAX_PRIORITY)
LEVELS = MAX_PRIORITY - MIN_PRIORITY


@given(st.lists(instants, min_size=1, max_size=50), instants)
def test_queue_times_rise_strictly_whatever_the_clock_does(clock: list[int], last: int) -> None:
    for now in clock:
        entered = next_queue_time(now, last)
        assert entered > last
        assert entered >= now
        last = entered


def test_a_queue_time_is_the_clock_while_the_clock_runs_ahead() -> None:
    assert next_queue_time(NOW, NOW - 1) == NOW
    assert next_queue_time(NOW, NOW) == NOW + 1
    assert next_queue_time(NOW - DAY, NOW) == NOW + 1


@given(instants, st.integers(MIN_PRIORITY, MAX_PRIORITY - 1), ageings)
def test_a_level_of_priority_is_worth_exactly_the_ageing(queued: int, priority: int, ageing: int) -> None:
    assert rank(queued, priority + 1, ageing) - rank(queued, priority, ageing) == ageing
    assert rank(queued + ageing, priority, ageing) == rank(queued, priority + 1, ageing)


@given(instants, ageings)
def test_the_first_priority_ranks_by_its_queue_time_alone(queued: int, ageing: int) -> None:
    assert rank(queued, MIN_PRIORITY, ageing) == queued


@given(instants, instants, priorities, ageings)
def test_among_equals_whoever_came_first_is_first(one: int, other: int, priority: int, ageing: int) -> None:
    assert (rank(one, priority, ageing) < rank(other, priority, ageing)) == (one < other)


@given(instants, priorities, priorities, ageings, st.integers(1, DAY))
def test_a_job_queued_more_than_nine_ageings_later_never_overtakes(
    queued: int, waiting: int, newer: int, ageing: int, more: int
) -> None:
    assert rank(queued, waiting, ageing) < rank(queued + LEVELS * ageing + more, newer, ageing)


@given(instants, priorities, priorities)
def test_with_no_ageing_priority_means_nothing(queued: int, one: int, other: int) -> None:
    assert rank(queued, one, 0) == rank(queued, other, 0)


def test_priority_one_is_first_and_a_level_is_worth_a_minute_unless_the_queue_says_otherwise() -> None:
    assert (MIN_PRIORITY, MAX_PRIORITY, DEFAULT_AGEING, MAX_AGEING) == (1, 10, MINUTE, DAY)
    assert Queue(name="default").ageing == MINUTE
    assert rank(NOW + MINUTE - 1, 1, MINUTE) < rank(NOW, 2, MINUTE) < rank(NOW + MINUTE + 1, 1, MINUTE)
