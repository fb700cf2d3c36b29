"""Mends what is derived from the records of jobs, while any number of servers are at work on them.

A job's places are judged here, by `places_of`, as an examination judges them; mend.lua writes them only while the
record is still the one that was read. So nothing is written about a job that has moved on, and of a sound store nothing
is written at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha1
from typing import Any, Final

from jobwire_server.domain.job import Job, JobState
from jobwire_server.domain.limits import NAME
from jobwire_server.store.examination import Examination, Progress
from jobwire_server.store.invariants import LARGEST, Invariant, Place, Sighting, judged, places_of, strays
from jobwire_server.store.redis import commands, looking, topology
from jobwire_server.store.redis.inspection import INDEX_OF, Reading
from jobwire_server.store.redis.looking import LOOKED_AT, Named, Seen, bites, by_key

MENDS: Final = frozenset(
    {
        *(Invariant.STATE_INDEX, Invariant.EXPIRY_INDEX, Invariant.CREDIT, Invariant.USER_INDEX),
        *(Invariant.STATE_STRAY, Invariant.EXPIRY_STRAY, Invariant.CREDIT_STRAY, Invariant.USER_STRAY),
        *(Invariant.INDEX_OF_NOTHING, Invariant.ORPHAN),
        *(Invariant.QUEUE_UNLISTED, Invariant.QUEUE_LAST, Invariant.QUEUE_HALF, Invariant.TALLY),
        *(Invariant.HOLDER, Invariant.WORKER_HALF),
    }
)

_NAMES_OF: Final = {index: name for name, index in INDEX_OF.items()}

_TRIES: Final = 5
"""Looks at a job that moves between a look and its mending: a sound one is not looked at twice."""


class RedisRepair:
    """Of the keys under one prefix; see `examination.Repair`."""

    mends: Final = MENDS

    def __init__(self, url: str) -> None:
        """Raises CannotOpen."""
        self._address = topology.parse(url)

    def run(self, progress: Progress) -> None:
        # What it writes may be sent again: the second time there is nothing left to mend.
        with commands.named(self._address, writes=True), commands.client_of(self._address) as client:
            commands.check_schema(client, self._address)
            _Mending(client, self._address.prefix, Examination(progress)).walk()


class _Mending(Reading):
    """One way through a store on which each thing is mended where it is met."""

    def _look(self, named: Iterable[Named]) -> Iterator[Sighting]:
        for bite in bites(list(named), LOOKED_AT):
            found = list(self._seen(bite))
            yield from (seen.sighting for seen in found)
            for _ in range(_TRIES):
                if not (broken := [seen for seen in found if _is_broken(seen.sighting)]):
                    break
                found = list(self._seen(self._mend(broken)))

    def _mend(self, broken: Sequence[Seen]) -> list[Named]:
        """Answers those that have moved meanwhile."""
        asked = [self._asked(seen) for seen in broken]
        blob = b"".join(seen.named.id for seen in broken)
        done, _ = looking.call(self._client, "mend", self._own, [asked, [], []], blob)
        return [seen.named for seen, what in zip(broken, done, strict=True) if what == "moved"]

    def _asked(self, seen: Seen) -> list[object]:
        """As mend.lua takes it."""
        job, size = seen.sighting.job, len(seen.named.id)
        right = {} if job is None else dict(places_of(job))
        wrong = [self._index(place) for place in seen.sighting.places or () if place not in right]
        if job is None:
            return [size, False, [], wrong]
        digest = sha1(seen.record, usedforsecurity=False).hexdigest()
        stands = [text for place, score in right.items() for text in (self._index(by_key(place)), str(score))]
        worker_id = job.worker_id if job.state is JobState.IN_PROGRESS else False
        queue_time = False if job.queue_time is None else str(job.queue_time)
        return [size, digest, stands, wrong, job.queue, queue_time, worker_id]

    def _index(self, place: Place) -> str:
        index, name = place
        return self._key(_NAMES_OF[index]).decode() + name

    def _see_registry(
        self, name: str, names: str, half: Invariant, see: Callable[[str, dict[bytes, bytes]], None]
    ) -> None:
        every = self._names[name] | self._listed(self._key(names))
        if name == "QUEUE":
            every |= self._names["MARKS"]
        for bite in bites(sorted(every), LOOKED_AT):
            sizes: list[Any] = [len(each) for each in bite]
            asked = [[], sizes, []] if name == "QUEUE" else [[], [], sizes]
            looking.call(self._client, "mend", self._own, asked, b"".join(bite))

    def _see_tallies(self) -> None:
        """They are mended with their queues."""


def _is_broken(sighting: Sighting) -> bool:
    """In a way that may be mended."""
    if sighting.job is not None and not _is_placeable(sighting.job):
        return False
    # A queue that is listed and remembers nothing is half there: a finding of the queue, mended by its jobs.
    remembers_nothing = sighting.job is not None and sighting.last_queue_time is None
    found = {invariant for findings in (judged(sighting), strays(sighting)) for invariant, _ in findings}
    return remembers_nothing or not MENDS.isdisjoint(found)


def _is_placeable(job: Job) -> bool:
    """Its record says what a place can be made of."""
    scores = [score for _, score in places_of(job)]
    names = [job.queue, *([job.worker_id] if job.state is JobState.IN_PROGRESS else [])]
    return all(map(NAME.fullmatch, names)) and all(score is not None and abs(score) <= LARGEST for score in scores)
