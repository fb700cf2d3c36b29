"""What must hold of a store whatever has been done to it: every invariant, and the checks that see it broken.

Nothing here knows an engine. Each engine reads itself and shows what it finds, piece by piece, to an
`examination.Examination`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jobwire_server.domain.activity import ENDED_BY, Tally
from jobwire_server.domain.job import ENDED, HISTORY_LENGTH, WAITING, Job, JobState
from jobwire_server.domain.queue import MAX_AGEING, MAX_PRIORITY, MIN_PRIORITY, Queue


class Invariant(StrEnum):
    """What must hold, by the sentence that says how it is broken. `docs/operations.md` says what to do about each."""

    # Where jobs stand.
    STATE_INDEX = "a job is not in the index of its state"
    STATE_STRAY = "a job is in the index of a state that is not its own"
    EXPIRY_INDEX = "a waiting job that can expire is not in the expiry index"
    EXPIRY_STRAY = "a job that cannot expire is in the expiry index"
    CREDIT = "a lease is missing from its worker's credit"
    CREDIT_STRAY = "a worker's credit counts a lease that it has not"
    USER_INDEX = "a job is not among its user's"
    USER_STRAY = "a job is among those of another user"
    INDEX_OF_NOTHING = "an index names a job that is not there"
    COUNTER = "a counter is not the number of jobs"
    ORPHAN = "something is kept beside a job that is not there"
    BESIDE = "a job's record does not say what is kept beside it"

    # What a job says of itself.
    UNREADABLE = "a record cannot be read"
    VERSION = "a version was never given"
    ORDER = "a queued job has no place in its queue's order"
    DUE = "a scheduled job is not due when it says"
    LEASE = "a lease lacks a part, or does not end when it says"
    NO_LEASE = "a job that nobody has carries a lease"
    FINISH = "an ended job does not say when it ended, or is purged before"
    ATTEMPT = "an attempt contradicts those before it"
    HISTORY = "finished attempts are out of order"
    BUDGET = "a count is below zero"

    # What only one job may have.
    QUEUE_TIME_TWICE = "two jobs entered their queue at the same moment"
    TOKEN_TWICE = "two leases have the same token"

    # Queues and workers.
    QUEUE_UNLISTED = "a job's queue is not listed"
    QUEUE_LAST = "a job entered its queue later than the queue remembers"
    QUEUE_HALF = "a queue is listed or kept, not both"
    QUEUE_SETTINGS = "a queue has settings that cannot be"
    TALLY = "a queue has not counted what happened in it"
    HOLDER = "a worker that holds a lease is not listed"
    WORKER_HALF = "a worker is listed or kept, not both"

    # What stays, and what does not.
    REMEMBERED = "something is never forgotten"
    PASSING = "something that must stay passes away"
    FOREIGN = "a key that nothing has put there"
    KIND = "a key is of another type"
    FILE = "SQLite finds its file damaged"


class Index(StrEnum):
    """A kind of index in which a job may have to stand."""

    STATE = "state"
    EXPIRY = "expiry"
    LEASE = "lease"
    USER = "user"


Place = tuple[Index, str]
"""An index: its kind and its name."""

_OF_INDEX: Final[Mapping[Index, tuple[Invariant, Invariant]]] = {
    # missing from it, standing in it wrongly
    Index.STATE: (Invariant.STATE_INDEX, Invariant.STATE_STRAY),
    Index.EXPIRY: (Invariant.EXPIRY_INDEX, Invariant.EXPIRY_STRAY),
    Index.LEASE: (Invariant.CREDIT, Invariant.CREDIT_STRAY),
    Index.USER: (Invariant.USER_INDEX, Invariant.USER_STRAY),
}


LARGEST: Final = 2**63 - 1
"""No number of a job is larger; Python's would be, where one is damaged."""


