"""Who may do what to a job, and what becomes of it: each function reads a job and answers the Move to apply.

Nothing here is final: the store judges the Move's guard when it applies it, and answers STALE when the job has changed
since; the caller then reads and decides again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from jobwire_server.domain.errors import JobwireError, Reason, invalid
from jobwire_server.domain.guard import Guard
from jobwire_server.domain.job import HISTORY_LENGTH, Attempt, AttemptOutcome, Job, JobError, JobState, Verb
from jobwire_server.domain.move import Completion, Deletion, JobChanges, Move, new_operation
from jobwire_server.domain.retry import MAX_RETURNS, backoff, return_delay

MAX_RELEASES = 20
"""Releases in a row that cost nothing; the next counts as a failure, or a job nobody wants would circle for ever."""


def complete(job_id: str, token: bytes, result: bytes | None) -> Completion:
    """The job has its result, whatever else is asked of it."""
    return Completion(job_id, token, result, new_operation())


def complete_as_read(job: Job, completion: Completion) -> Move:
    """The same, decided from the job as it was read: of its end somebody is to be told, and that takes knowing it."""
    return replace(completion.as_move(), guard=Guard.as_read(job, token=completion.token))


def fail(
    job: Job,
    token: bytes,
    error: JobError,
    *,
    permanent: bool,
    retry_delay: int | None,
    now: int,
    random: float,
) -> Move:
    """Its worker could not do it: SCHEDULED again while retries remain, else FAILED; CANCELED if that was asked for."""
    delay = backoff(job.retry, job.retry_count + 1, random) if retry_delay is None else retry_delay
    error = replace(error, worker_id=job.worker_id)
    ended = _Ended(job, Verb.FAIL, Guard.as_read(job, token=token), AttemptOutcome.FAILED, now, error)
    return ended.canceled() if job.cancel_requested else ended.failed(delay=None if permanent else delay)


def release(job: Job, token: bytes, *, delay: int, now: int, random: float) -> Move:
    """Its worker gives it back undone, at no cost to the budgets (up to MAX_RELEASES in a row)."""
    guard = Guard.as_read(job, token=token)
    ended = _Ended(job, Verb.RELEASE, guard, AttemptOutcome.RELEASED, now)
    if job.cancel_requested:
        return ended.canceled()
    if job.release_count < MAX_RELEASES:
        return ended.waits(delay, {"release_count": job.release_count + 1})
    error = JobError("RELEASED_TOO_OFTEN", f"released {MAX_RELEASES + 1} times in a row", (), job.worker_id)
    return replace(ended, error=error).failed(delay=backoff(job.retry, job.retry_count + 1, random))


def hand_back(job: Job, token: bytes, *, now: int) -> Move:
    """A delivery whose worker has gone before acknowledging it goes back, with nothing counted against the budgets."""
    return _returned(job, Verb.HAND_BACK, Guard.as_read(job, token=token, unacknowledged=True), now=now)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What an operator may ask of `reap` and `recover` beyond the job's own policy."""

    max_interruptions: int | None = None
    initial_delay: int | None = None
    """When given, an interrupted job waits (exponentially longer with each interruption) the first time too."""


def reap(job: Job, *, now: int, random: float, recovery: Recovery | None = None) -> Move:
    """Takes back a job whose deadline has passed; whose deadline it was decides what it costs."""
    guard = Guard.as_read(job, token=job.token or _NO_TOKEN, overdue=True)
    return _taken_back(job, Verb.REAP, guard, now=now, random=random, recovery=recovery or Recovery())


def recover(job: Job, *, now: int, random: float, recovery: Recovery | None = None) -> Move:
    """Takes back a job that an operator says is stuck, although its deadline is still ahead."""
    guard = Guard.as_read(job, token=job.token or _NO_TOKEN)
    return _taken_back(job, Verb.RECOVER, guard, now=now, random=random, recovery=recovery or Recovery())


def expire(job: Job) -> Move:
    """Nobody has started it in time."""
    if not job.state.is_waiting:
        raise illegal(job, Verb.EXPIRE, JobState.EXPIRED)
    return Move(job_id=job.id, verb=Verb.EXPIRE, guard=Guard.as_read(job), to=JobState.EXPIRED)


def cancel(job: Job, *, reason: str, grace: int, etag: str | None, now: int) -> Move | None:
    """Ends a waiting job at once; asks the worker of a running one, which has `grace` to heed.

    None: nothing to do, it has ended already or was asked before with no more grace than now.
    """
    _check_etag(job, etag)
    guard = Guard.as_read(job)
    asked: JobChanges = {"cancel_requested": True, "cancel_reason": reason}
    if job.state.is_ended:
        return None
    if job.state.is_waiting:
        return Move(job_id=job.id, verb=Verb.CANCEL, guard=guard, to=JobState.CANCELED, changes=asked)
    limit = now + grace if job.limit_time is None else min(job.limit_time, now + grace)
    if job.cancel_requested and limit == job.limit_time:
        return None
    asked["limit_time"] = limit
    return Move(job_id=job.id, verb=Verb.CANCEL, guard=guard, to=JobState.IN_PROGRESS, changes=asked)


