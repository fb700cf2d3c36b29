"""A whole store is examined: it is shown piece by piece, while it is at work, and never stands in memory."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

from jobwire_server.domain.activity import Tally
from jobwire_server.domain.job import Job, JobState
from jobwire_server.domain.queue import Queue
from jobwire_server.store.invariants import (
    Invariant,
    Sighting,
    Unique,
    judged,
    strays,
    tally_faults,
    unfit_settings,
    uniques_of,
)

KEPT: Final = 1_000
"""Findings of one invariant that are kept; the others are only counted."""

Progress = Callable[[int], None]
"""Is told now and then how many jobs have been seen."""


@dataclass(slots=True)
class Broken:
    """How one invariant is broken."""

    number: int = 0
    first: dict[str, None] = field(default_factory=dict)
    """The first KEPT findings, in order, each once."""


class Examination:
    """What is found, and how much was seen.

    Keeps 8 bytes for each job (40 more for each of one queue while `shared` sorts them), 100 for each lease, and the
    first findings.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress: Final = progress
        self.broken: Final[dict[Invariant, Broken]] = {}
        self.queues = 0
        self.workers = 0
        self.states: Final[Counter[JobState]] = Counter()
        """How many jobs were seen in which state."""
        self._queue_times: Final[dict[str, array[int]]] = {}
        self._tokens: Final[Counter[int]] = Counter()

    @property
    def jobs(self) -> int:
        return self.states.total()

    def find(self, invariant: Invariant, what: str) -> None:
        broken = self.broken.setdefault(invariant, Broken())
        if what in broken.first:
            return
        broken.number += 1
        if len(broken.first) < KEPT:
            broken.first[what] = None

    def see(self, sighting: Sighting) -> None:
        """A job, found by its record."""
        job = sighting.job
        if job is None:
            return  # it has gone since
        for finding in judged(sighting):
            self.find(*finding)
        self.states[job.state] += 1
        for invariant, queue, value in uniques_of(job):
            if invariant is Invariant.TOKEN_TWICE:
                self._tokens[value] += 1
            else:
                self._queue_times.setdefault(queue, array("q")).append(value)

    def see_stray(self, sighting: Sighting) -> None:
        """A job, or nothing, found by what names it: an index, or something that is kept for it."""
        for finding in strays(sighting):
            self.find(*finding)

    def see_queue(self, queue: Queue) -> None:
        self.queues += 1
        if unfit := unfit_settings(queue):
            self.find(Invariant.QUEUE_SETTINGS, f"{queue.name}: {unfit}")

    def see_tally(self, queue: str, tally: Tally, there: Mapping[JobState, int], marks: Sequence[Tally]) -> None:
        """Of a queue, or what is left of one, as of one moment; `there`: jobs by state."""
        for fault in tally_faults(tally, there, marks):
            self.find(Invariant.TALLY, f"{queue}: {fault}")

    def shared(self) -> Sharers | None:
        """Once all jobs were seen: to be shown all of them again, when something seems to be had by two; else None."""
        shared: set[Unique] = {(Invariant.TOKEN_TWICE, "", token) for token, n in self._tokens.items() if n > 1}
        for queue, times in self._queue_times.items():
            pairs = pairwise(sorted(times))
            shared |= {(Invariant.QUEUE_TIME_TWICE, queue, time) for time, following in pairs if time == following}
        return Sharers(shared) if shared else None


class Sharers:
    """Finds the jobs that have what one job alone may have; the same job may have been seen twice before."""

    def __init__(self, shared: set[Unique]) -> None:
        self._ids: dict[Unique, set[str]] = {unique: set() for unique in shared}

    def see(self, job: Job) -> None:
        for unique in uniques_of(job):
            if unique in self._ids:
                self._ids[unique].add(job.id)

    def tell(self, examination: Examination) -> None:
        for (invariant, queue, value), ids in self._ids.items():
            if len(ids) > 1:
                where = f": {queue} at {value}" if invariant is Invariant.QUEUE_TIME_TWICE else ""
                examination.find(invariant, f"{', '.join(sorted(ids))}{where}")


class Inspection(Protocol):
    """Reads a store as it stands, whether it is at work or not, and never writes."""

    @property
    def url(self) -> str:
        """Where the store is, with any password masked."""

    def run(self, progress: Progress) -> Examination:
        """Raises CannotOpen or StoreUnavailable when the store cannot be read."""


class Repair(Protocol):
    """Mends what is derived: whatever follows from the records of jobs, and never a record itself."""

    @property
    def mends(self) -> frozenset[Invariant]:
        """What it may mend when it is broken; it leaves everything else as it is."""

    def run(self, progress: Progress) -> None:
        """Judges everything anew before it writes, so that of a sound store nothing changes. Raises CannotOpen, also
        where a server is in the way, or StoreUnavailable."""
