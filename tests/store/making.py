"""What store tests are made of: a clock that only tests move, jobs, claims, and Moves of any shape."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from hashlib import sha256
from random import Random
from typing import Any, Final, cast

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Guard, Outcome
from jobwire_server.domain.job import SECOND, Job, JobState, NewJob, Verb
from jobwire_server.domain.move import AnyMove, JobChanges, Move
from jobwire_server.domain.worker import WorkerRecord
from jobwire_server.store.base import Claimed, ClaimOutcome, ClaimRequest, Hints, QueueRecord, Standing, Store
from jobwire_server.store.listener import merged

START = 1_700_000_000_000_000


class Clock:
    """The store's clock in tests: it stands still until it is told otherwise, and goes backward when told so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def new_job(id: str, **fields: Any) -> NewJob:
    fields.setdefault("digest", sha256(id.encode()).digest())
    return NewJob(id=id, **fields)


def wish(
    worker: str = "w",
    number: int = 1,
    *,
    session: int = 1,
    max_in_flight: int = 1000,
    lease: float = 30,
    delivery: float = 10,
) -> ClaimRequest:
    return ClaimRequest(
        worker_id=worker,
        session=session,
        max_in_flight=max_in_flight,
        tokens=[os.urandom(16) for _ in range(number)],
        lease_duration=round(lease * SECOND),
        delivery_timeout=round(delivery * SECOND),
    )


async def claim(store: Store, request: ClaimRequest | None = None, *, queue: str = "default") -> Claimed:
    return (await store.claim(queue, [request or wish()])).claimed[0]


async def put(store: Store, id: str, state: JobState = JobState.QUEUED, **fields: Any) -> Job:
    """A job that is brought to that state, unacknowledged where it is leased."""
    await store.create([new_job(id, **fields)])
    if state is JobState.IN_PROGRESS:
        (job,) = (await claim(store, queue=fields.get("queue", "default"))).jobs
        assert job.id == id
        return job
    if state is not JobState.QUEUED:
        await shove(store, id, state)
    return await get(store, id)


async def get(store: Store, id: str) -> Job:
    job = (await store.get([id])).jobs[0]
    assert job is not None, f"there is no job {id}"
    return job


async def is_there(store: Store, id: str) -> bool:
    return (await store.get([id])).jobs[0] is not None


async def move(store: Store, move: AnyMove) -> Outcome:
    return (await store.move([move]))[0].outcome


def standing_of(job: Job | None) -> Standing | None:
    return None if job is None else Standing.of(job)


async def shove(store: Store, id: str, to: JobState, verb: Verb = Verb.EDIT, **changes: Any) -> Job | None:
    """Moves a job without asking: no guard, no policy."""
    if to is JobState.SCHEDULED:
        changes.setdefault("schedule_time", START + 10**12)
    (moved,) = await store.move([Move(job_id=id, verb=verb, guard=Guard(), to=to, changes=cast(JobChanges, changes))])
    assert moved.outcome is Outcome.OK
    return (await store.get([id])).jobs[0]


async def silence(store: Store, clock: Clock, worker: str) -> None:
    """The worker lets a delivery run out."""
    await put(store, f"silencer-{worker}", queue="silent")
    (job,) = (await claim(store, wish(worker), queue="silent")).jobs
    clock.advance(10)
    guard = Guard(token=job.token, version=job.version, overdue=True)
    reap = Move(job_id=job.id, verb=Verb.REAP, guard=guard, to=JobState.QUEUED, changes={"worker_id": ""})
    assert await move(store, reap) is Outcome.OK
    assert (await claim(store, wish(worker))).outcome is ClaimOutcome.SILENT


# --- many jobs, and the ways to read them -------------------------------------------------------------------

HARD_TEXTS: Final = (
    "'",
    '"; DROP TABLE job; --',
    "\n\r\t\u2028",
    "𝕁👩‍👩‍👧",
    "\ufeff",
    "ann",
    "ann ",
    "Ann",
    "a%",
    "a_",
    "a*",
    "7",
    "007",
    "\\u0041",
    "é",
    "e\u0301",
)
"""Texts of which a careless store takes some for others, or for its own words."""


async def stock(store: Store, number: int, **fields: Any) -> None:
    """That many jobs `j0000`, `j0001`, … that differ by nothing but their ids, which come in no order."""
    numbers = Random(number).sample(range(number), number)
    for start in range(0, number, 1000):
        await store.create([new_job(f"j{n:04}", **fields) for n in numbers[start : start + 1000]])


QUEUES: Final = ("a", "a-", "a.")
USERS: Final = ("ann", "𝕁 'ann'\n", "Ann")
TYPES: Final = ("mail", 'a "large"\nimport', "")