def replay(job: Job, *, etag: str | None) -> Move:
    """An ended job runs again from the start: fresh budgets, a new place in the queue; the history keeps what was."""
    _check_etag(job, etag)
    if not job.state.is_ended:
        raise illegal(job, Verb.REPLAY, JobState.QUEUED)
    changes: JobChanges = {
        "history": job.attempts,
        **_NO_ATTEMPT,
        "retry_count": 0,
        "interruption_count": 0,
        "release_count": 0,
        "return_count": 0,
        "queue_time": None,
        "start_time": None,
        "finish_time": None,
        "schedule_time": None,
        "expire_time": None,
        "result": None,
        "error": None,
        "cancel_requested": False,
        "cancel_reason": "",
    }
    return Move(job_id=job.id, verb=Verb.REPLAY, guard=Guard.as_read(job), to=JobState.QUEUED, changes=changes)


def delete(job: Job, *, force: bool, etag: str | None) -> Deletion:
    """The job goes, wherever it stands; `force` takes it from a worker too."""
    _check_etag(job, etag)
    if job.state is JobState.IN_PROGRESS and not force:
        raise illegal(job, Verb.DELETE, None, "a worker has it; cancel it, or delete it with force")
    return Deletion(job.id, job.version, job.create_time)


_OVER_AT_THE_END = frozenset({"schedule_time", "expire_time"})
"""What means nothing to an ended job. The rest may change: a dead letter is mended, then replayed."""


def edit(job: Job, changes: JobChanges, *, payload: bool, etag: str | None, now: int) -> Move:
    """Writes what a person changed, and moves a waiting job to where its new schedule puts it.

    `payload` says that the submission's payload is among the changes: refused while a worker has the old one.
    """
    _check_etag(job, etag)
    to = job.state
    if job.state is JobState.IN_PROGRESS and (payload or "schedule_time" in changes):
        raise illegal(job, Verb.EDIT, job.state, "payload and schedule_time cannot change while a worker has the job")
    if job.state.is_ended and changes.keys() & _OVER_AT_THE_END:
        raise illegal(job, Verb.EDIT, job.state, "schedule_time and expire_time cannot change after the end")
    due = changes.get("schedule_time", job.schedule_time)
    expiry = changes.get("expire_time", job.expire_time)
    if changes.keys() & _OVER_AT_THE_END and due is not None and expiry is not None and expiry <= due:
        raise invalid("job.expire_time", "must be later than schedule_time")
    if job.state.is_waiting and "schedule_time" in changes:
        to = JobState.SCHEDULED if due is not None and due > now else JobState.QUEUED
    return Move(job_id=job.id, verb=Verb.EDIT, guard=Guard.as_read(job), to=to, changes=changes)


class Settled(StrEnum):
    """What is known of a token that guards nothing any more."""

    ALIKE = "alike"
    """It settled the job before, in the same way: the caller repeats itself, and all is well."""
    OTHERWISE = "otherwise"
    """It settled the job before, in another way."""
    NEVER = "never"
    """It never settled: the lease was lost."""


_OUTCOMES_OF = {
    # Under a cancel request a failure or a release ends the job CANCELED.
    Verb.COMPLETE: frozenset({AttemptOutcome.COMPLETED}),
    Verb.FAIL: frozenset({AttemptOutcome.FAILED, AttemptOutcome.CANCELED}),
    Verb.RELEASE: frozenset({AttemptOutcome.RELEASED, AttemptOutcome.CANCELED}),
}


def settled_as(job: Job, token: bytes) -> AttemptOutcome | None:
    """How this token settled the job before, through re-claims and replays; None when it never did. Asked only after a
    guard failed.

    An attempt that its worker did not settle keeps no token, so it matches nothing.
    """
    for attempt in reversed(job.attempts):
        if attempt.token == token:
            return attempt.outcome
    return None


def settled(job: Job, token: bytes, verb: Verb) -> Settled:
    """What a settlement by `verb` meets when its token guards nothing any more."""
    outcome = settled_as(job, token)
    if outcome is None:
        return Settled.NEVER
    return Settled.ALIKE if outcome in _OUTCOMES_OF[verb] else Settled.OTHERWISE


def illegal(job: Job, verb: Verb, to: JobState | None, why: str | None = None) -> JobwireError:
    return JobwireError(
        Reason.ILLEGAL_TRANSITION,
        f"cannot {verb} job {job.id!r}, which is {job.state.name}" + (f": {why}" if why else ""),
        metadata={"job_id": job.id, "from": job.state.name, "to": "" if to is None else to.name},
    )


def _check_etag(job: Job, etag: str | None) -> None:
    if etag is not None and etag != job.etag:
        raise JobwireError(
            Reason.ETAG_MISMATCH,
            f"job {job.id!r} has changed since it was read: its etag is {job.etag!r}, not {etag!r}",
            metadata={"job_id": job.id, "etag": job.etag},
        )


