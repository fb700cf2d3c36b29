"""Queues over the wire: seen, tuned, paused, capped."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.rpc.calls import FOREVER, aiter_events, claim_one, complete, create, fail, get, refusal
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import queue_service_pb2 as queue_api
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED, JOB_STATE_IN_PROGRESS, JOB_STATE_QUEUED, JOB_STATE_SCHEDULED
from jobwire.v1.queue_pb2 import Queue
from jobwire.v1.worker_pb2 import WorkerIdentity

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
MISMATCH = (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def update(
    wire: Wire, name: str, *paths: str, etag: str = "", allow_missing: bool = False, **settings: Any
) -> Queue:
    request = queue_api.UpdateQueueRequest(
        queue=Queue(name=name, **settings),
        update_mask=FieldMask(paths=paths),
        etag=etag,
        allow_missing=allow_missing,
    )
    return (await wire.queues.UpdateQueue(request)).queue


async def get_queue(wire: Wire, name: str) -> Queue:
    return (await wire.queues.GetQueue(queue_api.GetQueueRequest(name=name))).queue


async def names(wire: Wire, size: int) -> list[str]:
    """Of all pages."""
    request = queue_api.ListQueuesRequest(page_size=size)
    found: list[str] = []
    async with asyncio.timeout(FOREVER):
        while True:
            page = await wire.queues.ListQueues(request)
            assert 1 <= len(page.queues) <= (size or 100)
            found += [queue.name for queue in page.queues]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


def counts(queue: Queue) -> dict[int, int]:
    return {count.state: count.count for count in queue.counts}


# --- seeing ---------------------------------------------------------------------------------------------------


async def test_a_queue_comes_with_its_first_job_and_tells_what_is_in_it(wire: Wire) -> None:
    assert not (await wire.queues.ListQueues(queue_api.ListQueuesRequest())).queues
    assert await refusal(get_queue(wire, "default")) == NOT_FOUND
    for id in "abc":
        await create(wire, id)
    await wire.jobs.UpdateJob(complete(await claim_one(wire)))
    await claim_one(wire)
    queue = await get_queue(wire, "default")
    assert counts(queue) == {JOB_STATE_QUEUED: 1, JOB_STATE_IN_PROGRESS: 1, JOB_STATE_COMPLETED: 1}
    assert (queue.paused, queue.ageing, queue.HasField("max_in_flight")) == (False, seconds(60), False)
    assert not queue.HasField("retention")
    assert queue.create_time == queue.update_time
    [listed] = (await wire.queues.ListQueues(queue_api.ListQueuesRequest())).queues
    listed.oldest_waiting_age.CopyFrom(queue.oldest_waiting_age)
    assert listed == queue


async def test_the_age_is_that_of_the_head_of_the_line(wire: Wire) -> None:
    first = await create(wire, "a")
    await create(wire, "b")
    before = first.queue_time.ToMicroseconds()
    queue = await get_queue(wire, "default")
    b = await create(wire, "c")
    assert 0 <= queue.oldest_waiting_age.ToMicroseconds() <= b.queue_time.ToMicroseconds() - before
    for _ in "abc":
        await claim_one(wire)
    assert not (await get_queue(wire, "default")).HasField("oldest_waiting_age")


@pytest.mark.parametrize("size", [0, 1, 2, 5, 6])
async def test_queues_are_listed_by_name_page_by_page(wire: Wire, size: int) -> None:
    made = ["b", "a.b", "a", "A", "a-b"]
    for name in made:
        await create(wire, f"job-{name}", queue=name)
    assert await names(wire, size) == sorted(made)


async def test_a_page_token_that_does_not_fit_is_refused(wire: Wire) -> None:
    await create(wire, "a", queue="a")
    await create(wire, "b", queue="b")
    for request in (
        queue_api.ListQueuesRequest(page_token="b"),
        queue_api.ListQueuesRequest(
            page_token=(await wire.jobs.ListJobs(api.ListJobsRequest(page_size=1))).next_page_token
        ),
        queue_api.ListQueuesRequest(page_size=1001),
    ):
        assert await refusal(wire.queues.ListQueues(request)) == INVALID


# --- settings -------------------------------------------------------------------------------------------------


async def test_a_setting_is_changed_and_goes_back_to_its_default_and_the_others_stay(wire: Wire) -> None:
    await create(wire, "a")
    before = await get_queue(wire, "default")
    full: dict[str, Any] = {"paused": True, "ageing": seconds(0), "retention": seconds(5), "max_in_flight": 7}
    for name, value in full.items():
        queue = await update(wire, "default", name, **{name: value})
        assert getattr(queue, name) == value
    for name, value in full.items():
        assert getattr(queue, name) == value, "the later updates have left it alone"
    assert queue.update_time.ToMicroseconds() > before.update_time.ToMicroseconds()
    assert queue.create_time == before.create_time
    for name in full:
        queue = await update(wire, "default", name)
        assert getattr(queue, name) == getattr(before, name)
        assert queue.HasField(name) == before.HasField(name) if name != "paused" else True  # type: ignore[arg-type]  # the stub wants a literal
    assert counts(queue) == {JOB_STATE_QUEUED: 1}


async def test_an_unknown_queue_is_made_only_where_that_is_allowed(wire: Wire) -> None:
    assert await refusal(update(wire, "new", paused=True)) == NOT_FOUND
    assert await refusal(update(wire, "new", etag="0", allow_missing=True, paused=True)) == NOT_FOUND
    assert not (await wire.queues.ListQueues(queue_api.ListQueuesRequest())).queues
    made = await update(wire, "new", allow_missing=True, paused=True)
    assert made.paused
    assert (await update(wire, "new", "paused", allow_missing=True)).create_time == made.create_time


async def test_an_etag_holds_until_a_setting_changes_whatever_the_jobs_do(wire: Wire) -> None:
    await create(wire, "a")
    etag = (await get_queue(wire, "default")).etag
    await create(wire, "b")
    await claim_one(wire)
    queue = await update(wire, "default", etag=etag, max_in_flight=5)
    assert queue.etag != etag
    assert await refusal(update(wire, "default", etag=etag, max_in_flight=6)) == MISMATCH
    assert await refusal(update(wire, "default", etag="9" * 64, max_in_flight=6)) == MISMATCH
    assert await refusal(update(wire, "default", etag="x", max_in_flight=6)) == MISMATCH
    assert (await get_queue(wire, "default")).max_in_flight == 5
    assert (await update(wire, "default", etag=queue.etag, max_in_flight=6)).max_in_flight == 6


@pytest.mark.parametrize("name", ["", "a b", "/", "-a", "x" * 65])
async def test_a_name_outside_the_grammar_is_refused(wire: Wire, name: str) -> None:
    assert await refusal(get_queue(wire, name)) == INVALID
    assert await refusal(update(wire, name, allow_missing=True, paused=True)) == INVALID


async def test_nothing_to_change_or_what_is_no_setting_is_refused(wire: Wire) -> None:
    await create(wire, "a")
    assert await refusal(update(wire, "default")) == INVALID
    assert await refusal(update(wire, "default", "name")) == INVALID
    assert await refusal(update(wire, "default", etag="<>", paused=True)) == INVALID
    assert await refusal(update(wire, "default", "paused", max_in_flight=1)) == INVALID
    read = await get_queue(wire, "default")
    request = queue_api.UpdateQueueRequest(queue=read, update_mask=FieldMask(paths=["paused"]))
    assert await refusal(wire.queues.UpdateQueue(request)) == INVALID


# --- what settings do -----------------------------------------------------------------------------------------


async def test_a_paused_queue_gives_nothing_and_takes_everything_and_its_streams_stay(wire: Wire) -> None:
    await update(wire, "q", allow_missing=True, paused=True)
    stream = wire.jobs.ClaimJob(
        api.ClaimJobRequest(worker=WorkerIdentity(id="w"), queues=["q", "other"], max_in_flight=10)
    )
    await stream.initial_metadata()
    events = aiter_events(stream)
    async with asyncio.timeout(FOREVER):
        assert (await create(wire, "held", queue="q")).state == JOB_STATE_QUEUED
        # The stream asks the paused queue first, so what comes of the other one tells that it got nothing there.
        await create(wire, "free", queue="other")
        assert [one.job.id for one in (await anext(events)).jobs.assignments] == ["free"]
        assert (await get(wire, "held")).state == JOB_STATE_QUEUED
        await update(wire, "q", "paused")
        assert [one.job.id for one in (await anext(events)).jobs.assignments] == ["held"]


async def test_running_jobs_of_a_paused_queue_go_on_and_their_retries_come_due(wire: Wire) -> None:
    await create(wire, "a")
    assignment = await claim_one(wire)
    await update(wire, "default", paused=True)
    await wire.beat("w", assignment)
    assert (await wire.jobs.UpdateJob(fail(assignment, delay=0.001))).job.state == JOB_STATE_SCHEDULED
    async with asyncio.timeout(FOREVER):
        while (await get(wire, "a")).state != JOB_STATE_QUEUED:
            pass  # maintenance promotes it
    await update(wire, "default", "paused")
    assert (await claim_one(wire)).job.id == "a"


async def test_a_ceiling_holds_over_all_streams_and_each_end_lets_the_next_one_in(wire: Wire) -> None:
    await update(wire, "q", allow_missing=True, max_in_flight=2)
    for i in range(5):
        await create(wire, f"q-{i}", queue="q")
    events = []
    for i in range(2):
        request = api.ClaimJobRequest(worker=WorkerIdentity(id=f"w{i}"), queues=["q", "other"], max_in_flight=10)
        stream = wire.jobs.ClaimJob(request)
        await stream.initial_metadata()
        events.append(aiter_events(stream))
    arrived: asyncio.Queue[api.Assignment] = asyncio.Queue()

    async def read(i: int) -> None:
        async for event in events[i]:
            for assignment in event.jobs.assignments:
                assert await wire.beat(f"w{i}", assignment)
                arrived.put_nowait(assignment)

    readers = [asyncio.create_task(read(i)) for i in range(2)]
    async with asyncio.timeout(FOREVER):
        held = [await arrived.get(), await arrived.get()]
        for i in range(2, 5):
            # Whoever gets this one has asked in vain for more of the first queue.
            await create(wire, f"other-{i}", queue="other")
            assert (await arrived.get()).job.id == f"other-{i}"
            assert counts(await get_queue(wire, "q"))[JOB_STATE_IN_PROGRESS] == 2
            await wire.jobs.UpdateJob(complete(held.pop(0)))
            held.append(await arrived.get())
    assert sorted(assignment.job.id for assignment in held) == ["q-3", "q-4"]
    for reader in readers:
        reader.cancel()


async def test_a_ceiling_that_is_lifted_lets_the_waiting_streams_in(wire: Wire) -> None:
    await update(wire, "default", allow_missing=True, max_in_flight=1)
    for id in "ab":
        await create(wire, id)
    await claim_one(wire)
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="next")))
    await stream.initial_metadata()
    waiting = asyncio.ensure_future(anext(aiter_events(stream)))
    await update(wire, "default", "max_in_flight")
    async with asyncio.timeout(FOREVER):
        assert (await waiting).jobs.assignments[0].job.id == "b"


async def test_without_ageing_it_is_first_come_first_served(wire: Wire) -> None:
    await update(wire, "default", allow_missing=True, ageing=seconds(0))
    await create(wire, "a", priority=10)
    await create(wire, "b", priority=1)
    assert [(await claim_one(wire)).job.id for _ in "ab"] == ["a", "b"]


async def test_the_retention_of_a_queue_holds_for_jobs_that_have_none(wire: Wire) -> None:
    await update(wire, "default", allow_missing=True, retention=seconds(1000))
    await create(wire, "a")
    await create(wire, "b", retention=seconds(2000))
    for seconds_kept in (1000, 2000):
        job = (await wire.jobs.UpdateJob(complete(await claim_one(wire)))).job
        assert job.purge_time.seconds - job.finish_time.seconds == seconds_kept
