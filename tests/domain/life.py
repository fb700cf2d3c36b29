"""Jobs to decide about, and a store of a single job: what the store stamps on a Move, as `Move` promises it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from jobwire_server.domain import policy
from jobwire_server.domain.change import token_digest
from jobwire_server.domain.guard import Outcome, judge
from jobwire_server.domain.job import (
    DAY,
    DEFAULT_RETENTION,
    MINUTE,
    SECOND,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    Progress,
    RetryPolicy,
)
from jobwire_server.domain.move import Move
from jobwire_server.domain.queue import DEFAULT_AGEING, rank

NOW = 1_900_000_000 * SECOND
LEASE = 30 * SECOND
DELIVERY = 10 * SECOND
TOKEN = token_digest(b"the holder's one")
OTHER_TOKEN = token_digest(b"of another claim")
BOOM = JobError("boom", "it broke", (("trace", "line 1"),), "w1")
STEADY = RetryPolicy(jitter=0.0)
"""The default policy without its spread, so that a table can name the delays: 1 s, 2 s, 4 s."""

_NEW = Job(
    id="job-1",
    queue="default",
    type="send",
    user_id="ann",
    priority=5,
    submission=b"payload and labels",
    retry=STEADY,
    execution_timeout=None,
    retention=None,
    schedule_time=None,
    expire_time=None,
    webhook_events=0,
    state=JobState.QUEUED,
    score=rank(NOW - MINUTE, 5, DEFAULT_AGEING),
    version=7,
    revision=4,
    last_operation=b"before",
    create_time=NOW - MINUTE,
    update_time=NOW - MINUTE,
    queue_time=NOW - MINUTE,
    start_time=None,
    finish_time=None,
    attempt=0,
    retry_count=0,
    interruption_count=0,
    release_count=0,
    return_count=0,
    token=None,
    fence=0,
    worker_id="",
    claim_time=None,
    acknowledged=False,
    lease_duration=LEASE,
    lease_expire_time=None,
    limit_time=None,
    outcome=None,
    end_time=None,
    progress=None,
    result=None,
    error=None,
    history=(),
    cancel_requested=False,
    cancel_reason="",
)

_CLAIMED: dict[str, Any] = {
    "attempt": 1,
    "token": TOKEN,
    "fence": NOW - 20 * SECOND,
    "worker_id": "w1",
    "claim_time": NOW - 20 * SECOND,
    "start_time": NOW - 20 * SECOND,
}
_LEASED: dict[str, Any] = {
    **_CLAIMED,
    "acknowledged": True,
    "lease_expire_time": NOW + 10 * SECOND,
    "score": NOW + 10 * SECOND,
}
_ENDED: dict[str, Any] = {"finish_time": NOW - SECOND, "end_time": NOW - SECOND, "score": NOW + DAY}

_IN_STATE: dict[JobState, dict[str, Any]] = {
    JobState.SCHEDULED: {"schedule_time": NOW + MINUTE, "score": NOW + MINUTE, "queue_time": None},
    JobState.QUEUED: {},
    JobState.IN_PROGRESS: _LEASED,
    JobState.COMPLETED: {**_CLAIMED, **_ENDED, "outcome": AttemptOutcome.COMPLETED, "result": b"42"},
    JobState.FAILED: {**_CLAIMED, **_ENDED, "outcome": AttemptOutcome.FAILED, "error": BOOM},
    JobState.CANCELED: {"finish_time": NOW - SECOND, "score": NOW + DAY},
    JobState.EXPIRED: {"finish_time": NOW - SECOND, "score": NOW + DAY, "expire_time": NOW - SECOND},
}


def a_job(state: JobState = JobState.QUEUED, **changes: Any) -> Job:
    """A plausible job in that state, at version 7; IN_PROGRESS it is held by `w1` under TOKEN and acknowledged."""
    return _NEW._replace(**{"state": state, **_IN_STATE[state], **changes})


def running(**changes: Any) -> Job:
    """A job whose worker has acknowledged it."""
    return a_job(JobState.IN_PROGRESS, **changes)


def delivered(**changes: Any) -> Job:
    """A job on its way to a worker that has not acknowledged it."""
    return running(**{"acknowledged": False, "start_time": None, **changes})


def silent(**changes: Any) -> Job:
    """A job whose lease ended a second ago without a word."""
    return running(**{"lease_expire_time": NOW - SECOND, "score": NOW - SECOND, **changes})


def claimed(job: Job, token: bytes, now: int, *, acknowledged: bool = True) -> Job:
    """The job as a worker's claim leaves it, or as its first heartbeat right after does."""
    assert job.state is JobState.QUEUED
    granted = LEASE if acknowledged else DELIVERY
    limit = now + job.execution_timeout if acknowledged and job.execution_timeout is not None else None
    return job._replace(
        state=JobState.IN_PROGRESS,
        version=job.version + 1,
        revision=job.revision + 1,
        last_operation=b"",
        update_time=now,
        attempt=job.attempt + 1,
        token=token,
        fence=max(job.fence + 1, now),
        worker_id="w1",
        claim_time=now,
        acknowledged=acknowledged,
        start_time=now if acknowledged and job.start_time is None else job.start_time,
        return_count=0 if acknowledged else job.return_count,
        lease_duration=LEASE,
        lease_expire_time=now + granted,
        limit_time=limit,
        score=now + granted if limit is None else min(now + granted, limit),
        outcome=None,
        end_time=None,
        progress=None,
    )


