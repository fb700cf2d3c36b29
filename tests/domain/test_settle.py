"""What a worker's word makes of a job: complete, fail, release."""

from __future__ import annotations

from typing import Any

import pytest
from tests.domain.life import BOOM, NOW, OTHER_TOKEN, TOKEN, a_job, answer, applied, delivered, fail, release, running

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import (
    HISTORY_LENGTH,
    MINUTE,
    SECOND,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    RetryPolicy,
)

S = JobState


# --- complete ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job",
    [
        running(),
        delivered(),
        running(cancel_requested=True),
        running(retry_count=3, error=BOOM),
        running(lease_expire_time=NOW - MINUTE, score=NOW - MINUTE),
    ],
    ids=["running", "not acknowledged yet", "a cancel is requested", "its last retry", "past its deadline"],
)
def test_complete_under_the_current_token_always_completes(job: Job) -> None:
    after = applied(job, policy.complete(job.id, TOKEN, b"42").as_move())

    assert (after.state, after.result, after.error) == (S.COMPLETED, b"42", None)
    assert after.finish_time == NOW
    assert after.finished_attempt is not None
    assert after.finished_attempt.outcome is AttemptOutcome.COMPLETED


def test_complete_needs_no_read_and_guards_nothing_but_the_token() -> None:
    move = policy.complete("job-1", TOKEN, None).as_move()

    assert answer(running(version=99), move, NOW) is Outcome.OK
    assert answer(running(token=OTHER_TOKEN), move, NOW) is Outcome.LOST


def test_complete_of_a_job_that_was_not_acknowledged_counts_as_its_start() -> None:
    job = delivered()
    assert job.start_time is None
    assert applied(job, policy.complete(job.id, TOKEN, None).as_move()).start_time == job.claim_time


# --- fail ----------------------------------------------------------------------------------------------------


FAILURES: list[tuple[str, dict[str, Any], dict[str, Any], JobState, int | None, int]] = [
    # what is told, the job, the report, where it goes, the delay, retries used after it
    ("a first failure waits the initial delay", {}, {}, S.SCHEDULED, SECOND, 1),
    ("a second one waits twice as long", {"retry_count": 1}, {}, S.SCHEDULED, 2 * SECOND, 2),
    ("the last retry is still given", {"retry_count": 2}, {}, S.SCHEDULED, 4 * SECOND, 3),
    ("with its retries used up it is dead", {"retry_count": 3}, {}, S.FAILED, None, 3),
    ("with no retries at all it is dead at once", {"retry": RetryPolicy(max_retries=0)}, {}, S.FAILED, None, 0),
    ("a permanent failure is dead whatever the budget", {}, {"permanent": True}, S.FAILED, None, 0),
    ("a delay of the worker's own overrides the backoff", {}, {"retry_delay": MINUTE}, S.SCHEDULED, MINUTE, 1),
    ("a delay of 0 is due at once", {}, {"retry_delay": 0}, S.SCHEDULED, 0, 1),
    ("a delay of its own buys no further retry", {"retry_count": 3}, {"retry_delay": 0}, S.FAILED, None, 3),
    ("a permanent failure ignores a delay", {}, {"permanent": True, "retry_delay": 0}, S.FAILED, None, 0),
    ("a cancel wins over a failure", {"cancel_requested": True}, {}, S.CANCELED, None, 0),
    ("a cancel wins over a permanent one", {"cancel_requested": True}, {"permanent": True}, S.CANCELED, None, 0),
    ("a cancel wins over the last one", {"cancel_requested": True, "retry_count": 3}, {}, S.CANCELED, None, 3),
    ("interruptions are another budget", {"interruption_count": 9}, {}, S.SCHEDULED, SECOND, 1),
]


@pytest.mark.parametrize(
    ("job", "report", "to", "delay", "retries"),
    [case[1:] for case in FAILURES],
    ids=[case[0] for case in FAILURES],
)
def test_fail(job: dict[str, Any], report: dict[str, Any], to: JobState, delay: int | None, retries: int) -> None:
    before = running(**job)
    after = applied(before, fail(before, **report))

    assert after.state is to
    assert after.retry_count == retries
    assert after.interruption_count == before.interruption_count
    if delay is not None:
        assert after.schedule_time == after.score == NOW + delay
    assert [attempt.number for attempt in after.attempts] == [1]
    if to is not S.CANCELED:
        assert after.error == BOOM
        assert after.attempts[0].error == BOOM


def test_fail_is_decided_again_when_a_cancel_came_in_between() -> None:
    read = running()
    failing = fail(read)
    canceled = applied(read, policy.cancel(read, reason="stop", grace=0, etag=None, now=NOW))

    assert answer(canceled, failing, NOW) is Outcome.STALE
    assert applied(canceled, fail(canceled)).state is S.CANCELED


