"""Reading jobs by filter: pages of them, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import Job, JobState
from jobwire_server.store.base import SCAN, Store

BITE: Final = 100
"""Jobs asked of the store at a time: few enough that a page which is cut by bytes has not read far too many."""


class Listings:
    """Reads; any number at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(
        self, wanted: JobFilter, *, after: Position | None, limit: int, take: Callable[[Job], bool]
    ) -> Position | None:
        """Hands up to `limit` jobs to `take`, in the order of the listing, until it refuses one or SCAN were looked at.

        Answers where the next page starts; None = nothing is behind.
        """
        taken = looked = 0
        while True:
            # Of those the store finds, labels may leave none: then fewer than are wanted would be asked for in vain.
            bite = BITE if wanted.submission_matches else min(BITE, limit - taken)
            found = await self._store.find(wanted, after=after, limit=bite)
            for job in found.jobs:
                if taken == limit:
                    return after
                if wanted.matches(job):
                    if not take(job):
                        return after
                    taken += 1
                after = wanted.position_of(job)
            after = found.end
            looked += len(found.jobs)
            if after is None or taken == limit or looked >= SCAN or len(found.jobs) < bite:
                return after

    async def count(self, wanted: JobFilter) -> dict[JobState, int]:
        """How many match, by state; without counters that know it a walk along the whole listing."""
        counts: Counter[JobState] = Counter()
        after: Position | None = None
        while True:
            if wanted.submission_matches is None:
                counted = await self._store.count(wanted, after=after)
                counts.update(counted.by_state)
                after = counted.end
            else:
                found = await self._store.find(wanted, after=after, limit=SCAN)
                counts.update(job.state for job in found.jobs if wanted.matches(job))
                after = found.end
            if after is None:
                return dict(counts)
