"""Decisions that something overtook on their way to the store, with the interleaving forced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from jobwire_server.domain import policy
from jobwire_server.domain.change import Fail, Release
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import SECOND, Job, JobError, JobState, NewJob
from jobwire_server.service.deliveries import Deliveries
from jobwire_server.service.jobs import DECISIONS, JobService, Updated
from jobwire_server.service.maintenance import Maintenance
from jobwire_server.store.base import ClaimRequest, Renewal, Snapshot
from jobwire_server.store.sqlite.store import SqliteStore

TOKEN = b"t" * 16
OOPS = JobError("Oops", "no")


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


class Overtaken(SqliteStore):
    """A store in which `meanwhile` happens once after each read that a decision is made from."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(None, clock=clock)
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        return await self._then_meanwhile(await super().get(job_ids))

    async def overdue(self, *, queues: Sequence[str] = (), limit: int) -> Snapshot:
        return await self._then_meanwhile(await super().overdue(queues=queues, limit=limit))

    async def job(self) -> Job:
        [job] = (await super().get(["a"])).jobs
        assert job is not None
        return job

    async def _then_meanwhile(self, snapshot: Snapshot) -> Snapshot:
        if self.meanwhile:
            await self.meanwhile.pop(0)()
        return snapshot


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[Overtaken]:
    store = Overtaken(clock)
    await store.open()
    await store.create([NewJob(id="a")])
    yield store
    await store.close()


async def claim(store: Overtaken, *, delivery_timeout: int = 0) -> Job:
    request = ClaimRequest(
        worker_id="w",
        session=1,
        max_in_flight=10,
        tokens=[TOKEN],
        lease_duration=30 * SECOND,
        delivery_timeout=delivery_timeout,
    )
    [claimed] = (await store.claim("default", [request])).claimed
    [job] = claimed.jobs
    return job


@pytest.mark.parametrize(
    "change",
    [
        Fail(job_id="a", token=TOKEN, error=OOPS),
        Fail(job_id="a", token=TOKEN, error=OOPS, permanent=True),
        Release(job_id="a", token=TOKEN),
    ],
    ids=["failure", "permanent failure", "release"],
)
async def test_a_cancel_that_overtakes_it_ends_the_job_canceled(store: Overtaken, change: Fail | Release) -> None:
    await claim(store)
    jobs = JobService(store)
    store.meanwhile = [lambda: jobs.cancel("a", reason="", grace=30 * SECOND, etag=None)]
    [updated] = await jobs.update([change])
    assert isinstance(updated, Updated)
    assert (await store.job()).state is JobState.CANCELED


async def test_a_completion_that_overtakes_a_cancel_wins(store: Overtaken) -> None:
    await claim(store)
    jobs = JobService(store)
    store.meanwhile = [lambda: jobs.update([policy.complete("a", TOKEN, None)])]
    answered = await jobs.cancel("a", reason="", grace=30 * SECOND, etag=None)
    assert answered.state is (await store.job()).state is JobState.COMPLETED


async def test_a_claim_that_overtakes_a_cancel_turns_it_into_a_request(store: Overtaken) -> None:
    jobs = JobService(store)
    store.meanwhile = [lambda: claim(store)]
    answered = await jobs.cancel("a", reason="why", grace=30 * SECOND, etag=None)
    assert (answered.state, answered.cancel_requested, answered.cancel_reason) == (JobState.IN_PROGRESS, True, "why")


async def test_a_beat_that_overtakes_a_hand_back_keeps_the_job(store: Overtaken) -> None:
    await claim(store, delivery_timeout=10 * SECOND)
    deliveries = Deliveries(store)
    store.meanwhile = [lambda: store.renew([Renewal(job_id="a", token=TOKEN)])]
    deliveries.hand_back([("a", TOKEN)])
    await deliveries.finish()
    job = await store.job()
    assert (job.state, job.acknowledged, job.attempt) == (JobState.IN_PROGRESS, True, 1)


async def test_a_beat_that_overtakes_the_reaper_keeps_the_job(store: Overtaken, clock: Clock) -> None:
    await claim(store)
    clock.now += 31 * SECOND
    store.meanwhile = [lambda: store.renew([Renewal(job_id="a", token=TOKEN)])]
    sweeping = asyncio.create_task(Maintenance(store).run())
    while store.meanwhile:  # until the reaper has read
        assert not sweeping.done()
        await asyncio.sleep(0)
    for _ in range(20):  # its move, if it makes one, is behind these in the store's one queue
        await store.ping()
    sweeping.cancel()
    job = await store.job()
    assert (job.state, job.interruption_count) == (JobState.IN_PROGRESS, 0)


async def test_a_change_that_is_always_overtaken_is_refused_and_changes_nothing(store: Overtaken) -> None:
    await claim(store)
    jobs = JobService(store)
    store.meanwhile = [
        lambda: store.renew([Renewal(job_id="a", token=TOKEN, message="going")]) for _ in range(DECISIONS)
    ]
    [refused] = await jobs.update([Fail(job_id="a", token=TOKEN, error=OOPS)])
    assert isinstance(refused, JobwireError)
    assert refused.reason is Reason.CONTENDED
    job = await store.job()
    assert (job.state, job.retry_count) == (JobState.IN_PROGRESS, 0)


async def refused_deletion(store: Overtaken, *, force: bool = False) -> Reason:
    with pytest.raises(JobwireError) as refused:
        await JobService(store).delete("a", force=force, etag=None)
    return refused.value.reason


async def test_a_claim_that_overtakes_a_deletion_keeps_the_job(store: Overtaken) -> None:
    store.meanwhile = [lambda: claim(store)]
    assert await refused_deletion(store) is Reason.ILLEGAL_TRANSITION
    assert (await store.job()).state is JobState.IN_PROGRESS


async def test_a_claim_that_overtakes_a_deletion_by_force_loses_its_lease(store: Overtaken) -> None:
    store.meanwhile = [lambda: claim(store)]
    await JobService(store).delete("a", force=True, etag=None)
    assert (await store.get(["a"])).jobs == [None]


async def test_of_two_deletions_at_once_one_finds_no_job(store: Overtaken) -> None:
    store.meanwhile = [lambda: JobService(store).delete("a", force=False, etag=None)]
    assert await refused_deletion(store) is Reason.JOB_NOT_FOUND


async def test_a_deletion_that_is_always_overtaken_is_refused_and_the_job_stays(store: Overtaken) -> None:
    await claim(store)
    store.meanwhile = [
        lambda: store.renew([Renewal(job_id="a", token=TOKEN, message="going")]) for _ in range(DECISIONS)
    ]
    assert await refused_deletion(store, force=True) is Reason.CONTENDED
    assert (await store.job()).state is JobState.IN_PROGRESS
