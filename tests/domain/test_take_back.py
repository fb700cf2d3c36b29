"""What becomes of a job that is taken from its worker: hand_back, reap, recover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.domain.life import BOOM, NOW, STEADY, TOKEN, answer, applied, claimed, delivered, promoted, running, silent

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import MINUTE, SECOND, AttemptOutcome, Job, JobState, RetryPolicy
from jobwire_server.domain.move import Move
from jobwire_server.domain.policy import Recovery

S = JobState
Taking = Callable[[Job], Move]


def reap(job: Job, *, recovery: Recovery | None = None, now: int = NOW) -> Move:
    return policy.reap(job, now=now, random=0.5, recovery=recovery)


def recover(job: Job, *, recovery: Recovery | None = None, now: int = NOW) -> Move:
    return policy.recover(job, now=now, random=0.5, recovery=recovery)


def hand_back(job: Job, *, now: int = NOW) -> Move:
    assert job.token is not None
    return policy.hand_back(job, job.token, now=now)


def undelivered(**changes: Any) -> Job:
    """Delivered, never acknowledged, its delivery lease over."""
    return delivered(**{"lease_expire_time": NOW - SECOND, "score": NOW - SECOND, **changes})


# --- an acknowledged lease that ended without a word ------------------------------------------------------------


INTERRUPTIONS: list[tuple[str, dict[str, Any], Recovery, JobState, int | None, int]] = [
    # what is told, the job, the operator's wish, where it goes, its delay, interruptions after it
    ("the first goes back at once", {}, Recovery(), S.QUEUED, None, 1),
    ("the second waits the first backoff", {"interruption_count": 1}, Recovery(), S.SCHEDULED, SECOND, 2),
    ("the third waits twice as long", {"interruption_count": 2}, Recovery(), S.SCHEDULED, 2 * SECOND, 3),
    ("the fourth is one too many", {"interruption_count": 3}, Recovery(), S.FAILED, None, 4),
    ("retries are another budget", {"retry_count": 3}, Recovery(), S.QUEUED, None, 1),
    ("with none allowed the first ends it", {"retry": RetryPolicy(max_interruptions=0)}, Recovery(), S.FAILED, None, 1),
    ("a cancel wins over a lost lease", {"cancel_requested": True}, Recovery(), S.CANCELED, None, 0),
    (
        "a cancel wins over the last one",
        {"cancel_requested": True, "interruption_count": 3},
        Recovery(),
        S.CANCELED,
        None,
        3,
    ),
    ("an operator may allow fewer", {"interruption_count": 1}, Recovery(max_interruptions=1), S.FAILED, None, 2),
    ("an operator may allow none", {}, Recovery(max_interruptions=0), S.FAILED, None, 1),
    (
        "an operator may allow more",
        {"interruption_count": 3},
        Recovery(max_interruptions=9),
        S.SCHEDULED,
        4 * SECOND,
        4,
    ),
    ("an operator may make the first wait, too", {}, Recovery(initial_delay=MINUTE), S.SCHEDULED, MINUTE, 1),
    (
        "and later ones exponentially longer",
        {"interruption_count": 2},
        Recovery(initial_delay=MINUTE),
        S.SCHEDULED,
        4 * MINUTE,
        3,
    ),
]


@pytest.mark.parametrize("take", [reap, recover], ids=["reap", "recover"])
@pytest.mark.parametrize(
    ("job", "recovery", "to", "delay", "count"),
    [case[1:] for case in INTERRUPTIONS],
    ids=[case[0] for case in INTERRUPTIONS],
)
def test_interrupted(
    take: Callable[..., Move],
    job: dict[str, Any],
    recovery: Recovery,
    to: JobState,
    delay: int | None,
    count: int,
) -> None:
    before = silent(**job)
    after = applied(before, take(before, recovery=recovery))

    assert after.state is to
    assert after.interruption_count == count
    assert after.retry_count == before.retry_count
    assert [attempt.number for attempt in after.attempts] == [1]
    if delay is not None:
        assert after.schedule_time == after.score == NOW + delay
    if to is S.QUEUED:
        assert (after.queue_time, after.schedule_time) == (before.queue_time, before.schedule_time)
    if to is S.CANCELED:
        assert after.attempts[0].outcome is AttemptOutcome.CANCELED
    else:
        assert after.attempts[0].outcome is AttemptOutcome.INTERRUPTED
        assert after.error is not None
        assert after.error.code == "INTERRUPTED"


@pytest.mark.parametrize("take", [reap, recover])
def test_a_job_that_was_taken_back_has_no_worker(take: Taking) -> None:
    job = silent(worker_id="w1")
    after = applied(job, take(job))
    assert (after.state, after.worker_id, after.token, after.claim_time) == (S.QUEUED, "", None, None)


def test_the_attempt_of_a_silent_worker_keeps_no_token() -> None:
    for job in (silent(), silent(interruption_count=3), silent(cancel_requested=True)):
        assert applied(job, reap(job)).attempts[-1].token == b""


# --- whose deadline it was --------------------------------------------------------------------------------------


def overran(**changes: Any) -> Job:
    """Its worker beats, but no renewal passes the limit, which was a second ago."""
    past = NOW - SECOND
    return running(**{"limit_time": past, "lease_expire_time": past, "score": past, **changes})


def test_an_execution_timeout_costs_a_retry_and_no_interruption() -> None:
    job = overran()
    after = applied(job, reap(job))

    assert (after.state, after.schedule_time) == (S.SCHEDULED, NOW + SECOND)
    assert (after.retry_count, after.interruption_count) == (1, 0)
    assert after.error is not None
    assert after.error.code == "EXECUTION_TIMEOUT"
    assert after.history[-1].outcome is AttemptOutcome.TIMED_OUT
    assert after.history[-1].error == after.error


def test_an_execution_timeout_with_no_retry_left_ends_failed() -> None:
    job = overran(retry_count=3)
    after = applied(job, reap(job))

    assert (after.state, after.retry_count, after.interruption_count) == (S.FAILED, 3, 0)
    assert after.attempts[-1].outcome is AttemptOutcome.TIMED_OUT
    assert after.attempts[-1].error is not None
    assert after.attempts[-1].error.code == "EXECUTION_TIMEOUT"


def test_a_cancel_wins_over_an_execution_timeout() -> None:
    job = overran(cancel_requested=True)
    assert applied(job, reap(job)).state is S.CANCELED


def test_a_worker_that_fell_silent_before_its_limit_was_interrupted_however_late_that_is_noticed() -> None:
    job = silent(limit_time=NOW - SECOND // 2)
    after = applied(job, reap(job))

    assert (after.state, after.retry_count, after.interruption_count) == (S.QUEUED, 0, 1)


def test_a_limit_still_ahead_is_no_timeout() -> None:
    job = running(limit_time=NOW + MINUTE)
    assert applied(job, recover(job)).interruption_count == 1


# --- deliveries that were never acknowledged --------------------------------------------------------------------


RETURNS = [
    (1, S.QUEUED, 0),
    (2, S.QUEUED, 0),
    (3, S.QUEUED, 0),
    (4, S.SCHEDULED, 1),
    (5, S.SCHEDULED, 2),
    (6, S.SCHEDULED, 4),
    (7, S.SCHEDULED, 8),
    (8, S.SCHEDULED, 16),
    (9, S.SCHEDULED, 32),
    (10, S.SCHEDULED, 64),
    (11, S.SCHEDULED, 128),
    (12, S.SCHEDULED, 256),
    (13, S.SCHEDULED, 300),
    (19, S.SCHEDULED, 300),
    (20, S.FAILED, 0),
    (21, S.FAILED, 0),
]


@pytest.mark.parametrize("take", [hand_back, reap, recover], ids=["hand_back", "reap", "recover"])
@pytest.mark.parametrize(("nth", "to", "seconds"), RETURNS, ids=[f"return {row[0]}" for row in RETURNS])
def test_the_nth_return_in_a_row(take: Taking, nth: int, to: JobState, seconds: int) -> None:
    job = undelivered(return_count=nth - 1, attempt=3)
    after = applied(job, take(job))

    assert (after.state, after.return_count) == (to, nth)
    assert after.schedule_time == (NOW + seconds * SECOND if seconds else None)
    assert (after.attempt, after.attempts) == (2, ()), "a delivery that came back was no attempt"
    assert (after.retry_count, after.interruption_count, after.release_count) == (0, 0, 0)
    assert (after.token, after.worker_id, after.claim_time, after.start_time) == (None, "", None, None)
    assert after.queue_time == job.queue_time
    if to is S.FAILED:
        assert after.error is not None
        assert after.error.code == "NOT_DELIVERED"


@pytest.mark.parametrize("take", [hand_back, reap, recover], ids=["hand_back", "reap", "recover"])
@pytest.mark.parametrize("returns", [0, 5, 19])
def test_a_cancel_wins_over_a_return(take: Taking, returns: int) -> None:
    job = undelivered(cancel_requested=True, return_count=returns)
    assert applied(job, take(job)).state is S.CANCELED


def test_a_return_keeps_the_error_and_the_history_of_earlier_attempts() -> None:
    first = applied(running(), policy.fail(running(), TOKEN, BOOM, permanent=False, retry_delay=0, now=NOW, random=0.5))
    again = claimed(promoted(first, NOW), TOKEN, NOW, acknowledged=False)
    after = applied(again, hand_back(again))

    assert (after.error, after.history, after.attempt) == (BOOM, first.history, 1)


def test_an_acknowledgment_ends_the_row_of_returns() -> None:
    job = silent(return_count=0)
    assert applied(job, reap(job)).return_count == 0


def test_a_delivery_that_was_acknowledged_in_time_is_not_handed_back() -> None:
    move = hand_back(delivered())
    assert answer(running(version=8), move, NOW) is Outcome.STALE
    assert answer(running(), hand_back(running()), NOW) is Outcome.STALE


def test_reap_waits_for_the_deadline_and_recover_does_not() -> None:
    assert answer(running(), reap(running()), NOW) is Outcome.STALE
    assert answer(running(), recover(running()), NOW) is Outcome.OK


def test_the_policy_of_the_job_rules_the_delays_of_its_interruptions() -> None:
    slow = RetryPolicy(initial_delay=MINUTE, multiplier=3.0, jitter=0.0, max_delay=2 * MINUTE)
    for count, delay in ((1, MINUTE), (2, 2 * MINUTE)):
        job = silent(interruption_count=count, retry=slow)
        assert applied(job, reap(job)).schedule_time == NOW + delay
    assert STEADY.max_interruptions == 3
