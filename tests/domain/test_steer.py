"""What people and the clock make of a job: cancel, replay, edit, expire, and the etag that guards them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.domain.life import NOW, TOKEN, a_job, answer, applied, claimed, delivered, fail, running

from jobwire_server.domain import policy
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import MINUTE, SECOND, AttemptOutcome, Job, JobState, Progress, RetryPolicy
from jobwire_server.domain.move import JobChanges, Move

S = JobState
ENDED = [S.COMPLETED, S.FAILED, S.CANCELED, S.EXPIRED]
WAITING = [S.SCHEDULED, S.QUEUED]


def cancel(job: Job, *, reason: str = "stop", grace: int = 30 * SECOND, etag: str | None = None) -> Move | None:
    return policy.cancel(job, reason=reason, grace=grace, etag=etag, now=NOW)


def edit(job: Job, changes: JobChanges, *, payload: bool = False, etag: str | None = None) -> Move:
    return policy.edit(job, changes, payload=payload, etag=etag, now=NOW)


# --- cancel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", WAITING)
def test_cancel_ends_a_waiting_job_at_once(state: JobState) -> None:
    after = applied(a_job(state), cancel(a_job(state)))
    assert (after.state, after.cancel_requested, after.cancel_reason) == (S.CANCELED, True, "stop")


@pytest.mark.parametrize("state", ENDED)
def test_cancel_leaves_an_ended_job_alone(state: JobState) -> None:
    assert cancel(a_job(state)) is None


@pytest.mark.parametrize("job", [running(), delivered()], ids=["acknowledged", "on its way"])
def test_cancel_asks_the_worker_of_a_running_job_and_gives_it_the_grace(job: Job) -> None:
    after = applied(job, cancel(job, grace=5 * SECOND))

    assert (after.state, after.cancel_requested, after.cancel_reason) == (S.IN_PROGRESS, True, "stop")
    assert after.limit_time == after.score == NOW + 5 * SECOND
    assert (after.token, after.acknowledged, after.attempt) == (job.token, job.acknowledged, job.attempt)


@pytest.mark.parametrize(
    ("limit", "grace", "expected"),
    [
        (None, MINUTE, NOW + MINUTE),
        (NOW + SECOND, MINUTE, NOW + SECOND),
        (NOW + 2 * MINUTE, MINUTE, NOW + MINUTE),
        (NOW + 2 * MINUTE, 0, NOW),
    ],
    ids=["no limit yet", "the execution timeout comes first", "the grace comes first", "no grace"],
)
def test_cancel_can_bring_the_limit_nearer_and_never_pushes_it_out(
    limit: int | None, grace: int, expected: int
) -> None:
    job = running(limit_time=limit)
    assert applied(job, cancel(job, grace=grace)).limit_time == expected


def test_once_the_grace_has_passed_the_reaper_cancels_and_counts_nothing() -> None:
    asked = applied(running(), cancel(running(), grace=SECOND))
    later = NOW + SECOND
    after = applied(asked, policy.reap(asked, now=later, random=0.5), later)

    assert (after.state, after.retry_count, after.interruption_count) == (S.CANCELED, 0, 0)
    assert after.attempts[-1].outcome is AttemptOutcome.CANCELED
    assert (after.cancel_requested, after.cancel_reason) == (True, "stop")


def test_a_complete_that_comes_before_the_grace_is_over_wins() -> None:
    asked = applied(running(), cancel(running()))
    assert applied(asked, policy.complete(asked.id, TOKEN, b"42").as_move()).state is S.COMPLETED


# --- replay ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ENDED)
def test_replay_lets_every_ended_job_run_again(state: JobState) -> None:
    job = a_job(state)
    after = applied(job, policy.replay(job, etag=None))
    assert after.state is S.QUEUED
    assert after.queue_time == NOW, "a new place, at the end of the line"


@pytest.mark.parametrize("state", [*WAITING, S.IN_PROGRESS])
def test_replay_of_a_job_that_has_not_ended_is_refused(state: JobState) -> None:
    with pytest.raises(JobwireError) as refused:
        policy.replay(a_job(state), etag=None)

    assert refused.value.reason is Reason.ILLEGAL_TRANSITION
    assert refused.value.metadata == {"job_id": "job-1", "from": state.name, "to": "QUEUED"}


CLEARED: dict[str, Any] = {
    "retry_count": 0,
    "interruption_count": 0,
    "release_count": 0,
    "return_count": 0,
    "result": None,
    "error": None,
    "expire_time": None,
    "schedule_time": None,
    "cancel_requested": False,
    "cancel_reason": "",
    "start_time": None,
    "finish_time": None,
    "progress": None,
    "token": None,
    "worker_id": "",
    "claim_time": None,
    "limit_time": None,
    "outcome": None,
    "end_time": None,
}


@pytest.mark.parametrize("name", CLEARED)
def test_replay_clears(name: str) -> None:
    job = used_up()
    assert getattr(job, name) != CLEARED[name], "else this test would prove nothing"
    assert getattr(applied(job, policy.replay(job, etag=None)), name) == CLEARED[name]


@pytest.mark.parametrize(
    "name",
    [
        *("attempt", "attempts", "fence", "priority", "submission", "retry", "retention"),
        *("execution_timeout", "id", "queue", "type", "user_id", "create_time"),
    ],
)
def test_replay_keeps(name: str) -> None:
    job = used_up()
    assert getattr(job, name)
    assert getattr(applied(job, policy.replay(job, etag=None)), name) == getattr(job, name)


def used_up() -> Job:
    """A dead letter with every mark a life can leave."""
    earlier = applied(running(), fail(running())).history
    return a_job(
        S.FAILED,
        attempt=7,
        history=earlier,
        retry_count=3,
        interruption_count=2,
        release_count=1,
        return_count=1,
        result=b"an old one",
        expire_time=NOW - MINUTE,
        schedule_time=NOW - MINUTE,
        cancel_requested=True,
        cancel_reason="too late",
        progress=Progress(0.5, "half", NOW),
        limit_time=NOW,
        retention=MINUTE,
        execution_timeout=MINUTE,
    )


def test_the_attempts_after_a_replay_are_numbered_on() -> None:
    job = used_up()
    again = claimed(applied(job, policy.replay(job, etag=None)), TOKEN, NOW)
    assert again.attempt == 8
    assert [attempt.number for attempt in applied(again, fail(again)).attempts] == [1, 7, 8]


# --- edit --------------------------------------------------------------------------------------------------------


AHEAD, BEHIND = NOW + MINUTE, NOW - MINUTE
SCHEDULES: list[tuple[str, JobState, JobChanges, JobState]] = [
    ("a scheduled job goes to the queue when its time is now", S.SCHEDULED, {"schedule_time": NOW}, S.QUEUED),
    ("when it is past", S.SCHEDULED, {"schedule_time": BEHIND}, S.QUEUED),
    ("when it is cleared", S.SCHEDULED, {"schedule_time": None}, S.QUEUED),
    ("it stays scheduled for another time ahead", S.SCHEDULED, {"schedule_time": AHEAD}, S.SCHEDULED),
    ("it stays scheduled when something else changes", S.SCHEDULED, {"priority": 1}, S.SCHEDULED),
    ("a queued job waits when its time is ahead", S.QUEUED, {"schedule_time": AHEAD}, S.SCHEDULED),
    ("it stays queued when its time is past", S.QUEUED, {"schedule_time": BEHIND}, S.QUEUED),
    ("it stays queued when its time is cleared", S.QUEUED, {"schedule_time": None}, S.QUEUED),
    ("it stays queued when something else changes", S.QUEUED, {"priority": 1}, S.QUEUED),
    ("a running job stays with its worker", S.IN_PROGRESS, {"priority": 1}, S.IN_PROGRESS),
    ("an ended job stays ended, mended for a replay", S.FAILED, {"retry": RetryPolicy(max_retries=9)}, S.FAILED),
    ("an ended job stays ended", S.FAILED, {"retention": MINUTE}, S.FAILED),
]


@pytest.mark.parametrize(
    ("state", "changes", "to"), [case[1:] for case in SCHEDULES], ids=[case[0] for case in SCHEDULES]
)
def test_edit_puts_a_job_where_its_schedule_says(state: JobState, changes: JobChanges, to: JobState) -> None:
    job = a_job(state)
    after = applied(job, edit(job, changes))
    assert after.state is to
    for name, value in changes.items():
        assert getattr(after, name) == value


EDITABLE: dict[str, tuple[JobChanges, set[JobState]]] = {
    "priority": ({"priority": 1}, set(S)),
    "schedule_time": ({"schedule_time": AHEAD}, {S.SCHEDULED, S.QUEUED}),
    "retry": ({"retry": RetryPolicy(max_retries=9)}, set(S)),
    "expire_time": ({"expire_time": AHEAD + MINUTE}, {S.SCHEDULED, S.QUEUED, S.IN_PROGRESS}),
    "labels": ({"submission": b"other labels"}, set(S)),
    "payload": ({"submission": b"another payload"}, set(S) - {S.IN_PROGRESS}),
    "retention": ({"retention": MINUTE}, set(S)),
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("name", EDITABLE)
def test_each_state_lets_these_fields_be_edited_and_refuses_the_others(name: str, state: JobState) -> None:
    changes, states = EDITABLE[name]
    job = a_job(state)
    if state in states:
        applied(job, edit(job, changes, payload=name == "payload"))
        return
    with pytest.raises(JobwireError) as refused:
        edit(job, changes, payload=name == "payload")
    assert refused.value.reason is Reason.ILLEGAL_TRANSITION
    assert refused.value.metadata["from"] == state.name


def test_one_forbidden_field_refuses_the_whole_edit() -> None:
    with pytest.raises(JobwireError):
        edit(a_job(S.COMPLETED), {"retention": MINUTE, "expire_time": AHEAD})
    with pytest.raises(JobwireError):
        edit(running(), {"retention": MINUTE, "schedule_time": AHEAD})


def test_a_new_priority_is_a_new_place_in_the_queue() -> None:
    job = a_job()
    after = applied(job, edit(job, {"priority": 1}))
    assert after.queue_time == job.queue_time
    assert after.score == job.score - 4 * MINUTE


# --- expire ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", WAITING)
def test_expire_ends_a_waiting_job(state: JobState) -> None:
    job = a_job(state, expire_time=NOW)
    assert applied(job, policy.expire(job)).state is S.EXPIRED


@pytest.mark.parametrize("state", [S.IN_PROGRESS, *ENDED])
def test_expire_never_touches_a_job_that_does_not_wait(state: JobState) -> None:
    with pytest.raises(JobwireError) as refused:
        policy.expire(a_job(state, expire_time=NOW))
    assert refused.value.metadata == {"job_id": "job-1", "from": state.name, "to": "EXPIRED"}


@pytest.mark.parametrize(
    ("job", "expired"),
    [
        (a_job(), False),
        (a_job(expire_time=NOW + 1), False),
        (a_job(expire_time=NOW), True),
        (a_job(expire_time=NOW - 1), True),
        (a_job(expire_time=NOW, start_time=NOW - MINUTE), False),
    ],
    ids=["no expire_time", "ahead", "now", "past", "past, but it was started once"],
)
def test_a_job_is_expired_past_its_expire_time_unless_it_was_ever_started(job: Job, expired: bool) -> None:
    assert job.is_expired(NOW) is expired


def test_a_claim_that_came_first_saves_a_job_from_expiry() -> None:
    job = a_job(expire_time=NOW)
    expiring = policy.expire(job)
    assert answer(claimed(job, TOKEN, NOW), expiring, NOW) is Outcome.STALE


# --- etag --------------------------------------------------------------------------------------------------------


GUARDED: dict[str, tuple[JobState, Callable[[Job, str | None], Move | None]]] = {
    "cancel": (S.QUEUED, lambda job, etag: cancel(job, etag=etag)),
    "cancel of an ended job": (S.COMPLETED, lambda job, etag: cancel(job, etag=etag)),
    "replay": (S.FAILED, lambda job, etag: policy.replay(job, etag=etag)),
    "edit": (S.QUEUED, lambda job, etag: edit(job, {"priority": 1}, etag=etag)),
}


@pytest.mark.parametrize("verb", GUARDED)
def test_the_right_etag_or_none_passes_and_another_is_refused_with_the_present_one(verb: str) -> None:
    state, decide = GUARDED[verb]
    job = a_job(state)
    decide(job, None)
    decide(job, job.etag)
    for wrong in ("3", "", "04"):
        with pytest.raises(JobwireError) as refused:
            decide(job, wrong)
        assert refused.value.reason is Reason.ETAG_MISMATCH
        assert refused.value.metadata == {"job_id": "job-1", "etag": job.etag}


def test_a_late_copy_of_a_cancel_cannot_cancel_a_replay() -> None:
    waiting = a_job()
    canceled = applied(waiting, cancel(waiting, etag=waiting.etag))
    replayed = applied(canceled, policy.replay(canceled, etag=canceled.etag))
    with pytest.raises(JobwireError) as refused:
        cancel(replayed, etag=waiting.etag)
    assert refused.value.reason is Reason.ETAG_MISMATCH


def test_the_etag_tells_revisions_and_lives_apart_and_not_versions() -> None:
    job = a_job(version=9, revision=4)
    assert job.etag == a_job(version=10, revision=4).etag
    assert len({job.etag, a_job(revision=5).etag, job._replace(create_time=job.create_time + 1).etag}) == 3


@pytest.mark.parametrize("changes", [{"expire_time": AHEAD}, {"schedule_time": AHEAD}], ids=["expiry", "schedule"])
def test_an_edit_that_would_let_a_job_expire_before_it_is_due_is_refused(changes: JobChanges) -> None:
    job = a_job(S.SCHEDULED, schedule_time=AHEAD, expire_time=AHEAD + 1)
    if "schedule_time" in changes:
        job = a_job(S.SCHEDULED, schedule_time=NOW + 1, score=NOW + 1, expire_time=AHEAD)
    with pytest.raises(JobwireError) as refused:
        edit(job, changes)
    assert refused.value.reason is Reason.INVALID_FIELD
