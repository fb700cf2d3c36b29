"""A job and its parts, and the table of what may become of it.

Times are integers: microseconds since 1970 UTC, by the store's clock. Durations are integers too, in microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


class JobState(StrEnum):
    """Where a job stands. It stands in exactly one state, and in that state's index of its queue."""

    SCHEDULED = "scheduled"
    """Waits for its `schedule_time`; maintenance promotes it, and an edit, a cancel or the expiry may move it first."""
    QUEUED = "queued"
    """May be claimed; a worker's claim moves it on."""
    IN_PROGRESS = "in_progress"
    """Leased to one worker; that worker settles it, or the reaper takes it back when its deadline has passed."""
    COMPLETED = "completed"
    """Ended with a result; a person may replay it until retention purges it."""
    FAILED = "failed"
    """A dead letter: budgets used up or a permanent error; a person may replay it until retention purges it."""
    CANCELED = "canceled"
    """Ended because someone asked; a person may replay it until retention purges it."""
    EXPIRED = "expired"
    """Ended because nobody had started it by `expire_time`; a person may replay it until retention purges it."""

    @property
    def is_waiting(self) -> bool:
        return self in WAITING

    @property
    def is_ended(self) -> bool:
        return self in ENDED


WAITING: Final = frozenset({JobState.SCHEDULED, JobState.QUEUED})
ENDED: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED})


class Verb(StrEnum):
    """Why a job leaves its state, or changes within it. One word for the store, the metrics and the documents."""

    PROMOTE = "promote"
    """Maintenance: its `schedule_time` has come."""
    CLAIM = "claim"
    """A worker's stream took it."""
    COMPLETE = "complete"
    """Its worker reports the result."""
    FAIL = "fail"
    """Its worker reports a failure."""
    RELEASE = "release"
    """Its worker gives it back, having done nothing."""
    HAND_BACK = "hand_back"
    """The server takes back a delivery whose worker has gone before acknowledging it."""
    REAP = "reap"
    """Maintenance: its deadline (of delivery, lease, execution or a cancel's grace) has passed."""
    RECOVER = "recover"
    """An operator takes it back from its worker although its deadline is still ahead."""
    CANCEL = "cancel"
    """Someone asks that it does not run (on)."""
    EXPIRE = "expire"
    """Maintenance: nobody has started it by its `expire_time`."""
    EDIT = "edit"
    """Someone changes its priority, schedule, labels, payload and the like."""
    REPLAY = "replay"
    """A person lets an ended job run again (RPC `RetryJob`)."""
    DELETE = "delete"
    """A person removes it."""
    PURGE = "purge"
    """Maintenance: its retention has passed."""


_S = JobState

TRANSITIONS: Final[Mapping[JobState, Mapping[Verb, frozenset[JobState]]]] = {
    # An empty set means: gone from the store. A change within a state (an edit of labels, the request to cancel a
    # running job) is no transition and is not listed.
    _S.SCHEDULED: {
        Verb.PROMOTE: frozenset({_S.QUEUED}),
        Verb.EDIT: frozenset({_S.QUEUED}),
        Verb.CANCEL: frozenset({_S.CANCELED}),
        Verb.EXPIRE: frozenset({_S.EXPIRED}),
        Verb.DELETE: frozenset(),
    },
    _S.QUEUED: {
        Verb.CLAIM: frozenset({_S.IN_PROGRESS}),
        Verb.EDIT: frozenset({_S.SCHEDULED}),
        Verb.CANCEL: frozenset({_S.CANCELED}),
        Verb.EXPIRE: frozenset({_S.EXPIRED}),
        Verb.DELETE: frozenset(),
    },
    _S.IN_PROGRESS: {
        Verb.COMPLETE: frozenset({_S.COMPLETED}),
        Verb.FAIL: frozenset({_S.SCHEDULED, _S.FAILED, _S.CANCELED}),
        Verb.RELEASE: frozenset({_S.QUEUED, _S.SCHEDULED, _S.FAILED, _S.CANCELED}),
        Verb.HAND_BACK: frozenset({_S.QUEUED, _S.SCHEDULED, _S.FAILED, _S.CANCELED}),
        Verb.REAP: frozenset({_S.QUEUED, _S.SCHEDULED, _S.FAILED, _S.CANCELED}),
        Verb.RECOVER: frozenset({_S.QUEUED, _S.SCHEDULED, _S.FAILED, _S.CANCELED}),
        Verb.DELETE: frozenset(),
    },
    _S.COMPLETED: {Verb.REPLAY: frozenset({_S.QUEUED}), Verb.DELETE: frozenset(), Verb.PURGE: frozenset()},
    _S.FAILED: {Verb.REPLAY: frozenset({_S.QUEUED}), Verb.DELETE: frozenset(), Verb.PURGE: frozenset()},
    _S.CANCELED: {Verb.REPLAY: frozenset({_S.QUEUED}), Verb.DELETE: frozenset(), Verb.PURGE: frozenset()},
    _S.EXPIRED: {Verb.REPLAY: frozenset({_S.QUEUED}), Verb.DELETE: frozenset(), Verb.PURGE: frozenset()},
}
"""Every way a job changes state. `docs/state-machine.md` draws it, and a test compares the two."""


