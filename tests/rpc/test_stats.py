"""GetStats and WatchStats over the wire, on each engine."""

from __future__ import annotations

import asyncio
import time

import pytest
from grpc import StatusCode, aio
from tests.rpc.calls import FOREVER, complete, create_many, fail, refusal
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import admin_service_pb2 as api
from jobwire.v1 import job_service_pb2 as job_api
from jobwire.v1 import queue_service_pb2 as queue_api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import (
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_PROGRESS,
    JOB_STATE_QUEUED,
    Job,
)
from jobwire.v1.job_service_pb2 import Assignment
from jobwire.v1.queue_pb2 import Queue
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.domain.job import HOUR, SECOND
from jobwire_server.rpc import stats as messages
from jobwire_server.service import stats as service

INVALID = (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def stats(wire: Wire, *queues: str) -> api.Stats:
    return (await wire.admin.GetStats(api.GetStatsRequest(queues=queues))).stats


async def claim(wire: Wire, number: int, *, worker: str = "w", queue: str = "mail") -> list[Assignment]:
    request = job_api.ClaimJobRequest(
        worker=WorkerIdentity(id=worker), queues=[queue], max_in_flight=number, max_jobs=number
    )
    jobs: list[Assignment] = []
    async for response in wire.jobs.ClaimJob(request):
        jobs += response.jobs.assignments
    assert len(jobs) == number
    return jobs


async def some_work(wire: Wire) -> None:
    """In `mail` 2 completed, 1 failed, 1 held by w, 1 waits; in `other` 1 waits."""
    await create_many(wire, *(Job(id=f"j{n}", queue="mail") for n in range(5)), Job(id="o", queue="other"))
    held = await claim(wire, 4)
    for change in (complete(held[0]), complete(held[1]), fail(held[2], permanent=True)):
        await wire.jobs.UpdateJob(change)


def counts(queue: api.QueueStats) -> dict[int, int]:
    return {each.state: each.count for each in queue.counts}


async def test_an_empty_server_has_nothing_to_tell(wire: Wire) -> None:
    found = await stats(wire)
    assert (list(found.queues), counts(found.totals), found.totals.paused) == ([], {}, False)
    assert not found.totals.HasField("oldest_waiting_age")
    assert [each.created_count for each in found.totals.activity] == [0, 0, 0]
    assert not any(each.HasField("average_run_time") for each in found.totals.activity)
    assert found.workers == api.WorkerCounts()


async def test_stats_tell_what_is_there_and_what_happened(wire: Wire) -> None:
    await some_work(wire)
    found = await stats(wire)
    mail, other = found.queues
    assert (mail.queue, other.queue) == ("mail", "other")
    assert counts(mail) == {
        JOB_STATE_QUEUED: 1,
        JOB_STATE_IN_PROGRESS: 1,
        JOB_STATE_COMPLETED: 2,
        JOB_STATE_FAILED: 1,
    }
    assert (mail.completed_total, mail.failed_total, mail.worker_count, other.worker_count) == (2, 1, 1, 0)
    for activity in mail.activity:
        told = (activity.created_count, activity.claimed_count, activity.completed_count, activity.failed_count)
        assert told == (5, 4, 2, 1)
        assert activity.average_run_time.ToMicroseconds() > 0
        assert 0 < activity.window.ToMicroseconds() < 60 * SECOND, "the store is that young"
    assert mail.oldest_waiting_age.ToMicroseconds() > 0
    assert found.workers == api.WorkerCounts(busy_count=1)


async def test_totals_are_the_sum_over_the_queues_asked_for(wire: Wire) -> None:
    await some_work(wire)
    await claim(wire, 1, worker="v", queue="other")
    totals = (await stats(wire)).totals
    assert totals.queue == ""
    assert counts(totals)[JOB_STATE_IN_PROGRESS] == 2
    assert [each.created_count for each in totals.activity] == [6, 6, 6]
    assert (totals.completed_total, totals.failed_total, totals.worker_count) == (2, 1, 2)
    found = await stats(wire, "other", "unknown", "other")
    assert [queue.queue for queue in found.queues] == ["other"]
    assert (counts(found.totals), found.totals.worker_count) == ({JOB_STATE_IN_PROGRESS: 1}, 1)
    assert found.workers.busy_count == 2, "workers are counted over all queues"


async def test_a_worker_of_many_queues_counts_once_in_the_totals(wire: Wire) -> None:
    await some_work(wire)
    request = job_api.ClaimJobRequest(
        worker=WorkerIdentity(id="both"), queues=["mail", "other"], max_jobs=1, max_in_flight=1
    )
    async for _ in wire.jobs.ClaimJob(request):
        pass
    found = await stats(wire)
    assert [queue.worker_count for queue in found.queues] == [2, 1]
    assert found.totals.worker_count == 2


async def test_all_queues_are_paused_when_each_of_them_is(wire: Wire) -> None:
    await some_work(wire)
    for name, all_are in (("mail", False), ("other", True)):
        await wire.queues.UpdateQueue(queue_api.UpdateQueueRequest(queue=Queue(name=name, paused=True)))
        assert (await stats(wire)).totals.paused is all_are


async def test_the_oldest_of_all_is_the_oldest_of_any(wire: Wire) -> None:
    await create_many(wire, Job(id="a", queue="mail"))
    await create_many(wire, Job(id="b", queue="other"))
    found = await stats(wire)
    ages = [queue.oldest_waiting_age.ToMicroseconds() for queue in found.queues]
    assert ages[0] > ages[1]
    assert found.totals.oldest_waiting_age.ToMicroseconds() == ages[0]


async def test_an_idle_worker_is_counted_too(wire: Wire) -> None:
    await wire.workers.Heartbeat(worker_api.HeartbeatRequest(worker=WorkerIdentity(id="w")))
    assert (await stats(wire)).workers == api.WorkerCounts(idle_count=1)


async def test_totals_hold_more_queues_than_are_told(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "QUEUES_TOLD", 3)
    monkeypatch.setattr(service, "_PAGE", 2)
    await create_many(wire, *(Job(queue=f"q{n}") for n in range(8)))
    for n in range(5):
        await wire.workers.Heartbeat(worker_api.HeartbeatRequest(worker=WorkerIdentity(id=f"w{n}")))
    found = await stats(wire)
    assert [queue.queue for queue in found.queues] == ["q0", "q1", "q2"]
    assert counts(found.totals) == {JOB_STATE_QUEUED: 8}
    assert found.workers.idle_count == 5


async def test_the_last_hour_is_told_minute_by_minute_where_that_is_asked(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_work(wire)
    found = (await wire.admin.GetStats(api.GetStatsRequest(minutes=True))).stats
    assert list(found.minutes) == [], "the store is that young"
    monkeypatch.setattr(service, "minutes_since", lambda **_: 60)
    found = (await wire.admin.GetStats(api.GetStatsRequest(minutes=True))).stats
    assert len(found.minutes) == 60
    assert {each.window.ToMicroseconds() for each in found.minutes} == {60 * SECOND}
    assert sum(each.created_count for each in found.minutes) in (0, 6), "they may have come in the minute before this"
    assert list((await stats(wire)).minutes) == []


async def test_what_cannot_be_asked_is_refused(wire: Wire) -> None:
    for queues in (["no name"], ["q"] * 1001):
        assert await refusal(wire.admin.GetStats(api.GetStatsRequest(queues=queues))) == INVALID
        assert await first_refusal(wire, api.WatchStatsRequest(queues=queues)) == INVALID
    for interval in (0.0999, HOUR / SECOND + 1, -1):
        assert await first_refusal(wire, api.WatchStatsRequest(interval=seconds(interval))) == INVALID


async def first_refusal(wire: Wire, request: api.WatchStatsRequest) -> tuple[StatusCode, str]:
    async def first() -> object:
        return await anext(aiter(wire.admin.WatchStats(request)))

    return await refusal(first())


# --- watching -----------------------------------------------------------------------------------------------


def watching(
    wire: Wire, *queues: str, interval: float = 0.1
) -> aio.UnaryStreamCall[api.WatchStatsRequest, api.WatchStatsResponse]:
    return wire.admin.WatchStats(api.WatchStatsRequest(queues=queues, interval=seconds(interval)))


async def test_a_watch_tells_at_once_and_then_again_and_again(wire: Wire) -> None:
    call = watching(wire, "mail")
    readings = aiter(call)
    first = (await anext(readings)).stats
    assert list(first.queues) == []
    await some_work(wire)
    async with asyncio.timeout(FOREVER):
        while not (reading := (await anext(readings)).stats).totals.failed_total:
            pass
    assert [queue.queue for queue in reading.queues] == ["mail"]
    assert reading.server_time.ToMicroseconds() > first.server_time.ToMicroseconds()
    call.cancel()


async def test_those_who_watch_the_same_share_a_reading(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    queues = wire.app.store.queues

    async def counted(**given: object) -> object:
        nonlocal asked
        asked += "lately" in given
        return await queues(**given)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(wire.app.store, "queues", counted)
    calls = [watching(wire, interval=60) for _ in range(20)]
    firsts = await asyncio.gather(*(anext(aiter(call)) for call in calls))
    assert len(firsts) == 20
    assert asked == 1
    for call in calls:
        call.cancel()


async def test_a_draining_server_ends_its_watches(wire: Wire) -> None:
    call = watching(wire, interval=3600)
    readings = aiter(call)
    await anext(readings)
    stopping = asyncio.create_task(wire.app.stop())
    assert await refusal(anext(readings)) == (StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    await stopping


async def test_a_watch_that_ended_frees_its_place(wire: Wire) -> None:
    streams = wire.app._stats._streams
    for call in [watching(wire) for _ in range(3)]:
        await anext(aiter(call))
        call.cancel()
    async with asyncio.timeout(FOREVER):
        while streams.count:
            await wire.app.store.ping()


async def test_the_server_tells_schema_and_size_of_its_store(wire: Wire) -> None:
    store = (await wire.admin.GetServerInfo(api.GetServerInfoRequest())).store
    assert store.schema_version > 0
    assert store.used_bytes > 0
    assert (store.client_count > 0) is (store.engine != "sqlite")


async def test_the_server_tells_how_much_of_the_time_it_is_at_work(wire: Wire) -> None:
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        await wire.app.store.ping()
    assert 0 < (await wire.admin.GetServerInfo(api.GetServerInfoRequest())).load <= 1
