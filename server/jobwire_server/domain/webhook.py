"""Who is told of a job's end, and by what: a delivery is a job of its own, in a queue that belongs to the server.

It comes into being in the same step as the end that it tells of, so that neither a crash nor a second server can lose
it or make two of it; and it is claimed, leased, retried and buried like any other job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobwire_server.domain.job import Job, JobState

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