def test_fail_clears_the_attempt_from_the_row_and_keeps_its_place_in_the_queue() -> None:
    job = running(return_count=2, release_count=2, limit_time=NOW + MINUTE)
    after = applied(job, fail(job))

    assert (after.token, after.worker_id, after.claim_time, after.limit_time) == (None, "", None, None)
    assert (after.outcome, after.end_time, after.progress) == (None, None, None)
    assert (after.return_count, after.release_count) == (0, 0)
    assert after.queue_time == job.queue_time
    assert after.attempt == job.attempt


# --- release -------------------------------------------------------------------------------------------------


RELEASES: list[tuple[str, dict[str, Any], int, JobState, int | None, int, int]] = [
    # what is told, the job, the delay asked for, where it goes, its delay, releases in a row, retries used
    ("without a delay it is back in the queue", {}, 0, S.QUEUED, None, 1, 0),
    ("with a delay it waits", {}, MINUTE, S.SCHEDULED, MINUTE, 1, 0),
    ("it costs nothing even with all retries used", {"retry_count": 3}, 0, S.QUEUED, None, 1, 3),
    ("it costs nothing even with all interruptions used", {"interruption_count": 3}, 0, S.QUEUED, None, 1, 0),
    ("the 20th in a row still costs nothing", {"release_count": 19}, 0, S.QUEUED, None, 20, 0),
    ("the 21st counts as a failure", {"release_count": 20}, 0, S.SCHEDULED, SECOND, 0, 1),
    ("the 21st waits the backoff, not its delay", {"release_count": 20}, MINUTE, S.SCHEDULED, SECOND, 0, 1),
    ("the 21st is dead with no retry left", {"release_count": 20, "retry_count": 3}, 0, S.FAILED, None, 20, 3),
    ("a cancel wins over a release", {"cancel_requested": True}, 0, S.CANCELED, None, 0, 0),
    ("a cancel wins over a delayed one", {"cancel_requested": True}, MINUTE, S.CANCELED, None, 0, 0),
    (
        "a cancel wins over the 21st",
        {"cancel_requested": True, "release_count": 20, "retry_count": 3},
        0,
        S.CANCELED,
        None,
        20,
        3,
    ),
]


@pytest.mark.parametrize(
    ("job", "asked", "to", "delay", "in_a_row", "retries"),
    [case[1:] for case in RELEASES],
    ids=[case[0] for case in RELEASES],
)
def test_release(job: dict[str, Any], asked: int, to: JobState, delay: int | None, in_a_row: int, retries: int) -> None:
    before = running(**job)
    after = applied(before, release(before, delay=asked))

    assert after.state is to
    assert (after.release_count, after.retry_count) == (in_a_row, retries)
    assert after.interruption_count == before.interruption_count
    if delay is not None:
        assert after.schedule_time == NOW + delay
    if to is S.QUEUED:
        assert (after.queue_time, after.score) == (before.queue_time, a_job().score)


def test_release_keeps_the_error_of_an_earlier_failure() -> None:
    assert applied(running(error=BOOM), release(running())).error == BOOM


@pytest.mark.parametrize("retries_used", [0, 3], ids=["with a retry left", "with none left"])
def test_the_attempt_that_was_released_too_often_says_so(retries_used: int) -> None:
    job = running(release_count=policy.MAX_RELEASES, retry_count=retries_used)
    after = applied(job, release(job))

    too_often = JobError("RELEASED_TOO_OFTEN", "released 21 times in a row", (), "w1")
    assert after.error == too_often
    assert after.attempts[-1].outcome is AttemptOutcome.RELEASED
    assert after.attempts[-1].error == too_often


# --- what settling leaves behind -------------------------------------------------------------------------------


def test_an_attempt_that_its_worker_settled_keeps_the_digest_of_its_token() -> None:
    job = running()
    for move in (fail(job), fail(job, permanent=True), release(job), policy.complete(job.id, TOKEN, None).as_move()):
        assert applied(job, move).attempts[-1].token == TOKEN, move.to


def test_an_ended_attempt_tells_who_ran_it_from_when_to_when() -> None:
    job = running(attempt=4)
    expected = Attempt(4, "w1", NOW - 20 * SECOND, NOW, AttemptOutcome.FAILED, TOKEN, BOOM)
    assert applied(job, fail(job)).history == (expected,)
    assert applied(job, fail(job, permanent=True)).attempts == (expected,)


def test_only_the_last_20_attempts_are_kept() -> None:
    old = tuple(Attempt(n, "w1", 0, 0, AttemptOutcome.FAILED, b"") for n in range(11, 31))
    job = running(attempt=31, history=old)
    again = applied(job, fail(job))
    ended = applied(job, fail(job, permanent=True))

    for after in (again, ended):
        assert len(after.attempts) == HISTORY_LENGTH
        assert [attempt.number for attempt in after.attempts] == list(range(12, 32))