def places_of(job: Job) -> Iterator[tuple[Place, int | None]]:
    """Wherever the job has to stand, with its score there; it must stand nowhere else."""
    yield (Index.STATE, f"{job.queue}:{job.state}"), job.score
    if job.state in WAITING and job.expire_time is not None and job.start_time is None:
        yield (Index.EXPIRY, ""), job.expire_time
    if job.state is JobState.IN_PROGRESS:
        yield (Index.LEASE, job.worker_id), job.claim_time
    if job.user_id:
        yield (Index.USER, job.user_id), job.create_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A job, or what is left of one, with what stands around it at one moment."""

    id: str
    job: Job | None
    """Without submission and result. None: it has no record."""
    places: Mapping[Place, float] | None = None
    """Where it stands, of the places that were looked at, with its score there, which engines keep as a double. None
    where the engine derives its indices from the records by itself."""
    beside: frozenset[str] = frozenset()
    """What is kept for it outside its record."""
    said_beside: frozenset[str] | None = None
    """What its record says is kept there; None where records do not say."""
    queue_listed: bool = True
    last_queue_time: int | None = None
    """The last that its queue remembers; None when it remembers none."""
    holder_listed: bool = True
    """The worker that it names is listed."""


# --- one job: "" when all is well, else what is wrong -------------------------------------------------------


def _version(job: Job) -> str:
    return "" if job.version >= job.revision >= 1 else f"version {job.version}, revision {job.revision}"


def _order(job: Job) -> str:
    if job.state is not JobState.QUEUED:
        return ""
    if job.queue_time is None or not MIN_PRIORITY <= job.priority <= MAX_PRIORITY or job.score < job.queue_time:
        return f"queue_time {job.queue_time}, priority {job.priority}, rank {job.score}"
    return ""


def _due(job: Job) -> str:
    if job.state is JobState.SCHEDULED and job.score != job.schedule_time:
        return f"due at {job.score}, schedule_time {job.schedule_time}"
    return ""


def _lease(job: Job) -> str:
    if job.state is not JobState.IN_PROGRESS:
        return ""
    parts = {
        "token": job.token,
        "worker_id": job.worker_id,
        "claim_time": job.claim_time,
        "lease_expire_time": job.lease_expire_time,
        "fence": job.fence,
    }
    if missing := [name for name, value in parts.items() if not value]:
        return f"no {', no '.join(missing)}"
    ends = [end for end in (job.lease_expire_time, job.limit_time) if end is not None]
    return "" if job.score == min(ends) else f"ends at {min(ends)}, deadline {job.score}"


def _no_lease(job: Job) -> str:
    if job.state is not JobState.IN_PROGRESS and (job.lease_expire_time is not None or job.acknowledged):
        return f"{job.state}, lease_expire_time {job.lease_expire_time}, acknowledged {job.acknowledged}"
    return ""


def _finish(job: Job) -> str:
    if job.state in ENDED and (job.finish_time is None or job.score < job.finish_time):
        return f"{job.state} at {job.finish_time}, purged at {job.score}"
    return ""


def _attempt(job: Job) -> str:
    last = max((attempt.number for attempt in job.history), default=0)
    stands_in_row = job.state is JobState.IN_PROGRESS or job.finished_attempt is not None
    if job.attempt < last + stands_in_row:
        return f"attempt {job.attempt} {'stands' if stands_in_row else 'was'} after attempt {last}"
    if stands_in_row and job.token and any(attempt.token == job.token for attempt in job.history):
        return f"attempt {job.attempt} has the token of one before it"
    return ""


def _history(job: Job) -> str:
    numbers = [attempt.number for attempt in job.history]
    tokens = [attempt.token for attempt in job.history if attempt.token]
    if len(numbers) > HISTORY_LENGTH or numbers != sorted(set(numbers)) or len(tokens) != len(set(tokens)):
        return f"attempts {numbers}" + (", a token twice" if len(tokens) != len(set(tokens)) else "")
    return ""


_COUNTS: Final = ("attempt", "retry_count", "interruption_count", "release_count", "return_count")


def _budget(job: Job) -> str:
    return ", ".join(f"{name} {getattr(job, name)}" for name in _COUNTS if getattr(job, name) < 0)


_OF_JOB: Final[Mapping[Invariant, Callable[[Job], str]]] = {
    Invariant.VERSION: _version,
    Invariant.ORDER: _order,
    Invariant.DUE: _due,
    Invariant.LEASE: _lease,
    Invariant.NO_LEASE: _no_lease,
    Invariant.FINISH: _finish,
    Invariant.ATTEMPT: _attempt,
    Invariant.HISTORY: _history,
    Invariant.BUDGET: _budget,
}

# --- a job among others -------------------------------------------------------------------------------------

Finding = tuple[Invariant, str]


def judged(sighting: Sighting) -> Iterator[Finding]:
    """What is wrong with a job that is there. That it stands where it must not is seen from there: see `strays`."""
    job = sighting.job
    if job is None:
        return
    for invariant, check in _OF_JOB.items():
        if wrong := check(job):
            yield invariant, f"{job.id}: {wrong}"
    if sighting.places is not None:
        for place, score in places_of(job):
            found = sighting.places.get(place)
            if found is None or score is None or abs(score) > LARGEST or found != float(score):
                yield _OF_INDEX[place[0]][0], f"{job.id}: {_shown(place)} has {_number(found)}, not {score}"
    if sighting.said_beside is not None and sighting.said_beside != sighting.beside:
        said, kept = (", ".join(sorted(kinds)) or "nothing" for kinds in (sighting.said_beside, sighting.beside))
        yield Invariant.BESIDE, f"{job.id}: says {said}, there is {kept}"
    if not sighting.queue_listed:
        yield Invariant.QUEUE_UNLISTED, f"{job.id}: {job.queue}"
    last = sighting.last_queue_time
    if job.queue_time is not None and last is not None and job.queue_time > last:
        yield Invariant.QUEUE_LAST, f"{job.id}: {job.queue_time}, last of {job.queue}: {last}"
    if job.state is JobState.IN_PROGRESS and not sighting.holder_listed:
        yield Invariant.HOLDER, f"{job.id}: {job.worker_id}"


def strays(sighting: Sighting) -> Iterator[Finding]:
    """Where a job stands although it must not; and everything that is left of a job that is not there."""
    job = sighting.job
    right = () if job is None else {place for place, _ in places_of(job)}
    for place in sighting.places or ():
        if place not in right:
            if job is None:
                yield Invariant.INDEX_OF_NOTHING, f"{sighting.id}: {_shown(place)}"
            else:
                where = f"{job.id}, {job.state} in {job.queue}: {_shown(place)}"
                yield _OF_INDEX[place[0]][1], where
    if job is None:
        yield from ((Invariant.ORPHAN, f"{sighting.id}: {kind}") for kind in sorted(sighting.beside))


def _shown(place: Place) -> str:
    return f"{place[0]} {place[1]}".rstrip()


def _number(score: float | None) -> str:
    """Without the exponent that a double of this size has in text."""
    return "nothing" if score is None else f"{score:.17g}"


# --- queues -------------------------------------------------------------------------------------------------


def unfit_settings(queue: Queue) -> str:
    """The settings that cannot be, as text; empty when all can."""
    fits = {
        "ageing": 0 <= queue.ageing <= MAX_AGEING,
        "retention": queue.retention is None or queue.retention >= 0,
        "max_in_flight": queue.max_in_flight is None or queue.max_in_flight >= 1,
        "create_time": queue.create_time >= 0,
        "update_time": queue.update_time >= 0,
        "revision": queue.revision >= 0,
    }
    return ", ".join(f"{name} {getattr(queue, name)}" for name, does in fits.items() if not does)


def tally_faults(tally: Tally, there: Mapping[JobState, int], marks: Iterable[Tally]) -> Iterator[str]:
    """What a queue's tally must have counted: whatever has ended so and is still there, and all that its marks say."""
    for state, event in ENDED_BY.items():
        if (number := there.get(state, 0)) > getattr(tally, event):
            yield f"{event} {getattr(tally, event)}, there are {number}"
    for field, counted, marked in zip(Tally._fields, tally, map(max, zip(tally, *marks, strict=True)), strict=True):
        if marked > counted or counted < 0:
            yield f"{field} {counted}, at a mark {marked}"


# --- what one job alone may have ----------------------------------------------------------------------------

Unique = tuple[Invariant, str, int]
"""A queue and a queue_time in it, or the token of a lease as a number; with the invariant that two jobs would break."""


def uniques_of(job: Job) -> Iterator[Unique]:
    """What no two jobs ever have, not even at different times."""
    if job.queue_time is not None and 0 <= job.queue_time <= LARGEST:
        yield Invariant.QUEUE_TIME_TWICE, job.queue, job.queue_time
    if job.state is JobState.IN_PROGRESS and job.token:
        yield Invariant.TOKEN_TWICE, "", int.from_bytes(job.token)
