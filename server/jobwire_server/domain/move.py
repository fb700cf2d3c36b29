"""A decision, ready for the store: where a job goes, on which condition, and what is written with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypedDict

from jobwire_server.domain.activity import Event
from jobwire_server.domain.guard import Guard
from jobwire_server.domain.job import Attempt, AttemptOutcome, JobError, JobState, NewJob, Progress, RetryPolicy, Verb
from jobwire_server.domain.noise import noise_bytes


class JobChanges(TypedDict, total=False):
    """Fields of a Job that a Move writes, by their name in `Job`. What is not named stays."""

    priority: int
    submission: bytes
    retry: RetryPolicy
    retention: int | None
    schedule_time: int | None
    expire_time: int | None
    queue_time: int | None
    start_time: int | None
    finish_time: int | None
    attempt: int
    retry_count: int
    interruption_count: int
    release_count: int
    return_count: int
    token: bytes | None
    worker_id: str
    claim_time: int | None
    outcome: AttemptOutcome | None
    end_time: int | None
    limit_time: int | None
    progress: Progress | None
    result: bytes | None
    error: JobError | None
    history: tuple[Attempt, ...]
    cancel_requested: bool
    cancel_reason: str


def new_operation() -> bytes:
    """A fresh operation id: 8 random bytes; two alike for one job are 2⁻⁶⁴ away. It is no secret."""
    return noise_bytes(8)


_TAKING_BACK: Final = frozenset({Verb.REAP, Verb.RECOVER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One guarded change of one job. The store applies it whole or not at all, and stamps what only it knows.

    After writing `changes` the store stamps, in this order: update time = now; version one up; revision one up, but
    not for the mere request to cancel a running job (so that repeating it with its etag is safe); the operation id;
    where `outcome` is set, outcome and end time = now into the current attempt, and a missing `start_time` = the claim
    time. Then by the state it goes to:

    - QUEUED: a `queue_time` where it has none; score = its rank.
    - SCHEDULED: score = its `schedule_time`.
    - IN_PROGRESS (a change within the state): score = the sooner of its lease's end and `limit_time`.
    - ended: `finish_time` = now unless it had ended before; score = `finish_time` + retention (the job's own, else its
      queue's, else the state's default). A job that ends with retention 0 is removed at once.

    Leaving IN_PROGRESS frees its worker's credit and clears `lease_expire_time` and `acknowledged`. A delivery that
    leaves unacknowledged by HAND_BACK, REAP or RECOVER counts against its worker (what one claim handed out once, and
    what was claimed before the store last came back not at all); one settled by it clears the count.
    """

    job_id: str
    verb: Verb
    guard: Guard
    to: JobState
    outcome: AttemptOutcome | None = None
    """How the current attempt ended, where it stays in the row; None where it goes into the history, or never was."""
    changes: JobChanges = field(default_factory=JobChanges)
    word: NewJob | None = None
    """The job that tells of this end where somebody asked to be told (`domain.webhook.wants_word`). It comes into being
    with the change, or neither does: without it such an end is answered STALE. Its id is one that nobody else has."""
    operation: bytes = field(default_factory=new_operation)

    def as_move(self) -> Move:
        """Itself: see `Completion`."""
        return self

    @property
    def cost(self) -> Event | None:
        """What it took from the job's budgets, as it is counted; beside that the store counts where the job comes to
        (`activity.ENDED_BY`)."""
        if self.verb in _TAKING_BACK and "interruption_count" in self.changes:
            return Event.INTERRUPTED
        if self.verb is not Verb.REPLAY and "retry_count" in self.changes:
            return Event.RETRIED
        return None


class Completion(NamedTuple):
    """The Move that ends nearly every life, as short as it can be said: its worker reports the result.

    Blind: the token alone guards it, so that it needs no read. It wins over a cancel request that its worker has not
    heeded: the work is done. It brings no word of the end, so a job that wants one is STALE to it.
    """

    job_id: str
    token: bytes
    """Digest of the lease token."""
    result: bytes | None
    """A serialized `jobwire.v1.Payload`; None for no result."""
    operation: bytes

    def as_move(self) -> Move:
        """The same at length. A store that knows a shorter way must end where this leads."""
        return Move(
            job_id=self.job_id,
            verb=Verb.COMPLETE,
            guard=Guard(token=self.token),
            to=JobState.COMPLETED,
            outcome=AttemptOutcome.COMPLETED,
            changes={"result": self.result, "error": None, "release_count": 0, "return_count": 0},
            operation=self.operation,
        )


AnyMove = Move | Completion


@dataclass(frozen=True, slots=True)
class Deletion:
    """The removal of one job, decided from the version that was read."""

    job_id: str
    version: int
    create_time: int | None = None
    """As in `Guard`."""
