"""Who is woken, and how often the store is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from jobwire_server.domain import policy
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import SECOND, NewJob
from jobwire_server.domain.limits import KIB, Limits
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.service.admission import Streams
from jobwire_server.service.claim_events import Assigned, ClaimSpec, Draining, KeepAlive
from jobwire_server.service.claim_stream import BYTES_AT_ONCE, REQUESTS_AT_ONCE, ClaimStream
from jobwire_server.service.claims import ClaimService
from jobwire_server.store.base import ClaimRequest, Claims
from jobwire_server.store.sqlite.store import SqliteStore


class Counting(SqliteStore):
    """A store that counts its claims and commits, makes claims only when `may_ask` is set, and tells what they found
    only when `may_answer` is. Time stands where the test puts it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND
        self.claims = 0
        self.may_ask = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_ask.set()
        self.may_answer.set()
        super().__init__(None, clock=lambda: self.now)
        self.commits = 0
        self.timed = self._count

    def _count(self, *_: object) -> None:
        self.commits += 1

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        self.claims += 1
        await self.may_ask.wait()
        claims = await super().claim(queue, requests)
        await self.may_answer.wait()
        return claims


@pytest.fixture
async def store() -> AsyncIterator[Counting]:
    store = Counting()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def service(store: Counting) -> AsyncIterator[ClaimService]:
    service = ClaimService(store, streams=Streams(Limits()))
    running = asyncio.create_task(service.run())
    yield service
    running.cancel()


async def opened(service: ClaimService, worker: str, *, max_in_flight: int = 1) -> ClaimStream:
    spec = ClaimSpec(
        worker=WorkerInfo(id=worker),
        queues=("default",),
        max_in_flight=max_in_flight,
        lease_duration=30 * SECOND,
        delivery_timeout=10 * SECOND,
    )
    return await service.open(spec)


async def settled(store: Counting) -> None:
    """Everything that was set off by now has been through the store."""
    for _ in range(50):
        await store.ping()


async def test_expired_jobs_at_the_head_do_not_make_the_streams_ask_again_and_again(
    service: ClaimService, store: Counting
) -> None:
    await store.create([NewJob(id=f"j{i}", expire_time=store.now + 1) for i in range(30)])
    store.now += 2
    streams = [await opened(service, f"w{i}") for i in range(3)]
    waiting = [asyncio.create_task(stream.next()) for stream in streams]
    await settled(store)
    assert not any(task.done() for task in waiting)
    assert store.claims <= len(streams)
    for task in waiting:
        task.cancel()


async def test_a_job_wakes_one_of_many_streams_and_costs_one_claim(service: ClaimService, store: Counting) -> None:
    streams = [await opened(service, f"w{i}") for i in range(20)]
    waiting = [asyncio.create_task(stream.next()) for stream in streams]
    await settled(store)
    before = store.claims
    await store.create([NewJob(id="a")])
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [type(task.result()) for task in done] == [Assigned]
    await settled(store)
    assert store.claims - before == 1
    for task in waiting:
        task.cancel()


async def test_a_job_that_somebody_waits_for_is_claimed_in_the_transaction_that_creates_it(
    service: ClaimService, store: Counting
) -> None:
    """One fsync for both."""
    stream = await opened(service, "w")
    waiting = asyncio.create_task(stream.next())
    await settled(store)
    before = store.commits
    await store.create([NewJob(id="a")])
    assert isinstance(await waiting, Assigned)
    assert store.commits - before == 1


async def test_a_hundred_jobs_cost_as_few_claims_as_they_can_whoever_waits_besides(
    service: ClaimService, store: Counting
) -> None:
    """An answer rings for no job that somebody who was woken is about to ask for."""
    jobs = 2 * REQUESTS_AT_ONCE
    streams = [await opened(service, f"w{i}") for i in range(2 * jobs)]
    waiting = [asyncio.create_task(stream.next()) for stream in streams]
    await settled(store)
    before = store.claims
    await store.create([NewJob(id=f"j{i}") for i in range(jobs)])
    await settled(store)
    assert [type(task.result()) for task in waiting if task.done()] == [Assigned] * jobs
    assert store.claims - before == 2
    for task in waiting:
        task.cancel()


async def test_the_bell_goes_on_to_those_with_credit_when_the_first_in_line_has_none(
    service: ClaimService, store: Counting
) -> None:
    """The first stream's worker holds its one job through another stream, of which only the store knows."""
    await store.create([NewJob(id="held")])
    request = ClaimRequest(
        worker_id="w0",
        session=0,
        max_in_flight=1,
        tokens=[b"t" * 16],
        lease_duration=30 * SECOND,
        delivery_timeout=0,
    )
    await store.claim("default", [request])
    first, second = await opened(service, "w0"), await opened(service, "w1")
    waiting = [asyncio.create_task(stream.next()) for stream in (first, second)]
    await settled(store)
    await store.create([NewJob(id="a")])
    event = await waiting[1]
    assert isinstance(event, Assigned)
    assert [assignment.job.id for assignment in event.assignments] == ["a"]
    assert not waiting[0].done()
    waiting[0].cancel()