def _taken_back(job: Job, verb: Verb, guard: Guard, *, now: int, random: float, recovery: Recovery) -> Move:
    if not job.acknowledged:
        return _returned(job, verb, guard, now=now)
    if job.cancel_requested:
        return _Ended(job, verb, guard, AttemptOutcome.CANCELED, now).canceled()
    if job.limit_time is not None and job.limit_time <= min(now, job.score):
        error = JobError("EXECUTION_TIMEOUT", "the attempt ran longer than execution_timeout", (), job.worker_id)
        ended = _Ended(job, verb, guard, AttemptOutcome.TIMED_OUT, now, error)
        return ended.failed(delay=backoff(job.retry, job.retry_count + 1, random))
    count = job.interruption_count + 1
    error = JobError("INTERRUPTED", f"the worker fell silent (interruption {count})", (), job.worker_id)
    ended = _Ended(job, verb, guard, AttemptOutcome.INTERRUPTED, now, error)
    allowed = job.retry.max_interruptions if recovery.max_interruptions is None else recovery.max_interruptions
    if count > allowed:
        return ended.dead({"interruption_count": count})
    if recovery.initial_delay is not None:
        delay = backoff(replace(job.retry, initial_delay=recovery.initial_delay), count, random)
    else:
        delay = backoff(job.retry, count - 1, random) if count > 1 else 0
    return ended.waits(delay, {"interruption_count": count})


_NO_TOKEN = b""
"""The digest of no token: a job that nobody holds answers LOST, where an unset guard would let anything pass."""

_NO_ATTEMPT: JobChanges = {
    "token": None,
    "worker_id": "",
    "claim_time": None,
    "limit_time": None,
    "outcome": None,
    "end_time": None,
    "progress": None,
}
"""The current attempt has gone from the row: into the history, or because it does not count."""


def _returned(job: Job, verb: Verb, guard: Guard, *, now: int) -> Move:
    """A delivery came back unacknowledged: the attempt never was. A job that only ever comes back waits, then ends."""
    returns = job.return_count + 1
    changes: JobChanges = {**_NO_ATTEMPT, "attempt": job.attempt - 1, "return_count": returns}
    delay = return_delay(returns)
    if job.cancel_requested:
        to = JobState.CANCELED
    elif returns >= MAX_RETURNS:
        to = JobState.FAILED
        changes["error"] = JobError("NOT_DELIVERED", f"{returns} deliveries in a row came back unacknowledged")
    elif delay:
        to = JobState.SCHEDULED
        changes["schedule_time"] = now + delay
    else:
        to = JobState.QUEUED
    return Move(job_id=job.id, verb=verb, guard=guard, to=to, changes=changes)


@dataclass(frozen=True, slots=True)
class _Ended:
    """An attempt that has ended and counts; its methods say where the job goes from there."""

    job: Job
    verb: Verb
    guard: Guard
    outcome: AttemptOutcome
    now: int
    error: JobError | None = None

    def failed(self, *, delay: int | None) -> Move:
        """One retry used: SCHEDULED after `delay` while retries remain, else (or when `delay` is None) FAILED."""
        if delay is None or self.job.retry_count >= self.job.retry.max_retries:
            return self.dead({})
        return self._again(
            JobState.SCHEDULED, {"retry_count": self.job.retry_count + 1, "schedule_time": self.now + delay}
        )

    def waits(self, delay: int, changes: JobChanges) -> Move:
        """No retry used: QUEUED at its old rank, or SCHEDULED when it has to wait."""
        if delay <= 0:
            return self._again(JobState.QUEUED, changes)
        return self._again(JobState.SCHEDULED, {**changes, "schedule_time": self.now + delay})

    def dead(self, changes: JobChanges) -> Move:
        return self._stay(JobState.FAILED, self.outcome, {**changes, "error": self.error})

    def canceled(self) -> Move:
        told: JobChanges = {} if self.error is None else {"error": self.error}
        return self._stay(JobState.CANCELED, AttemptOutcome.CANCELED, told)

    def _stay(self, to: JobState, outcome: AttemptOutcome, changes: JobChanges) -> Move:
        """The job has ended: its last attempt stays in the row, as completion (which reads nothing) leaves its own."""
        if not self._by_worker:
            changes["token"] = None
        return Move(job_id=self.job.id, verb=self.verb, guard=self.guard, to=to, outcome=outcome, changes=changes)

    def _again(self, to: JobState, changes: JobChanges) -> Move:
        """The way is open for a next attempt: this one goes into the history."""
        job = self.job
        start = self.now if job.claim_time is None else job.claim_time
        attempt = Attempt(
            number=job.attempt,
            worker_id=job.worker_id,
            start_time=start,
            end_time=self.now,
            outcome=self.outcome,
            token=job.token if self._by_worker and job.token is not None else b"",
            error=self.error,
        )
        kept: JobChanges = {
            **_NO_ATTEMPT,
            "start_time": start if job.start_time is None else job.start_time,
            "history": (*job.history, attempt)[-HISTORY_LENGTH:],
            "return_count": 0,
            "release_count": 0,
        }
        if self.error is not None:
            kept["error"] = self.error
        return Move(job_id=job.id, verb=self.verb, guard=self.guard, to=to, changes={**kept, **changes})

    @property
    def _by_worker(self) -> bool:
        return self.verb in (Verb.FAIL, Verb.RELEASE)
