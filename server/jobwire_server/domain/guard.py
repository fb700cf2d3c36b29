"""What must still hold when a change reaches the store, and what the store answers.

A Move is worked out in Python from a row that was read a moment ago. The store judges its guard in the same step in
which it applies the Move, so that nothing that happened in between is overwritten. Each verb carries the weakest guard
that an exhaustive check of the protocol left standing; weaker ones lost a cancel, took a living lease, or told a worker
a lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jobwire_server.domain.job import Job, JobState, Verb


class Outcome(StrEnum):
    """The store's word on one change."""

    OK = "ok"
    """Applied, now or by an earlier sending of the same operation."""
    GONE = "gone"
    """There is no such job."""
    LOST = "lost"
    """The token guards nothing any more: the lease has ended, or the job is leased anew."""
    STALE = "stale"
    """The job has changed since it was read: read again and decide again."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What must hold at the moment of applying. Unset parts are not looked at."""

    token: bytes | None = None
    """The job is IN_PROGRESS, and this is the digest of its lease token."""
    version: int | None = None
    """The job has this version."""
    create_time: int | None = None
    """The job was created then: it is in the life in which it was read. An id that is used anew begins its versions
    anew, and a change must not meet whoever bears the name now."""
    unacknowledged: bool = False
    """No heartbeat has confirmed the delivery."""
    overdue: bool = False
    """The deadline has passed by the store's clock, and the store is not just back from an outage: for one lease time
    after an outage nothing is reaped, since no worker could have renewed."""

    @classmethod
    def as_read(
        cls, job: Job, *, token: bytes | None = None, unacknowledged: bool = False, overdue: bool = False
    ) -> Guard:
        """The job has not changed since it was read, and the rest holds."""
        return cls(token, job.version, job.create_time, unacknowledged, overdue)


def judge(guard: Guard, job: Job | None, *, operation: bytes, now: int, recovered_at: int) -> Outcome:
    """Whether a change under `guard` may be applied to `job` now. Both stores answer exactly this.

    `recovered_at` is when the store last came back from an outage (0 = never).
    """
    if job is None:
        return Outcome.GONE
    if operation and job.last_operation == operation:
        return Outcome.OK
    if guard.token is not None and (job.state is not JobState.IN_PROGRESS or job.token != guard.token):
        return Outcome.LOST
    if guard.version is not None and job.version != guard.version:
        return Outcome.STALE
    if guard.create_time is not None and job.create_time != guard.create_time:
        return Outcome.STALE
    if guard.unacknowledged and job.acknowledged:
        return Outcome.STALE
    if guard.overdue and not is_overdue(job, now=now, recovered_at=recovered_at):
        return Outcome.STALE
    return Outcome.OK


def is_overdue(job: Job, *, now: int, recovered_at: int) -> bool:
    """Its deadline has passed, and since the store last came back there was time for its worker to be heard: as long
    as its lease lasts, or, before the acknowledgment, its delivery."""
    if job.acknowledged or job.lease_expire_time is None or job.claim_time is None:
        pause = job.lease_duration
    else:
        pause = job.lease_expire_time - job.claim_time
    return job.score <= now and recovered_at + pause <= now


class Situation(StrEnum):
    """What a change can meet when it reaches the store."""

    UNCHANGED = "unchanged"
    """The job is as it was read."""
    ABSENT = "absent"
    """The job has gone."""
    NOT_LEASED = "not leased"
    """The job is in any state but IN_PROGRESS."""
    OTHER_TOKEN = "other token"
    """The job is leased under another token."""
    CHANGED = "changed"
    """Same state and token, but the version has moved on."""
    ACKNOWLEDGED = "acknowledged"
    """The delivery was acknowledged since (which moves the version on, too)."""
    NOT_DUE = "not due"
    """Its deadline is still ahead, or was pushed on by a renewal (which leaves the version alone)."""
    AFTER_OUTAGE = "after outage"
    """The store came back from an outage less than a lease time ago."""
    REPEATED = "repeated"
    """This very operation was applied before, and its answer was lost."""


_OK, _GONE, _LOST, _STALE = Outcome.OK, Outcome.GONE, Outcome.LOST, Outcome.STALE
_COLUMNS = tuple(Situation)

_ROWS: Mapping[Verb, tuple[Outcome, ...]] = {
    #              UNCHANGED ABSENT NOT_LEASED OTHER_TOKEN CHANGED ACKNOWLEDGED NOT_DUE AFTER_OUTAGE REPEATED
    Verb.COMPLETE: (_OK, _GONE, _LOST, _LOST, _OK, _OK, _OK, _OK, _OK),
    Verb.FAIL: (_OK, _GONE, _LOST, _LOST, _STALE, _STALE, _OK, _OK, _OK),
    Verb.RELEASE: (_OK, _GONE, _LOST, _LOST, _STALE, _STALE, _OK, _OK, _OK),
    Verb.HAND_BACK: (_OK, _GONE, _LOST, _LOST, _STALE, _STALE, _OK, _OK, _OK),
    Verb.REAP: (_OK, _GONE, _LOST, _LOST, _STALE, _STALE, _STALE, _STALE, _OK),
    Verb.RECOVER: (_OK, _GONE, _LOST, _LOST, _STALE, _STALE, _OK, _OK, _OK),
    # The verbs of people guard the version alone: no token of theirs could be lost.
    Verb.CANCEL: (_OK, _GONE, _STALE, _STALE, _STALE, _STALE, _OK, _OK, _OK),
    Verb.EXPIRE: (_OK, _GONE, _STALE, _STALE, _STALE, _STALE, _OK, _OK, _OK),
    Verb.EDIT: (_OK, _GONE, _STALE, _STALE, _STALE, _STALE, _OK, _OK, _OK),
    Verb.REPLAY: (_OK, _GONE, _STALE, _STALE, _STALE, _STALE, _OK, _OK, _OK),
}

GUARD_TABLE: Final[Mapping[Verb, Mapping[Situation, Outcome]]] = {
    verb: dict(zip(_COLUMNS, outcomes, strict=True)) for verb, outcomes in _ROWS.items()
}
"""Every change × what it can meet → what the store answers. `judge`, both stores and the documentation are tested
against it, cell by cell and, where a cell says NOT_LEASED, in each of the six states."""
