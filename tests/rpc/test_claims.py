"""Claim streams over the wire: each job once, within the credit, and no longer than its worker lives."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import pytest
from tests.rpc.calls import FOREVER, aiter_events, claim_one, complete, create, get, refusal
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import (
    JOB_STATE_COMPLETED,
    Job,
)
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.service import claim_stream


async def test_fifty_claimers_take_each_of_a_thousand_jobs_once_and_none_exceeds_its_credit(wire: Wire) -> None:
    jobs, claimers, credit = 1000, 50, 7
    for start in range(0, jobs, 500):
        await wire.jobs.BatchCreateJobs(
            api.BatchCreateJobsRequest(
                requests=[api.CreateJobRequest(job=Job(id=f"job-{i}")) for i in range(start, start + 500)]
            )
        )
    taken: Counter[str] = Counter()
    done = asyncio.Event()

    async def claimer(name: str) -> None:
        held: set[str] = set()

        async def settle(assignments: list[api.Assignment]) -> None:
            answer = await wire.jobs.BatchUpdateJobs(
                api.BatchUpdateJobsRequest(requests=[complete(a) for a in assignments])
            )
            assert all(result.HasField("response") for result in answer.results)

        request = api.ClaimJobRequest(worker=WorkerIdentity(id=name), max_in_flight=credit)
        async for event in wire.jobs.ClaimJob(request):
            assignments = list(event.jobs.assignments)
            held.update(a.job.id for a in assignments)
            taken.update(a.job.id for a in assignments)
            assert len(held) <= credit
            if taken.total() >= jobs:
                done.set()
            # From here on the server may count them as settled, so what is held is known only to be less.
            held.difference_update(a.job.id for a in assignments)
            await settle(assignments)

    async with asyncio.timeout(60):
        tasks = [asyncio.create_task(claimer(f"w{i}")) for i in range(claimers)]
        all_taken = asyncio.create_task(done.wait())
        await asyncio.wait([all_taken, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in (all_taken, *tasks):
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [error for error in ended if not isinstance(error, asyncio.CancelledError)]
    assert taken == Counter({f"job-{i}": 1 for i in range(jobs)})


async def test_a_worker_that_settles_nothing_is_given_its_credit_and_no_more(wire: Wire) -> None:
    for i in range(10):
        await create(wire, f"job-{i}")
    worker = WorkerIdentity(id="greedy")
    held: list[api.Assignment] = []
    request = api.ClaimJobRequest(worker=worker, max_in_flight=3, delivery_timeout=seconds(0))
    stream = wire.jobs.ClaimJob(request)
    events = aiter_events(stream)
    async with asyncio.timeout(FOREVER):
        while len(held) < 3:
            held += (await anext(events)).jobs.assignments
        # A second stream of the same worker id finds the credit used up although it has never been handed a job.
        second = wire.jobs.ClaimJob(
            api.ClaimJobRequest(worker=worker, max_in_flight=3, max_jobs=1, wait_timeout=seconds(0.5))
        )
        assert [event async for event in second] == []
        await wire.jobs.UpdateJob(complete(held[0]))
        third = wire.jobs.ClaimJob(
            api.ClaimJobRequest(worker=worker, max_in_flight=3, max_jobs=1, wait_timeout=seconds(FOREVER))
        )
        assert [len(event.jobs.assignments) async for event in third] == [1]
    assert len({a.job.id for a in held}) == 3


async def test_a_worker_that_vanishes_before_its_first_beat_costs_its_job_nothing(wire: Wire) -> None:
    await create(wire, "a")
    before = await get(wire, "a")
    stream = wire.jobs.ClaimJob(
        api.ClaimJobRequest(worker=WorkerIdentity(id="gone"), delivery_timeout=seconds(60), lease_duration=seconds(60))
    )
    first = await anext(aiter_events(stream))
    assert first.jobs.assignments[0].job.id == "a"
    stream.cancel()
    # A minute would pass before the delivery's deadline: it comes back because the peer has gone.
    async with asyncio.timeout(1):
        second = await claim_one(wire, worker="next")
    assert second.job.id == "a"
    assert second.job.attempt == 1
    assert second.job.queue_time == before.queue_time
    assert (second.job.retry_count, second.job.interruption_count) == (0, 0)
    assert second.fence > first.jobs.assignments[0].fence


async def test_an_acknowledged_job_stays_with_its_worker_when_the_stream_breaks(wire: Wire) -> None:
    await create(wire, "a")
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    first = (await anext(aiter_events(stream))).jobs.assignments[0]
    await wire.beat("w", first)
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await anext(aiter_events(stream))
    other = wire.jobs.ClaimJob(
        api.ClaimJobRequest(worker=WorkerIdentity(id="other"), max_jobs=1, wait_timeout=seconds(0.3))
    )
    assert [event async for event in other] == []
    assert (await wire.jobs.UpdateJob(complete(first))).job.state == JOB_STATE_COMPLETED


async def test_a_newer_stream_of_a_worker_ends_the_older_one(wire: Wire) -> None:
    older = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=1)))
    await older.initial_metadata()
    newer = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=2)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter_events(older))
    assert caught.value.code() == grpc.StatusCode.ABORTED
    assert dict(caught.value.trailing_metadata() or ())["jobwire-reason"] == "SUPERSEDED"
    late = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=1)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter_events(late))
    assert caught.value.code() == grpc.StatusCode.ABORTED
    await create(wire, "a")
    assert (await anext(aiter_events(newer))).jobs.assignments[0].job.id == "a"


@pytest.mark.parametrize("engine", ["valkey", "redis"])
async def test_a_newer_stream_at_another_server_ends_the_older_one_though_it_is_idle(
    wire: Wire, store_url: str
) -> None:
    other = App(Config(store=store_url, listen="127.0.0.1:0", http="off", drain_timeout=1))
    address = await other.start()
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(FOREVER):
        elsewhere = Wire(other, address, channel)
        first = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="first-in-line")))
        older = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=1)))
        for stream in (first, older):
            await stream.initial_metadata()
        newer = elsewhere.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=2)))
        assert await refusal(anext(aiter_events(older))) == (grpc.StatusCode.ABORTED, "SUPERSEDED")
        late = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=1)))
        assert await refusal(anext(aiter_events(late))) == (grpc.StatusCode.ABORTED, "SUPERSEDED")
        first.cancel()
        await create(wire, "a")
        assert (await anext(aiter_events(newer))).jobs.assignments[0].job.id == "a"
    await other.stop()


async def test_a_waiting_stream_is_told_of_a_new_job(wire: Wire) -> None:
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    await stream.initial_metadata()
    waiting = asyncio.ensure_future(anext(aiter_events(stream)))
    await create(wire, "a")
    async with asyncio.timeout(FOREVER):
        assert (await waiting).jobs.assignments[0].job.id == "a"


async def test_a_stream_without_news_hears_how_it_stands(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    assert claim_stream.KEEPALIVE <= 15, "as promised"
    monkeypatch.setattr(claim_stream, "KEEPALIVE", 0.05)
    await create(wire, "a")
    stream = aiter_events(wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w"), max_in_flight=3)))
    async with asyncio.timeout(FOREVER):
        assert (await anext(stream)).HasField("jobs")
        told = [(await anext(stream)).keepalive for _ in range(3)]
    assert [(each.worker_id, each.held, each.credit) for each in told] == [("w", 1, 2)] * 3
    times = [each.server_time.ToMicroseconds() for each in told]
    assert times == sorted(times)
    assert times[0] < times[-1]


async def test_a_silent_worker_gets_nothing_until_it_beats(wire: Wire) -> None:
    await create(wire, "a")
    await create(wire, "b")
    stream = wire.jobs.ClaimJob(
        api.ClaimJobRequest(worker=WorkerIdentity(id="w"), max_in_flight=1, delivery_timeout=seconds(0.2))
    )
    events = aiter_events(stream)
    async with asyncio.timeout(FOREVER):
        first = (await anext(events)).jobs.assignments[0]
        lost = await anext(events)
        assert (lost.lost.job_id, lost.lost.fence) == (first.job.id, first.fence)
        waiting = asyncio.ensure_future(anext(events))
        other = await claim_one(wire, worker="other")
        assert other.job.id == first.job.id, "it went back to its old place"
        assert not waiting.done()
        await wire.workers.Heartbeat(worker_api.HeartbeatRequest(worker=WorkerIdentity(id="w")))
        assert (await waiting).jobs.assignments[0].job.id == "b"
