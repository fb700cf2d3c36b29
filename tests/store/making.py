"""What store tests are made of: a clock that only tests move, jobs, claims, and Moves of any shape."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any, cast

from jobwire_server.domain.guard import Guard, Outcome
from jobwire_server.domain.job import SECOND, Job, JobState, NewJob, Verb
from jobwire_server.domain.move import JobChanges, Move
from jobwire_server.store.base import Claimed, ClaimOutcome, ClaimRequest, Store

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


async def move(store: Store, move: Move) -> Outcome:
    return (await store.move([move]))[0].outcome


async def shove(store: Store, id: str, to: JobState, verb: Verb = Verb.EDIT, **changes: Any) -> Job | None:
    """Moves a job without asking: no guard, no policy."""
    if to is JobState.SCHEDULED:
        changes.setdefault("schedule_time", START + 10**12)
    (moved,) = await store.move([Move(job_id=id, verb=verb, guard=Guard(), to=to, changes=cast(JobChanges, changes))])
    assert moved.outcome is Outcome.OK
    return moved.job


async def silence(store: Store, clock: Clock, worker: str) -> None:
    """The worker lets a delivery run out."""
    await put(store, f"silencer-{worker}", queue="silent")
    (job,) = (await claim(store, wish(worker), queue="silent")).jobs
    clock.advance(10)
    guard = Guard(token=job.token, version=job.version, overdue=True)
    reap = Move(job_id=job.id, verb=Verb.REAP, guard=guard, to=JobState.QUEUED, changes={"worker_id": ""})
    assert await move(store, reap) is Outcome.OK
    assert (await claim(store, wish(worker))).outcome is ClaimOutcome.SILENT