async def populate(store: Store, clock: Clock) -> list[Job]:
    """200 jobs as they stand in the end: in all states, of all QUEUES, USERS and nobody, TYPES, over 20 seconds."""
    random = Random(7)
    ids: list[str] = []
    parked: list[str] = []  # what is to be QUEUED waits elsewhere, or the claims would take it
    for second in range(20):
        new = [_any_new_job(random, f"{random.choice('Zaz9')}-{second * 10 + n}") for n in range(10)]
        to = {job.id: random.choice(list(JobState)) for job in new}
        await store.create(new)
        parked += [id for id, state in to.items() if state is JobState.QUEUED]
        to |= {id: JobState.SCHEDULED for id, state in to.items() if state is JobState.QUEUED}
        await shove_all(store, {id: state for id, state in to.items() if state is not JobState.IN_PROGRESS})
        for queue in QUEUES:
            await store.claim(queue, [wish(random.choice(["v", "w"]), len(new))])
        ids += to
        clock.advance(1)
    await shove_all(store, dict.fromkeys(parked, JobState.QUEUED))
    jobs = [job for job in (await store.get(ids)).jobs if job]
    assert len(jobs) == 200
    assert {job.state for job in jobs} == set(JobState)
    return jobs


def _any_new_job(random: Random, id: str) -> NewJob:
    return new_job(
        id,
        queue=random.choice(QUEUES),
        user_id=random.choice((*USERS, "")),
        type=random.choice(TYPES),
        priority=random.randint(1, 10),
        submission=id.encode(),
    )


async def shove_all(store: Store, to: dict[str, JobState]) -> None:
    """`shove`, many at once."""
    later = JobChanges(schedule_time=START + 10**12)
    moves = [
        Move(
            job_id=id,
            verb=Verb.EDIT,
            guard=Guard(),
            to=state,
            changes=later if state is JobState.SCHEDULED else JobChanges(),
        )
        for id, state in to.items()
    ]
    assert {moved.outcome for moved in await store.move(moves)} <= {Outcome.OK}


_ORDER: Final = list(JobState)


def listed(wanted: JobFilter, jobs: Iterable[Job]) -> list[Job]:
    """Those that the filter lets pass, in the order of its listing: what every walk has to find."""
    found = [job for job in jobs if wanted.matches(job)]
    if wanted.user_id:
        return sorted(found, key=lambda job: (job.create_time, job.id.encode()), reverse=True)
    return sorted(found, key=lambda job: (job.queue, _ORDER.index(job.state), job.score, job.id.encode()))


async def pages(
    store: Store, wanted: JobFilter, *, after: Position | None = None, limit: int = 100
) -> AsyncIterator[list[Job]]:
    """The listing behind `after`, page by page; the next one is asked for when the loop wants it."""
    while True:
        found = await store.find(wanted, after=after, limit=limit)
        assert len(found.jobs) <= limit
        yield found.jobs
        if found.end is None:
            return
        assert found.end != after, "this listing stands still"
        after = found.end


async def walk(store: Store, wanted: JobFilter, *, after: Position | None = None, limit: int = 100) -> list[Job]:
    """The listing behind `after`, whole."""
    return [job async for page in pages(store, wanted, after=after, limit=limit) for job in page]


async def count(store: Store, wanted: JobFilter) -> dict[JobState, int]:
    """All stretches together."""
    total: Counter[JobState] = Counter()
    after: Position | None = None
    while True:
        counts = await store.count(wanted, after=after)
        assert 0 not in counts.by_state.values(), "a state without jobs is missing"
        total.update(counts.by_state)
        if counts.end is None:
            return dict(total)
        assert counts.end != after, "this count stands still"
        after = counts.end


def ids(jobs: Iterable[Job | None]) -> list[str | None]:
    return [None if job is None else job.id for job in jobs]


# --- queues, workers, bells ---------------------------------------------------------------------------------


async def queue(store: Store, name: str = "default") -> QueueRecord:
    (record,) = (await store.queues(names=[name])).queues
    return record


async def worker(store: Store, id: str = "w") -> WorkerRecord:
    (record,) = (await store.workers(ids=[id])).workers
    return record


async def rang(store: Store, hints: AsyncIterator[Hints]) -> Hints:
    """All that rang since `hints` was made, or asked last, as one; a bell of its own tells it that all has come."""
    await put(store, f"bell-{os.urandom(8).hex()}", queue="bell")
    heard = Hints()
    while "bell" not in heard.queued:
        heard = merged(heard, await anext(hints))
    return replace(heard, queued={name: number for name, number in heard.queued.items() if name != "bell"})
