"""What the domain says, as messages. The other way is `convert`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1 import job_pb2, job_service_pb2, worker_service_pb2
from jobwire_server.domain.change import Change
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import (
    ENDED,
    HISTORY_LENGTH,
    SECOND,
    WAITING,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    NewJob,
    RetryPolicy,
    etag_of,
)
from jobwire_server.service.jobs import Recovered, Updated
from jobwire_server.store.base import Created, CreateOutcome, Renewed, Standing

STATES: Final = {state: job_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}
OUTCOMES: Final = {
    outcome: job_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome.name}") for outcome in AttemptOutcome
}


def job_message(job: Job) -> job_pb2.Job:
    """A whole job for the wire."""
    message = job_pb2.Job()
    write_job(message, job)
    return message


def write_job(
    message: job_pb2.Job, job: Job, *, bodies: bool = True, history: bool = True, readable: bool = False
) -> None:
    """Writes a job into an empty message, in its place within an answer: setting it afterwards would copy it.

    Without `bodies` it lacks payload, http, labels and result; without `history` attempts, error and progress. Where
    what is stored cannot be parsed the bodies are left out, too, unless it must be `readable`: then DecodeError.
    """
    try:
        _write_request(message, job, bodies=bodies)
    except DecodeError:
        if readable:
            raise
        message.Clear()
        _write_request(message, job, bodies=False)
    message.state = STATES[job.state]
    message.version = job.version
    message.etag = job.etag
    # Hot: assigning a default costs as much as assigning a value.
    if job.attempt:
        message.attempt = job.attempt
        message.fence = job.fence
        message.retry_count = job.retry_count
        message.interruption_count = job.interruption_count
    elif job.fence:
        message.fence = job.fence
    if job.cancel_requested:
        message.cancel_requested = True
        message.cancel_reason = job.cancel_reason
    set_time(message.create_time, job.create_time)
    set_time(message.update_time, job.update_time)
    if job.queue_time is not None:
        set_time(message.queue_time, job.queue_time)
    if job.start_time is not None:
        set_time(message.start_time, job.start_time)
    if job.finish_time is not None:
        set_time(message.finish_time, job.finish_time)
    if job.purge_time is not None:
        set_time(message.purge_time, job.purge_time)
    if job.state is JobState.IN_PROGRESS:
        lease = message.lease
        lease.worker_id = job.worker_id
        # The score of a running job is its deadline: the lease's end, or the sooner of what cuts it short.
        set_time(lease.expire_time, job.score)
        lease.acknowledged = job.acknowledged
    if bodies and job.result is not None:
        message.result.MergeFromString(job.result)
        message.result.SetInParent()  # an empty payload is a result, too
    if history:
        _write_history(message, job)


def write_preview(message: job_pb2.Job, new: NewJob, now: int, *, bodies: bool = True) -> None:
    """A job as it would be stored now: without what only the store knows, such as its version."""
    _write_request(message, new, bodies=bodies)
    is_due = new.schedule_time is None or new.schedule_time <= now
    message.state = STATES[JobState.QUEUED if is_due else JobState.SCHEDULED]
    set_time(message.create_time, now)
    set_time(message.update_time, now)
    if is_due:
        set_time(message.queue_time, now)


def write_created_briefly(answer: job_service_pb2.CreateJobResponse, created: Created) -> None:
    answer.job.id = created.job_id
    if created.outcome is CreateOutcome.CREATED:
        answer.created = True


def write_updated_briefly(answer: job_service_pb2.UpdateJobResponse, updated: Updated) -> None:
    answer.SetInParent()
    if updated.already_applied:
        answer.already_applied = True


class Standings:
    """Writes where the jobs of one answer stand. They are alike in nearly all but their id: what two of them share
    is written once and kept as bytes. Measured: 1.1 µs a job instead of 2.4."""

    def __init__(self) -> None:
        self._shared: dict[tuple[object, ...], bytes] = {}
        """What standings share → its bytes; empty for what has come once only."""

    def write_created(
        self, answer: job_service_pb2.CreateJobResponse, new: NewJob, created: Created, *, whole: bool
    ) -> None:
        """`whole`: with everything that the caller has sent itself; always where it meets a job from before."""
        answer.queue_position = created.queue_position
        standing = created.standing
        if standing is not None:
            answer.created = True
            message = answer.job
            if whole:
                _write_request(message, new, bodies=True)
            self._write(message, standing, is_new=True)
        elif created.job is not None:
            write_job(answer.job, created.job, bodies=whole)
        else:
            answer.job.id = created.job_id

    def write_updated(self, answer: job_service_pb2.UpdateJobResponse, change: Change, updated: Updated) -> None:
        standing, already_applied = updated
        if already_applied:
            answer.already_applied = True
        if standing is None:
            answer.job.id = change.job_id
        else:
            self._write(answer.job, standing, is_new=False)

    def _write(self, message: job_pb2.Job, standing: Standing, *, is_new: bool) -> None:
        id_, queue, state, score, version, revision, attempt, retry_count = standing[:8]
        create_time, update_time, queue_time, finish_time = standing[8:]
        # The score of a job that is QUEUED or IN_PROGRESS, a rank or a deadline, is not told.
        told_score = 0 if state in _SCORE_NOT_TOLD else score
        # New ones were created at one moment, so that they share their etag as well.
        shared = (queue, state, told_score, version, attempt, retry_count, update_time, finish_time, is_new)
        known = self._shared.get(shared)
        if known:
            message.MergeFromString(known)
        else:
            _write_shared(message, standing, is_new=is_new)
            self._shared[shared] = b"" if known is None else _shared_bytes(standing, is_new=is_new)
        message.id = id_
        if not is_new:
            message.etag = etag_of(create_time, revision)
        if queue_time is not None and state in WAITING:
            told = message.queue_time
            told.seconds = queue_time // SECOND
            told.nanos = queue_time % SECOND * 1000


_SCORE_NOT_TOLD: Final = frozenset({JobState.QUEUED, JobState.IN_PROGRESS})


def _shared_bytes(standing: Standing, *, is_new: bool) -> bytes:
    message = job_pb2.Job()
    _write_shared(message, standing, is_new=is_new)
    return message.SerializeToString()


def _write_shared(message: job_pb2.Job, standing: Standing, *, is_new: bool) -> None:
    """A standing without id and queue time, and, unless it is new, without etag."""
    message.queue = standing.queue
    message.state = STATES[standing.state]
    message.version = standing.version
    if standing.attempt:
        message.attempt = standing.attempt
        message.retry_count = standing.retry_count
    if is_new:
        message.etag = etag_of(standing.create_time, standing.revision)
        set_time(message.create_time, standing.create_time)
    set_time(message.update_time, standing.update_time)
    if standing.finish_time is not None:
        set_time(message.finish_time, standing.finish_time)
    if standing.state in ENDED:
        set_time(message.purge_time, standing.score)
    elif standing.state is JobState.SCHEDULED:
        set_time(message.schedule_time, standing.score)


FRAME: Final = 6
"""Bytes of tag and length around a message of less than 256 MiB."""
MARGIN: Final = 512
"""Bytes of all that stands once in an answer, a page token included."""


class Room:
    """The bytes that an answer of whole jobs has left."""

    def __init__(self, limit: int, *, names: Sequence[str] = ()) -> None:
        self._left = limit - MARGIN - sum(len(name) + FRAME for name in names)
        self._is_empty = True
        self.is_full = False

    def add(self, jobs: RepeatedCompositeFieldContainer[job_pb2.Job], job: Job) -> bool:
        """Appends the job if it fits. One that is too large for any answer is let in as the first, or it would never be
        seen: it stays below what gRPC itself sends."""
        write_job(jobs.add(), job)
        size = jobs[-1].ByteSize() + FRAME
        if size > self._left and not self._is_empty:
            del jobs[-1]
            self.is_full = True
            return False
        self._left -= size
        self._is_empty = False
        return True


def write_got(
    answer: job_service_pb2.BatchGetJobsResponse, asked: Sequence[str], jobs: Sequence[Job | None], room: Room
) -> None:
    """Whole jobs as long as there is room; the others by name."""
    for job_id, job in zip(asked, jobs, strict=True):
        if job is None:
            answer.not_found_ids.append(job_id)
        elif room.is_full or not room.add(answer.jobs, job):
            answer.remaining_ids.append(job_id)


def recovered_message(recovered: Recovered) -> job_service_pb2.RecoverStuckJobsResponse:
    return job_service_pb2.RecoverStuckJobsResponse(
        requeued_ids=recovered.requeued,
        scheduled_ids=recovered.scheduled,
        failed_ids=recovered.failed,
        canceled_ids=recovered.canceled,
        requeued_count=len(recovered.requeued),
        scheduled_count=len(recovered.scheduled),
        failed_count=len(recovered.failed),
        canceled_count=len(recovered.canceled),
        more=recovered.more,
    )


def lease_status(job_id: str, renewed: Renewed) -> worker_service_pb2.LeaseStatus:
    message = worker_service_pb2.LeaseStatus(job_id=job_id)
    if renewed.outcome is not Outcome.OK:
        message.state = worker_service_pb2.LEASE_STATE_LOST
        return message
    set_duration(message.remaining, max(renewed.remaining, 0))
    if renewed.cancel_requested:
        message.state = worker_service_pb2.LEASE_STATE_CANCEL_REQUESTED
        message.cancel_reason = renewed.cancel_reason
    else:
        message.state = worker_service_pb2.LEASE_STATE_OK
    return message


def set_time(target: Timestamp, micros: int) -> None:
    """Half the price of `FromMicroseconds`; assigning makes the field present, 0 included."""
    target.seconds = micros // SECOND
    target.nanos = micros % SECOND * 1000


def set_duration(target: Duration, micros: int) -> None:
    """Of a duration that is not negative."""
    target.seconds = micros // SECOND
    target.nanos = micros % SECOND * 1000


def _write_request(message: job_pb2.Job, job: Job | NewJob, *, bodies: bool) -> None:
    """What was asked for, which a job has before it is stored."""
    if bodies:
        message.MergeFromString(job.submission)
    message.id = job.id
    message.queue = job.queue
    if job.type:
        message.type = job.type
    if job.user_id:
        message.user_id = job.user_id
    message.priority = job.priority
    message.retry_policy.CopyFrom(_retry_message(job.retry))
    if job.execution_timeout is not None:
        set_duration(message.execution_timeout, job.execution_timeout)
    if job.retention is not None:
        set_duration(message.retention, job.retention)
    if job.schedule_time is not None:
        set_time(message.schedule_time, job.schedule_time)
    if job.expire_time is not None:
        set_time(message.expire_time, job.expire_time)


@lru_cache(maxsize=64)
def _retry_message(policy: RetryPolicy) -> job_pb2.RetryPolicy:
    """To be copied from: nearly all jobs share a few policies."""
    message = job_pb2.RetryPolicy(
        max_retries=policy.max_retries,
        multiplier=policy.multiplier,
        jitter=policy.jitter,
        max_interruptions=policy.max_interruptions,
    )
    set_duration(message.initial_delay, policy.initial_delay)
    set_duration(message.max_delay, policy.max_delay)
    return message


def _write_history(message: job_pb2.Job, job: Job) -> None:
    if job.error is not None:
        message.error.CopyFrom(_error_message(job.error))
    if job.progress is not None:
        if job.progress.fraction is not None:
            message.progress.fraction = job.progress.fraction
        message.progress.message = job.progress.message
        set_time(message.progress.update_time, job.progress.update_time)
    for attempt in job.attempts[-HISTORY_LENGTH:]:
        message.attempts.append(_attempt_message(attempt))
    if job.state is JobState.IN_PROGRESS and job.claim_time is not None:
        running = message.attempts.add()
        running.number = job.attempt
        running.worker_id = job.worker_id
        running.outcome = job_pb2.ATTEMPT_OUTCOME_RUNNING
        set_time(running.start_time, job.claim_time)


def _attempt_message(attempt: Attempt) -> job_pb2.Attempt:
    message = job_pb2.Attempt(number=attempt.number, worker_id=attempt.worker_id, outcome=OUTCOMES[attempt.outcome])
    set_time(message.start_time, attempt.start_time)
    set_time(message.end_time, attempt.end_time)
    if attempt.error is not None:
        message.error.CopyFrom(_error_message(attempt.error))
    return message


def _error_message(error: JobError) -> job_pb2.JobError:
    return job_pb2.JobError(
        code=error.code, message=error.message, details=dict(error.details), worker_id=error.worker_id
    )
