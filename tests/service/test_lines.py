"""Who is woken, and how often the store is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from jobwire_server.domain.job import SECOND, NewJob
from jobwire_server.domain.limits import Limits
from jobwire_server.service.claim_events import Assigned, ClaimSpec, KeepAlive
from jobwire_server.service.claim_stream import ClaimStream
from jobwire_server.service.claims import ClaimService
from jobwire_server.store.base import ClaimRequest, Claims, WorkerInfo
from jobwire_server.store.sqlite.store import SqliteStore


class Counting(SqliteStore):
    """A store that counts its claims. Time stands where the test puts it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND
        self.claims = 0
        super().__init__(None, clock=lambda: self.now)

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        self.claims += 1
        return await super().claim(queue, requests)


@pytest.fixture
async def store() -> AsyncIterator[Counting]:
    store = Counting()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def service(store: Counting) -> AsyncIterator[ClaimService]:
    service = ClaimService(store, limits=Limits())
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