async def test_each_stream_of_a_line_gets_its_turn(service: ClaimService, store: Counting) -> None:
    streams = [await opened(service, f"w{i}") for i in range(5)]
    waiting = {asyncio.create_task(stream.next()): stream.worker_id for stream in streams}
    await settled(store)
    await store.create([NewJob(id=f"j{i}") for i in range(5)])
    done, pending = await asyncio.wait(waiting)
    assert not pending
    for task in done:
        event = task.result()
        assert not isinstance(event, KeepAlive | None)
    assert {waiting[task] for task in done} == {f"w{i}" for i in range(5)}


async def test_jobs_are_shared_among_the_streams_that_wait(service: ClaimService, store: Counting) -> None:
    streams = [await opened(service, f"w{i}", max_in_flight=100) for i in range(10)]
    waiting = [asyncio.create_task(stream.next()) for stream in streams]
    await settled(store)
    await store.create([NewJob(id=f"j{i}") for i in range(100)])
    await asyncio.wait(waiting)
    shares = [len(event.assignments) for task in waiting if isinstance(event := task.result(), Assigned)]
    assert shares == [10] * 10


async def test_a_stream_that_was_woken_for_one_job_takes_as_many_as_have_come_since(
    service: ClaimService, store: Counting
) -> None:
    """Else it would go on to take them one by one for as long as there are any."""
    stream = await opened(service, "w", max_in_flight=1000)
    waiting = asyncio.create_task(stream.next())
    await settled(store)
    store.may_ask.clear()
    await store.create([NewJob(id="first")])
    await settled(store)  # it asks for one
    await store.create([NewJob(id=f"j{i}") for i in range(600)])
    await settled(store)
    before = store.claims
    store.may_ask.set()
    first = await waiting
    assert isinstance(first, Assigned)
    assert len(first.assignments) == 1
    left = 600
    while left:
        event = await stream.next()
        assert isinstance(event, Assigned)
        left -= len(event.assignments)
    assert store.claims - before < 20


async def test_a_lease_that_ends_before_its_claim_was_told_frees_its_credit(
    service: ClaimService, store: Counting
) -> None:
    """The hint overtakes the answer: what the answer counts as held is not held any more."""
    await store.create([NewJob(id="a"), NewJob(id="b")])
    stream = await opened(service, "w", max_in_flight=2)
    store.may_answer.clear()
    waiting = asyncio.create_task(stream.next())
    await settled(store)
    taken = [job for job in (await store.get(["a", "b"])).jobs if job is not None and job.token is not None]
    assert len(taken) == 2
    await store.move([policy.complete(job.id, job.token or b"", None) for job in taken])
    await settled(store)
    store.may_answer.set()
    assert isinstance(await waiting, Assigned)
    assert stream.room == 2


async def test_of_two_streams_with_one_session_the_later_arrival_lives(service: ClaimService) -> None:
    spec = ClaimSpec(
        worker=WorkerInfo(id="w", session=7),
        queues=("default",),
        max_in_flight=1,
        lease_duration=30 * SECOND,
        delivery_timeout=10 * SECOND,
    )
    first, _ = await service.open(spec), await service.open(spec)
    with pytest.raises(JobwireError) as ended:
        await first.next()
    assert ended.value.reason is Reason.SUPERSEDED


async def test_a_stream_that_opens_while_the_server_drains_is_told_so(service: ClaimService) -> None:
    opening = asyncio.create_task(opened(service, "w"))
    await asyncio.sleep(0)  # it waits for the store now
    draining = asyncio.create_task(service.drain())
    stream = await opening
    assert isinstance(await stream.next(), Draining)
    with pytest.raises(JobwireError):
        await stream.next()
    await stream.close(peer_gone=False)
    await draining


async def test_heavy_jobs_are_claimed_few_at_a_time(service: ClaimService, store: Counting) -> None:
    heavy = bytes(250 * KIB)
    await store.create([NewJob(id="first", submission=heavy)])
    stream = await opened(service, "w", max_in_flight=100)
    first = await stream.next()
    await store.create([NewJob(id=f"j{i}", submission=heavy) for i in range(40)])
    second = await stream.next()
    assert isinstance(first, Assigned)
    assert isinstance(second, Assigned)
    assert 1 < len(second.assignments) <= BYTES_AT_ONCE / len(heavy)