class AttemptOutcome(StrEnum):
    """How one attempt (one acknowledged lease) ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    RELEASED = "released"
    INTERRUPTED = "interrupted"
    """The lease ended without a word from its worker: crash, lost network."""
    TIMED_OUT = "timed_out"
    """It ran longer than the job's `execution_timeout`."""
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a job runs again after a failure or an interruption."""

    max_retries: int = 3
    initial_delay: int = SECOND
    multiplier: float = 2.0
    max_delay: int = HOUR
    jitter: float = 0.2
    """Each delay is spread over ± this share of itself (0 to 1)."""
    max_interruptions: int = 3


@dataclass(frozen=True, slots=True)
class JobError:
    """Why an attempt failed, as its worker (or the server, with an upper-case code) tells it."""

    code: str
    message: str
    details: tuple[tuple[str, str], ...] = ()
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running attempt has come. `fraction` is 0 to 1, or None when only a message was given."""

    fraction: float | None
    message: str
    update_time: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One finished attempt.

    `token` is the digest of its lease token when its worker settled it, and empty otherwise: a repeated settlement is
    recognized by it.
    """

    number: int
    worker_id: str
    start_time: int
    end_time: int
    outcome: AttemptOutcome
    token: bytes
    error: JobError | None = None


HISTORY_LENGTH: Final = 20
"""Finished attempts kept with a job; older ones are dropped first."""

DEFAULT_QUEUE: Final = "default"
DEFAULT_PRIORITY: Final = 5


class NewJob(NamedTuple):
    """A job as it is asked for: validated, with defaults filled in, not stored yet.

    A tuple underneath, as `Job` is, for the same reason. Make it by keywords.
    """

    id: str
    queue: str = DEFAULT_QUEUE
    type: str = ""
    user_id: str = ""
    priority: int = DEFAULT_PRIORITY
    submission: bytes = b""
    """Payload, http, labels and webhook as a serialized `jobwire.v1.Job` fragment. Domain and stores never look into
    it: it is written by a create or an edit, and read by whoever speaks the wire."""
    digest: bytes = b""
    """SHA-256 over the request as it came: what makes a repeated create the same create. Empty where the caller named
    neither job nor request: nothing can be its repeat."""
    request_key: bytes | None = None
    """Names the caller's `request_id` (hashed together with the principal); None when the caller gave none."""
    id_given: bool = True
    """The caller chose the id, so that the id alone makes a create repeatable."""
    retry: RetryPolicy = RetryPolicy()
    execution_timeout: int | None = None
    retention: int | None = None
    schedule_time: int | None = None
    expire_time: int | None = None
    webhook_events: int = 0
    """The ends of which somebody is to be told, as bits (`domain.webhook.EVENTS`); whom, the submission says."""


def etag_of(create_time: int, revision: int) -> str:
    """What the wire calls a revision: opaque, and another one for each life of an id, since revisions begin anew."""
    return f"{create_time:x}.{revision}"


