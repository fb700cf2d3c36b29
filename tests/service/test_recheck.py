"""What no hint tells, a look at the store about once a second does: in few calls, however many streams there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import pytest

from jobwire_server.domain import policy
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import SECOND, NewJob
from jobwire_server.domain.limits import Limits
from jobwire_server.domain.queue import QueueChanges
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.service import claims
from jobwire_server.service.admission import Streams
from jobwire_server.service.claim_events import Assigned, ClaimSpec, Draining
from jobwire_server.service.claim_stream import ClaimStream
from jobwire_server.service.claims import ClaimService
from jobwire_server.store.base import ClaimRequest, Claims, Hints, Queues, StoreUnavailable, Workers
from jobwire_server.store.sqlite.store import SqliteStore

STREAMS: Final = 100
PATIENCE: Final = 20.0


class Silent(SqliteStore):
    """A store whose hints get lost. It counts what it is asked, and is away when told so."""

    def __init__(self) -> None:
        super().__init__(None)
        self.calls: Counter[str] = Counter()
        self.is_away = False
        self._looked = asyncio.Condition()

    async def hints(self) -> AsyncIterator[Hints]:
        await asyncio.Event().wait()
        yield Hints()

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        self.calls["claim"] += 1
        return await super().claim(queue, requests)

    async def queues(
        self,
        *,
        names: Sequence[str] = (),
        after: str = "",
        limit: int = 1000,
        lately: bool = False,
        minutes: bool = False,
    ) -> Queues:
        self.calls["queues"] += 1
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().queues(names=names, after=after, limit=limit, lately=lately, minutes=minutes)

    async def workers(self, *, ids: Sequence[str] = (), after: str = "", limit: int = 1000, jobs: int = 0) -> Workers:
        workers = await super().workers(ids=ids, after=after, limit=limit, jobs=jobs)
        async with self._looked:
            self.calls["workers"] += 1
            self._looked.notify_all()
        return workers

    async def seen(self, worker_ids: Sequence[str]) -> None:
        self.calls["seen"] += 1
        await super().seen(worker_ids)

    async def looked(self, times: int) -> None:
        """Returns when it has been looked at so many times more."""
        wanted = self.calls["workers"] + times
        async with asyncio.timeout(PATIENCE), self._looked:
            await self._looked.wait_for(lambda: self.calls["workers"] >= wanted)


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Silent]:
    monkeypatch.setattr(claims, "RECHECK", 0.01)
    store = Silent()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def service(store: Silent) -> AsyncIterator[ClaimService]:
    async with running(store) as service:
        yield service


@asynccontextmanager
async def running(store: Silent) -> AsyncIterator[ClaimService]:
    service = ClaimService(store, streams=Streams(Limits()))
    task = asyncio.create_task(service.run())
    yield service
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), task.exception()


class Worker:
    """A stream, and the reading of its next event."""

    def __init__(self, stream: ClaimStream) -> None:
        self._stream = stream
        self.next = asyncio.create_task(stream.next())

    def read_on(self) -> None:
        self.next = asyncio.create_task(self._stream.next())

    async def jobs(self) -> list[str]:
        """The ids of the jobs that it is told of next; goes on reading."""
        async with asyncio.timeout(PATIENCE):
            event = await self.next
        assert isinstance(event, Assigned)
        self.read_on()
        return [assignment.job.id for assignment in event.assignments]

    async def refusal(self) -> Reason:
        """Why it ended."""
        with pytest.raises(JobwireError) as ended:
            async with asyncio.timeout(PATIENCE):
                await self.next
        return ended.value.reason

    async def close(self) -> None:
        self.next.cancel()
        await self._stream.close(peer_gone=True)


async def opened(service: ClaimService, id: str, *, queue: str = "default", session: int = 0) -> Worker:
    spec = ClaimSpec(
        worker=WorkerInfo(id=id, session=session),
        queues=(queue,),
        max_in_flight=1,
        lease_duration=30 * SECOND,
        delivery_timeout=0,
    )
    return Worker(await service.open(spec))


async def test_streams_that_wait_in_lines_of_their_own_cost_two_calls_a_look(
    service: ClaimService, store: Silent
) -> None:
    workers = [await opened(service, f"w{i}", queue=f"q{i}") for i in range(STREAMS)]
    await store.looked(2)
    store.calls.clear()
    await store.looked(5)
    assert store.calls in ({"queues": n, "workers": 5} for n in (5, 6))
    for worker in workers:
        await worker.close()


async def test_workers_that_are_full_cost_two_calls_a_look(service: ClaimService, store: Silent) -> None:
    await store.create([NewJob(id=f"j{i}") for i in range(2 * STREAMS)])
    workers = [await opened(service, f"w{i}") for i in range(STREAMS)]
    for worker in workers:
        await worker.jobs()
    await store.looked(2)
    store.calls.clear()
    await store.looked(5)
    assert store.calls["claim"] == 0
    assert store.calls["queues"] == 0, "nobody stands in line"
    for worker in workers:
        await worker.close()


async def test_a_job_that_no_hint_told_of_is_found(service: ClaimService, store: Silent) -> None:
    worker = await opened(service, "w")
    await store.looked(2)
    await store.create([NewJob(id="a")])
    assert await worker.jobs() == ["a"]
    await worker.close()


async def test_credit_that_no_hint_told_of_is_found(service: ClaimService, store: Silent) -> None:
    await store.create([NewJob(id="a"), NewJob(id="b")])
    worker = await opened(service, "w")
    assert await worker.jobs() == ["a"]
    [job] = (await store.get(["a"])).jobs
    assert job is not None
    assert job.token is not None
    await store.move([policy.complete("a", job.token, None)])
    assert await worker.jobs() == ["b"]
    await worker.close()


async def test_a_paused_queue_is_not_asked_for_its_jobs(service: ClaimService, store: Silent) -> None:
    await store.put_queue("default", QueueChanges(paused=True), create=True)
    await store.create([NewJob(id="a")])
    worker = await opened(service, "w")
    await store.looked(2)
    store.calls.clear()
    await store.looked(5)
    assert store.calls["claim"] == 0
    await store.put_queue("default", QueueChanges(paused=False))
    assert await worker.jobs() == ["a"]
    await worker.close()


async def test_a_store_that_was_away_is_asked_again(service: ClaimService, store: Silent) -> None:
    worker = await opened(service, "w")
    await store.looked(2)
    store.is_away = True
    await store.create([NewJob(id="a")])
    before = store.calls["queues"]
    async with asyncio.timeout(PATIENCE):
        while store.calls["queues"] < before + 3:
            await store.ping()
    store.is_away = False
    assert await worker.jobs() == ["a"]
    await worker.close()


async def test_an_idle_stream_ends_when_its_worker_has_opened_a_newer_one_at_another_server(
    service: ClaimService, store: Silent
) -> None:
    """It is not the first in line, so no bell of another job would wake it."""
    others = [await opened(service, f"w{i}") for i in range(3)]
    older = await opened(service, "moving", session=1)
    await store.looked(2)
    async with running(store) as elsewhere:
        newer = await opened(elsewhere, "moving", session=2)
        assert await older.refusal() is Reason.SUPERSEDED
        with pytest.raises(JobwireError) as late:
            await opened(service, "moving", session=1)
        assert late.value.reason is Reason.SUPERSEDED
        for other in others:
            await other.close()
        await store.create([NewJob(id="a")])
        assert await newer.jobs() == ["a"]
        await newer.close()


async def test_a_drain_that_no_hint_told_of_is_found_and_so_is_its_end(service: ClaimService, store: Silent) -> None:
    worker = await opened(service, "w")
    await store.looked(2)
    await store.direct("w", Directive.TERMINATE)
    async with asyncio.timeout(PATIENCE):
        assert await worker.next == Draining(None)
    worker.read_on()
    await store.create([NewJob(id="a")])
    store.calls.clear()
    await store.looked(5)
    assert store.calls["claim"] == 0, "it stands in no line"
    await store.direct("w", Directive.NONE)
    assert await worker.jobs() == ["a"]
    await worker.close()


async def test_workers_that_do_not_beat_are_said_to_be_there_only_so_often(
    service: ClaimService, store: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [await opened(service, f"w{i}") for i in range(3)]
    await store.looked(5)
    assert store.calls["seen"] == 0, "they have just been heard"
    monkeypatch.setattr(claims, "SEEN_EVERY", 0)
    await store.looked(2)
    assert store.calls["seen"] > 0
    assert all(record.last_seen > record.last_beat for record in (await store.workers()).workers)
    for worker in workers:
        await worker.close()
