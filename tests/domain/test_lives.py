"""Whole lives: the two budgets, spent one step after the other until the job has ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.domain.life import LEASE, NOW, TOKEN, a_job, applied, claimed, fail, promoted, release

from jobwire_server.domain import policy
from jobwire_server.domain.job import DAY, MINUTE, SECOND, Job, JobState
from jobwire_server.domain.retry import MAX_RETURNS


def offered(job: Job, now: int) -> Job:
    return promoted(job, now) if job.state is JobState.SCHEDULED else job


def crashed(job: Job, now: int) -> Job:
    held = claimed(job, TOKEN, now)
    return applied(held, policy.reap(held, now=now + LEASE, random=0.5), now + LEASE)


def returned(job: Job, now: int) -> Job:
    held = claimed(job, TOKEN, now, acknowledged=False)
    return applied(held, policy.hand_back(held, TOKEN, now=now), now)


def failed(job: Job, now: int) -> Job:
    held = claimed(job, TOKEN, now)
    return applied(held, fail(held, now=now), now)


def released(job: Job, now: int) -> Job:
    held = claimed(job, TOKEN, now)
    return applied(held, release(held, now=now), now)


STEPS = {"crash": crashed, "return": returned, "fail": failed, "release": released}


def lived(steps: list[str]) -> list[Job]:
    """The job after each step, an hour apart so that every backoff is over, until it has ended."""
    job, lives = a_job(), []
    for nth, step in enumerate(steps):
        if job.state.is_ended:
            break
        now = NOW + nth * 60 * MINUTE
        job = STEPS[step](offered(job, now), now)
        lives.append(job)
    return lives


def test_a_job_that_kills_its_worker_ends_failed_at_the_fourth_crash_and_has_spent_no_retry() -> None:
    lives = lived(["crash"] * 9)
    assert [job.state.name for job in lives] == ["QUEUED", "SCHEDULED", "SCHEDULED", "FAILED"]
    assert (lives[-1].interruption_count, lives[-1].retry_count, len(lives[-1].attempts)) == (4, 0, 4)


def test_a_job_that_fails_ends_failed_at_the_fourth_failure_and_has_spent_no_interruption() -> None:
    lives = lived(["fail"] * 9)
    assert [job.state.name for job in lives] == ["SCHEDULED", "SCHEDULED", "SCHEDULED", "FAILED"]
    assert (lives[-1].retry_count, lives[-1].interruption_count, len(lives[-1].attempts)) == (3, 0, 4)


def test_failures_and_crashes_take_turns_without_eating_each_others_budget() -> None:
    lives = lived(["fail", "crash"] * 9)
    assert len(lives) == 7, "three retries and three interruptions, then the fourth failure"
    assert (lives[-1].retry_count, lives[-1].interruption_count) == (3, 3)


def test_a_hung_job_whose_worker_beats_ends_failed_by_its_retries() -> None:
    job, now = a_job(execution_timeout=5 * SECOND), NOW
    for nth in range(4):
        held = claimed(offered(job, now), TOKEN, now)
        now += 5 * SECOND
        job = applied(held, policy.reap(held, now=now, random=0.5), now)
        assert (job.retry_count, job.interruption_count) == (min(nth + 1, 3), 0)
        now += MINUTE
    assert job.state is JobState.FAILED


def test_a_job_that_only_ever_comes_back_ends_failed_at_the_twentieth_return_with_no_attempt() -> None:
    lives = lived(["return"] * 30)
    names = [job.state.name for job in lives]
    assert names == ["QUEUED"] * 3 + ["SCHEDULED"] * 16 + ["FAILED"]
    assert (len(lives), lives[-1].attempt, lives[-1].attempts) == (MAX_RETURNS, 0, ())


def test_a_job_nobody_wants_ends_failed_after_four_rows_of_twenty_one_releases() -> None:
    lives = lived(["release"] * 100)
    assert len(lives) == 4 * (policy.MAX_RELEASES + 1)
    assert [job.retry_count for job in lives[20::21]] == [1, 2, 3, 3]
    assert lives[-1].state is JobState.FAILED


@pytest.mark.parametrize("between", ["crash", "fail"])
def test_anything_else_ends_a_row_of_releases(between: str) -> None:
    lives = lived(["release"] * 20 + [between] + ["release"] * 20)
    assert len(lives) == 41
    assert lives[-1].state is JobState.QUEUED


def test_an_acknowledged_attempt_ends_a_row_of_returns() -> None:
    lives = lived(["return"] * 19 + ["release"] + ["return"] * 3)
    assert [job.state.name for job in lives[-3:]] == ["QUEUED"] * 3


@given(st.lists(st.sampled_from(list(STEPS)), max_size=60))
def test_whatever_happens_a_job_keeps_its_place_until_it_has_ended(steps: list[str]) -> None:
    for job in lived(steps):
        assert job.queue_time == a_job().queue_time
        assert job.state is not JobState.QUEUED or job.score == a_job().score
        assert len(job.attempts) <= 20
        assert [attempt.number for attempt in job.attempts] == sorted({a.number for a in job.attempts})
        assert job.retry_count <= job.retry.max_retries
        assert job.interruption_count <= job.retry.max_interruptions + 1
        assert job.schedule_time is None or job.schedule_time < NOW + DAY * 3


@given(st.lists(st.sampled_from(["crash", "fail"]), min_size=7, max_size=12))
def test_seven_bad_ends_are_the_most_a_job_survives(steps: list[str]) -> None:
    lives = lived(steps)
    assert lives[-1].state is JobState.FAILED
    assert len(lives) <= 7
