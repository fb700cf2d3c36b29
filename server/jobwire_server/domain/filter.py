"""Which jobs a caller means, and where a listing of them has come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jobwire_server.domain.job import Job, JobState
from jobwire_server.domain.webhook import is_reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Each part that is set narrows it; one that is empty lets everything pass."""

    queues: frozenset[str] = frozenset()
    states: frozenset[JobState] = frozenset()
    user_id: str = ""
    types: frozenset[str] = frozenset()
    created_from: int | None = None
    created_before: int | None = None
    submission_matches: Callable[[bytes], bool] | None = None
    """Judges what stands inside the submission (labels). Stores never look into it, so they leave this part alone:
    whoever asks them judges it by `matches`."""

    @property
    def is_empty(self) -> bool:
        return self == _EVERYTHING

    @property
    def needs_scan(self) -> bool:
        """It asks for what no counter knows."""
        return bool(self.user_id or self.types or self.submission_matches) or not (
            self.created_from is None and self.created_before is None
        )

    def matches(self, job: Job) -> bool:
        """The truth that every index only hastens."""
        return (
            (not self.states or job.state in self.states)
            and self.may_match(job.queue, job.type, job.user_id, job.create_time)
            and (self.submission_matches is None or self.submission_matches(job.submission))
        )

    def may_match(self, queue: str, type: str, user_id: str, create_time: int) -> bool:
        """Whether a job with these, which never change, matches in some state and with some labels."""
        return (
            self.names(queue)
            and (not self.user_id or user_id == self.user_id)
            and (not self.types or type in self.types)
            and (self.created_from is None or create_time >= self.created_from)
            and (self.created_before is None or create_time < self.created_before)
        )

    def names(self, queue: str) -> bool:
        """Jobs of that queue are meant; of the server's own only where they are asked for."""
        return queue in self.queues if self.queues else not is_reserved(queue)

    def within(self, states: frozenset[JobState]) -> JobFilter | None:
        """Narrowed to these states; None when that leaves none."""
        left = self.states & states if self.states else states
        return replace(self, states=left) if left else None

    def position_of(self, job: Job) -> Position:
        """Where that job stands in the listing that this filter asks for."""
        if self.user_id:
            return Position("", JobState.SCHEDULED, job.create_time, job.id)
        return Position(job.queue, job.state, job.score, job.id)


_EVERYTHING = JobFilter()


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a listing; a listing that goes on behind it names nothing that stands before it.

    With a `user_id` the listing is the user's jobs, newest first: descending by (create time, id), and queue and state
    mean nothing. Else it goes through the queues by name, in each through the states in the order of `JobState`, and in
    each ascending by (score, id).
    """

    queue: str
    state: JobState
    score: int
    """The job's score, or its create time in a user's listing."""
    id: str
    """Empty: before all jobs of this score."""
