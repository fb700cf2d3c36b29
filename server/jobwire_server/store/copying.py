"""A whole store is copied into another one, piece by piece, so that the copy behaves as the original would have.

What is copied are domain values, with what a store keeps beside them, and never an engine's own: a source reads them,
a target writes them, and neither knows which engine the other stands on. Leases come along with their tokens, so that
a worker settles in the copy what it claimed in the original.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

from jobwire_server.domain.activity import Tally
from jobwire_server.domain.job import Job, JobState
from jobwire_server.domain.queue import Queue
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import StoreUnavailable
from jobwire_server.store.examination import Progress

PORTION_JOBS: Final = 500
PORTION_BYTES: Final = 4 * 1024 * 1024
"""What is copied at once is cut by both: neither memory nor a store at work may feel how large the whole is."""

UNREADABLE_KEPT: Final = 1_000
"""So many of those that could not be read are named; the others are only counted."""


class StoredJob(NamedTuple):
    """A job, with what its store keeps beside it."""

    job: Job
    digest: bytes
    """Of the request that made it."""


class StoredRequest(NamedTuple):
    """A request id that is remembered."""

    key: bytes
    job_id: str
    digest: bytes
    expire_time: int


class Mark(NamedTuple):
    """The tally of a queue when the first event of a step happened; see `domain.activity`."""

    step: int
    number: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class StoredQueue:
    """A queue, with the order in which jobs enter and what it has counted."""

    settings: Queue
    last_queue_time: int
    tallied_at: int
    tally: Tally
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class StoredWorker:
    """A worker of the registry, with its account; what it holds, its jobs say."""

    info: WorkerInfo
    register_time: int
    last_beat: int
    last_seen: int
    directive: Directive
    returns: int
    returned_at: int
    returned_claim: int
    silent: bool


@dataclass(frozen=True, slots=True)
class Portion:
    """What is copied at once."""

    jobs: Sequence[StoredJob] = ()
    requests: Sequence[StoredRequest] = ()
    queues: Sequence[StoredQueue] = ()
    workers: Sequence[StoredWorker] = ()


class Unreadable(Exception):
    """Something in the source cannot be read; its text names it and says why."""


@dataclass(slots=True)
class Totals:
    """What a store holds, or what was read of it."""

    states: Counter[JobState] = field(default_factory=Counter)
    queues: int = 0
    workers: int = 0

    @property
    def jobs(self) -> int:
        return self.states.total()


@dataclass(slots=True)
class Copied:
    """What became of a copy."""

    read: Totals = field(default_factory=Totals)
    requests: int = 0
    """Remembered request ids that were read; the target lets those go that are to be forgotten anyway."""
    counted: Totals = field(default_factory=Totals)
    """What the target says that it holds."""
    unreadable: list[str] = field(default_factory=list)
    """The first of what the source could not read, by name."""
    unreadable_count: int = 0

    @property
    def is_equal(self) -> bool:
        """The target holds all that could be read, and nothing else."""
        return self.read == self.counted

    def checked(self) -> Copied:
        """Itself. Raises StoreUnavailable when the target does not hold what was read."""
        if not self.is_equal:
            raise StoreUnavailable(f"of {self.read.jobs:,} jobs that were read {self.counted.jobs:,} arrived")
        return self

    def missed(self, error: Unreadable) -> None:
        self.unreadable_count += 1
        if len(self.unreadable) < UNREADABLE_KEPT:
            self.unreadable.append(str(error))


class Source(Protocol):
    """A store that is read: one after the other `begin`, `portions`, `check`, and `close` in any case."""

    @property
    def url(self) -> str:
        """Where the store is, with any password masked."""

    def begin(self) -> int:
        """Answers when the store came into being. Raises CannotOpen."""

    def portions(self, missed: Callable[[Unreadable], None]) -> Iterator[Portion]:
        """All that is in it: first what is remembered of requests, then jobs, then queues and workers.

        While servers are at work on it, this order holds: no request is remembered without its job, and no job is
        there that its queue does not know.
        """

    def check(self) -> None:
        """Raises CannotOpen when the store was not at rest meanwhile although it should have been."""

    def close(self) -> None: ...


class Target(Protocol):
    """A store that is filled: `begin`, `put` for each portion, `totals`, `finish`, and `close` in any case.

    From `begin` to `finish` no server opens it, however the copying ends.
    """

    @property
    def url(self) -> str:
        """Where the store is, with any password masked."""

    def begin(self, since: int, origin: str) -> None:
        """Makes the store, as old as `since`, and marks it as half filled from there. What a copy that has not ended
        left in it goes. Raises CannotOpen when anything else is in it, or somebody is at work on it."""

    def put(self, portion: Portion) -> set[str]:
        """Adds all of it but for the jobs whose ids it has already: these are answered. (A source that changes may show
        a job twice.)"""

    def totals(self) -> Totals:
        """What is in it, by its own count."""

    def finish(self) -> None:
        """All of it is safe when this returns, and servers may open the store: for them it is just back from an
        outage."""

    def close(self) -> None: ...


def copy(source: Source, target: Target, progress: Progress) -> Copied:
    """Fills the target from the source. Where the two do not agree in the end, the target stays marked as half filled.

    Raises CannotOpen or StoreUnavailable.
    """
    copied = Copied()
    try:
        since = source.begin()
        target.begin(since, source.url)
        for portion in source.portions(copied.missed):
            known = target.put(portion)
            copied.read.states.update(job.state for job, _ in portion.jobs if job.id not in known)
            copied.read.queues += len(portion.queues)
            copied.read.workers += len(portion.workers)
            copied.requests += len(portion.requests)
            progress(copied.read.jobs)
        source.check()
        copied.counted = target.totals()
        if copied.is_equal:
            target.finish()
    finally:
        target.close()
        source.close()
    return copied


def half_filled(what: str, origin: str) -> str:
    """Why a server does not open such a store."""
    return (
        f"{what} is half filled: copying {origin} into it has not ended well. Run the same `jobwire migrate` or"
        " `jobwire restore` again, which starts over, or remove what is there"
    )


def not_empty(what: str, jobs: int) -> str:
    """Why such a store is no target."""
    held = f"{jobs:,} job{'' if jobs == 1 else 's'}" if jobs else "queues, workers or request ids, if no job"
    return f"{what} is not empty: it holds {held}. Two stores are never put together: name one that holds nothing"


Item = TypeVar("Item")


def cut(items: Sequence[Item], size: Callable[[Item], int]) -> Iterator[Sequence[Item]]:
    """In stretches of PORTION_JOBS and PORTION_BYTES at most, but for an item that is larger alone."""
    first = total = 0
    for at, item in enumerate(items):
        large = size(item)
        if at > first and (at - first == PORTION_JOBS or total + large > PORTION_BYTES):
            yield items[first:at]
            first, total = at, 0
        total += large
    if first < len(items):
        yield items[first:]