class Job(NamedTuple):
    """A job as the store has it, at one version. A value: it holds no store, and changing it changes nothing.

    A tuple underneath: with so many fields that takes a third of a microsecond to make from a row, and nine as a frozen
    dataclass; every claim makes one. Make it, and changed ones (`_replace`), by keywords.
    """

    # What was asked for. Only a create or an edit writes these.
    id: str
    queue: str
    type: str
    user_id: str
    priority: int
    submission: bytes
    retry: RetryPolicy
    execution_timeout: int | None
    retention: int | None
    schedule_time: int | None
    expire_time: int | None
    webhook_events: int

    # Where it stands.
    state: JobState
    score: int
    """Its place in the index of its state: due time, rank, deadline, or purge time."""
    version: int
    """Rises with every change but a mere renewal. Guards decisions; watchers compare it."""
    revision: int
    """Rises with transitions and edits only, not with the request to cancel a running job. Makes the `etag`."""
    last_operation: bytes
    """The operation id of the last Move applied: after an unknown outcome the same Move is recognized by it."""
    create_time: int
    update_time: int
    queue_time: int | None
    """When it first became QUEUED (since the create or the last replay); retries and returns keep it."""
    start_time: int | None
    """When its first acknowledged attempt (since the create or the last replay) was claimed."""
    finish_time: int | None

    # What it has used up.
    attempt: int
    """Number of the current or last attempt; a delivery that came back unacknowledged does not count."""
    retry_count: int
    interruption_count: int
    release_count: int
    """Releases in a row."""
    return_count: int
    """Deliveries in a row that came back unacknowledged."""

    # The current attempt; it stays after its end, until the Move that opens the way for the next one writes it into
    # the history.
    token: bytes | None
    """Digest of the lease token. It guards only while the job is IN_PROGRESS."""
    fence: int
    """Rises with every claim of this id, across deletes too; 0 before the first."""
    worker_id: str
    claim_time: int | None
    acknowledged: bool
    lease_duration: int
    """What a renewal grants; before the acknowledgment `lease_expire_time` is the end of the delivery timeout."""
    lease_expire_time: int | None
    limit_time: int | None
    """No renewal passes this: end of the execution timeout, or of a cancel's grace, whichever comes first."""
    outcome: AttemptOutcome | None
    end_time: int | None

    # What came of it.
    progress: Progress | None
    result: bytes | None
    """The result as a serialized `jobwire.v1.Payload`."""
    error: JobError | None
    history: tuple[Attempt, ...]
    cancel_requested: bool
    cancel_reason: str

    @property
    def etag(self) -> str:
        return etag_of(self.create_time, self.revision)

    @property
    def purge_time(self) -> int | None:
        """When retention removes it; None until it has ended."""
        return self.score if self.state.is_ended else None

    def is_expired(self, now: int) -> bool:
        """Past its `expire_time` and never acknowledged: to be ended, not to be handed out."""
        return self.expire_time is not None and self.expire_time <= now and self.start_time is None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The finished attempts, oldest first, the last one included where it still stands in the row."""
        last = self.finished_attempt
        return self.history if last is None else (*self.history, last)[-HISTORY_LENGTH:]

    @property
    def finished_attempt(self) -> Attempt | None:
        """The current attempt as history will remember it; None while it runs or when there is none."""
        if self.outcome is None or self.claim_time is None or self.end_time is None:
            return None
        return Attempt(
            number=self.attempt,
            worker_id=self.worker_id,
            start_time=self.claim_time,
            end_time=self.end_time,
            outcome=self.outcome,
            token=self.token or b"",
            error=self.error if self.outcome in _WITH_ERROR else None,
        )


_WITH_ERROR: Final = frozenset(
    # RELEASED stands in the row only where it was one release too many.
    {AttemptOutcome.FAILED, AttemptOutcome.RELEASED, AttemptOutcome.INTERRUPTED, AttemptOutcome.TIMED_OUT}
)

DEFAULT_RETENTION: Final[Mapping[JobState, int]] = {
    JobState.COMPLETED: DAY,
    JobState.FAILED: 7 * DAY,
    JobState.CANCELED: 7 * DAY,
    JobState.EXPIRED: 7 * DAY,
}
"""How long an ended job stays when neither it nor its queue says."""