def promoted(job: Job, now: int) -> Job:
    """A SCHEDULED job as maintenance leaves it once it is due."""
    assert job.state is JobState.SCHEDULED
    assert job.score <= now
    queue_time = now if job.queue_time is None else job.queue_time
    return job._replace(
        state=JobState.QUEUED,
        version=job.version + 1,
        revision=job.revision + 1,
        queue_time=queue_time,
        score=rank(queue_time, job.priority, DEFAULT_AGEING),
    )


def answer(job: Job, move: Move, now: int) -> Outcome:
    """What the store would say to the Move."""
    return judge(move.guard, job, operation=move.operation, now=now, recovered_at=0)


def applied(job: Job, move: Move | None, now: int = NOW) -> Job:
    """The job after the Move, which its guard must let pass."""
    assert move is not None
    assert move.job_id == job.id
    assert answer(job, move, now) is Outcome.OK
    fields: dict[str, Any] = {
        **move.changes,
        "state": move.to,
        "update_time": now,
        "version": job.version + 1,
        "revision": job.revision + 1,
        "last_operation": move.operation,
    }
    after: Job = job._replace(**fields)
    if move.outcome is not None:
        start = after.claim_time if after.start_time is None else after.start_time
        after = after._replace(outcome=move.outcome, end_time=now, start_time=start)
    if move.to is not JobState.IN_PROGRESS:
        after = after._replace(lease_expire_time=None, acknowledged=False)
    return _indexed(after, was=job.state, now=now)


def _indexed(job: Job, *, was: JobState, now: int) -> Job:
    if job.state is JobState.QUEUED:
        queue_time = now if job.queue_time is None else job.queue_time
        return job._replace(queue_time=queue_time, score=rank(queue_time, job.priority, DEFAULT_AGEING))
    if job.state is JobState.SCHEDULED:
        assert job.schedule_time is not None
        return job._replace(score=job.schedule_time)
    if job.state is JobState.IN_PROGRESS:
        assert job.lease_expire_time is not None
        limit = job.lease_expire_time if job.limit_time is None else job.limit_time
        return job._replace(score=min(job.lease_expire_time, limit))
    finish = job.finish_time if was.is_ended and job.finish_time is not None else now
    retention = DEFAULT_RETENTION[job.state] if job.retention is None else job.retention
    return job._replace(finish_time=finish, score=finish + retention)


def fail(job: Job, *, permanent: bool = False, retry_delay: int | None = None, now: int = NOW) -> Move:
    """Its present holder reports BOOM."""
    assert job.token is not None
    return policy.fail(job, job.token, BOOM, permanent=permanent, retry_delay=retry_delay, now=now, random=0.5)


def release(job: Job, *, delay: int = 0, now: int = NOW) -> Move:
    """Its present holder gives it back."""
    assert job.token is not None
    return policy.release(job, job.token, delay=delay, now=now, random=0.5)


_instants = st.integers(NOW - DAY, NOW + DAY)
_counts = st.integers(0, 25)


@st.composite
def retry_policies(draw: st.DrawFn) -> RetryPolicy:
    """Any policy the wire lets in."""
    return RetryPolicy(
        max_retries=draw(st.integers(0, 1000)),
        initial_delay=draw(st.integers(0, 366 * DAY)),
        multiplier=draw(st.floats(1.0, 100.0)),
        max_delay=draw(st.integers(0, 366 * DAY)),
        jitter=draw(st.floats(0.0, 1.0)),
        max_interruptions=draw(st.integers(0, 1000)),
    )


def _attempts(number: int) -> Attempt:
    return Attempt(number, "w1", NOW - DAY, NOW - DAY, AttemptOutcome.FAILED, bytes([number]) * 16, BOOM)


@st.composite
def any_job(draw: st.DrawFn) -> Job:
    """A job in any state with any mixture of budgets, deadlines, requests and history."""
    state = draw(st.sampled_from(JobState))
    changes: dict[str, Any] = {
        "retry": draw(
            st.builds(
                RetryPolicy,
                max_retries=st.integers(0, 4),
                initial_delay=st.sampled_from([0, SECOND]),
                max_interruptions=st.integers(0, 4),
            )
        ),
        "priority": draw(st.integers(1, 10)),
        "retry_count": draw(st.integers(0, 5)),
        "interruption_count": draw(st.integers(0, 5)),
        "release_count": draw(_counts),
        "return_count": draw(_counts),
        "cancel_requested": draw(st.booleans()),
        "history": tuple(_attempts(n) for n in range(1, draw(st.integers(0, 20)) + 1)),
        "error": draw(st.sampled_from([None, BOOM])),
        "expire_time": draw(st.none() | _instants),
        "retention": draw(st.none() | st.integers(0, DAY)),
        "version": draw(st.integers(1, 50)),
    }
    job = a_job(state, **changes)
    if state is JobState.SCHEDULED:
        due = draw(_instants)
        return job._replace(schedule_time=due, score=due)
    if state is not JobState.IN_PROGRESS:
        return job
    end, limit = draw(_instants), draw(st.none() | _instants)
    return job._replace(
        attempt=draw(st.integers(1, 30)),
        acknowledged=draw(st.booleans()),
        lease_expire_time=end,
        limit_time=limit,
        score=end if limit is None else min(end, limit),
        progress=draw(st.sampled_from([None, Progress(0.5, "half", NOW)])),
        start_time=draw(st.none() | st.just(NOW - DAY)),
    )
