"""Who is told of a job's end, and by what: a delivery is a job of its own, in a queue that belongs to the server.

It comes into being in the same step as the end that it tells of, so that neither a crash nor a second server can lose
it or make two of it; and it is claimed, leased, retried and buried like any other job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobwire_server.domain.job import HOUR, SECOND, Job, JobState, NewJob, RetryPolicy
from jobwire_server.domain.move import Move
from jobwire_server.domain.noise import noise_bytes

RESERVED: Final = "jobwire."
"""How the names of queues and workers begin that are the server's own: nobody else creates in them or claims from them,
and no listing shows them that does not name them."""

DELIVERIES: Final = f"{RESERVED}webhooks"
"""The queue of what is still to be told."""

EVENTS: Final[Mapping[JobState, int]] = {
    JobState.COMPLETED: 1,
    JobState.FAILED: 2,
    JobState.CANCELED: 4,
    JobState.EXPIRED: 8,
}
"""The ends that somebody may be told of, as bits of `Job.webhook_events`."""


def is_reserved(name: str) -> bool:
    return name.startswith(RESERVED)


def wants_word(job: Job, to: JobState) -> bool:
    """Going to that state, the job ends in a way of which somebody asked to be told."""
    return bool(job.webhook_events) and not job.state.is_ended and bool(job.webhook_events & EVENTS.get(to, 0))


NOT_YET: Final = 0
"""Stands in a word for the moment of the end, which only the store knows: the `create_time` of the delivery."""

_RETRY: Final = RetryPolicy(
    max_retries=30, initial_delay=5 * SECOND, multiplier=3.0, max_delay=HOUR, jitter=0.2, max_interruptions=30
)
"""Five seconds after the first failure, then 15, 45, …, from the seventh on each hour: about a day in all."""


def ended(job: Job, move: Move) -> Job:
    """The job as this Move leaves it, but for its score, and with NOT_YET for the times that the store stamps."""
    after = job._replace(**move.changes)._replace(
        state=move.to,
        score=NOT_YET,
        version=job.version + 1,
        revision=job.revision + 1,
        update_time=NOT_YET,
        finish_time=NOT_YET,
        lease_expire_time=None,
        acknowledged=False,
    )
    if move.outcome is None:
        return after
    start = after.claim_time if after.start_time is None else after.start_time
    return after._replace(outcome=move.outcome, end_time=NOT_YET, start_time=start)


def delivery(submission: bytes) -> NewJob:
    """The job that tells of an end. It goes when it has been told, and stays for a week as a dead letter."""
    return NewJob(
        id=noise_bytes(16).hex(), queue=DELIVERIES, type="webhook", submission=submission, id_given=False, retry=_RETRY
    )
