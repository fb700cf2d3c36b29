"""The registry of workers, and draining them, over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode
from tests.rpc.calls import FOREVER, aiter_events, complete, create, get, refusal
from tests.rpc.conftest import Wire

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED
from jobwire.v1.worker_pb2 import (
    WORKER_DIRECTIVE_NONE,
    WORKER_DIRECTIVE_QUIET,
    WORKER_DIRECTIVE_TERMINATE,
    WORKER_DIRECTIVE_UNSPECIFIED,
    WORKER_STATE_BUSY,
    WORKER_STATE_IDLE,
    WORKER_STATE_LOST,
    WORKER_STATE_QUIET,
    WORKER_STATE_UNSPECIFIED,
    Worker,
    WorkerDirective,
    WorkerIdentity,
)
from jobwire_server.domain import worker as domain
from jobwire_server.service import claim_stream, claims

TOLD = WorkerIdentity(
    id="w", session=7, labels={"zone": "b"}, host="host-1", pid=4711, runtime="go/1.22 jobwire/0.1", version="abc123"
)


async def beat(wire: Wire, id: str) -> worker_api.HeartbeatResponse:
    return await wire.workers.Heartbeat(worker_api.HeartbeatRequest(worker=WorkerIdentity(id=id)))


async def listed(wire: Wire, **asked: Any) -> list[Worker]:
    """All pages."""
    request = worker_api.ListWorkersRequest(**asked)
    found: list[Worker] = []
    while True:
        page = await wire.workers.ListWorkers(request)
        found += page.workers
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def drain(wire: Wire, id: str, directive: WorkerDirective.ValueType = WORKER_DIRECTIVE_UNSPECIFIED) -> Worker:
    answer = await wire.workers.DrainWorker(worker_api.DrainWorkerRequest(worker_id=id, directive=directive))
    return answer.worker


class Stream:
    """An open claim stream, and what it brings."""

    def __init__(self, wire: Wire, **asked: Any) -> None:
        asked.setdefault("worker", WorkerIdentity(id="w"))
        self._call = wire.jobs.ClaimJob(api.ClaimJobRequest(**asked))
        self._events: AsyncIterator[api.ClaimJobResponse] = aiter_events(self._call)

    async def next(self) -> api.ClaimJobResponse:
        async with asyncio.timeout(FOREVER):
            return await anext(self._events)

    async def opened(self) -> None:
        await self._call.initial_metadata()

    def close(self) -> None:
        self._call.cancel()


def is_drained_by_operator(event: api.ClaimJobResponse) -> bool:
    return event.HasField("drain") and not event.drain.HasField("reconnect_after")


# --- ListWorkers --------------------------------------------------------------------------------------------


async def test_a_worker_is_listed_as_it_described_itself_with_what_it_holds(wire: Wire) -> None:
    await create(wire, "a")
    await create(wire, "b", queue="mail")
    stream = Stream(wire, worker=TOLD, queues=["mail", "default"], max_in_flight=5)
    await stream.next()
    await stream.next()
    [worker] = await listed(wire)
    assert worker.identity == TOLD
    assert (list(worker.queues), worker.max_in_flight) == (["mail", "default"], 5)
    assert (worker.state, worker.directive) == (WORKER_STATE_BUSY, WORKER_DIRECTIVE_NONE)
    assert (worker.held_count, sorted(worker.held_job_ids)) == (2, ["a", "b"])
    assert worker.register_time.ToMicroseconds() <= worker.beat_time.ToMicroseconds()
    stream.close()


async def test_a_worker_that_only_beats_is_listed_and_idle(wire: Wire) -> None:
    assert await listed(wire) == []
    assert (await beat(wire, "w")).directive == WORKER_DIRECTIVE_NONE
    [worker] = await listed(wire)
    assert (worker.identity, worker.state, worker.held_count) == (WorkerIdentity(id="w"), WORKER_STATE_IDLE, 0)


async def test_workers_come_by_id_in_pages_and_by_state(wire: Wire) -> None:
    for id in ("b", "a", "d", "c", "e"):
        await beat(wire, id)
    await drain(wire, "b")
    await drain(wire, "e")
    for size in (1, 2, 4, 5, 0):
        assert [worker.identity.id for worker in await listed(wire, page_size=size)] == ["a", "b", "c", "d", "e"]
        quiet = await listed(wire, page_size=size, states=[WORKER_STATE_QUIET])
        assert [worker.identity.id for worker in quiet] == ["b", "e"]
    assert len(await listed(wire, states=[WORKER_STATE_QUIET, WORKER_STATE_IDLE])) == 5
    assert await listed(wire, states=[WORKER_STATE_BUSY, WORKER_STATE_LOST]) == []


async def test_a_page_of_talkative_workers_ends_before_the_message_is_too_large(wire: Wire) -> None:
    labels = {f"k{n:02}": "x" * 250 for n in range(32)}
    for n in range(500):
        identity = WorkerIdentity(id=f"w{n:03}", labels=labels)
        await wire.workers.Heartbeat(worker_api.HeartbeatRequest(worker=identity))
    page = await wire.workers.ListWorkers(worker_api.ListWorkersRequest(page_size=1000))
    assert page.ByteSize() <= 3 * 1024 * 1024
    assert 0 < len(page.workers) < 500
    assert [worker.identity.id for worker in await listed(wire, page_size=1000)] == [f"w{n:03}" for n in range(500)]


async def test_a_state_or_page_token_that_makes_no_sense_is_refused(wire: Wire) -> None:
    await beat(wire, "a")
    await beat(wire, "b")
    ask = wire.workers.ListWorkers
    invalid = (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert (
        await refusal(ask(worker_api.ListWorkersRequest(states=[WORKER_STATE_IDLE, WORKER_STATE_UNSPECIFIED])))
        == invalid
    )
    assert await refusal(ask(worker_api.ListWorkersRequest(states=[99]))) == invalid  # type: ignore[list-item]  # no such state
    assert await refusal(ask(worker_api.ListWorkersRequest(page_token="made-up"))) == invalid
    assert await refusal(ask(worker_api.ListWorkersRequest(page_size=1001))) == invalid
    token = (await ask(worker_api.ListWorkersRequest(page_size=1))).next_page_token
    other = worker_api.ListWorkersRequest(page_token=token, states=[WORKER_STATE_IDLE])
    assert await refusal(ask(other)) == invalid


async def test_a_worker_that_was_not_heard_of_is_lost_until_it_beats_again(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "LOST_AFTER", 0)
    await beat(wire, "w")
    [worker] = await listed(wire, states=[WORKER_STATE_LOST])
    assert worker.state == WORKER_STATE_LOST
    monkeypatch.undo()
    assert [each.state for each in await listed(wire)] == [WORKER_STATE_IDLE]


async def test_a_worker_with_an_open_stream_is_not_lost_although_it_never_beats(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RECHECK", 0.01)
    monkeypatch.setattr(claims, "SEEN_EVERY", 0)
    stream = Stream(wire)
    await stream.opened()
    [before] = await listed(wire)
    async with asyncio.timeout(FOREVER):
        while (found := (await wire.app.store.workers()).workers[0]).last_seen <= found.last_beat:
            continue
    [after] = await listed(wire)
    assert after.beat_time == before.beat_time, "it has not beaten"
    stream.close()


# --- DrainWorker --------------------------------------------------------------------------------------------


async def test_an_unknown_worker_cannot_be_drained(wire: Wire) -> None:
    ask = wire.workers.DrainWorker
    unknown = await refusal(ask(worker_api.DrainWorkerRequest(worker_id="w")))
    assert unknown == (StatusCode.NOT_FOUND, "WORKER_NOT_FOUND")
    invalid = (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert await refusal(ask(worker_api.DrainWorkerRequest())) == invalid
    await beat(wire, "w")
    nonsense = worker_api.DrainWorkerRequest(worker_id="w", directive=99)  # type: ignore[arg-type]  # no such directive
    assert await refusal(ask(nonsense)) == invalid


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (WORKER_DIRECTIVE_UNSPECIFIED, WORKER_DIRECTIVE_QUIET),
        (WORKER_DIRECTIVE_QUIET, WORKER_DIRECTIVE_QUIET),
        (WORKER_DIRECTIVE_TERMINATE, WORKER_DIRECTIVE_TERMINATE),
    ],
)
async def test_a_drained_worker_is_told_on_its_stream_and_in_its_beats_and_gets_nothing(
    wire: Wire, asked: WorkerDirective.ValueType, told: WorkerDirective.ValueType
) -> None:
    stream = Stream(wire, max_in_flight=2)
    await stream.opened()
    worker = await drain(wire, "w", asked)
    assert (worker.state, worker.directive, worker.held_count) == (WORKER_STATE_QUIET, told, 0)
    assert is_drained_by_operator(await stream.next())
    assert (await beat(wire, "w")).directive == told
    await create(wire, "a")
    other = Stream(wire, worker=WorkerIdentity(id="other"))
    assert (await other.next()).jobs.assignments[0].job.id == "a", "others get it"
    await create(wire, "b")
    await drain(wire, "w", WORKER_DIRECTIVE_NONE)
    assert (await stream.next()).jobs.assignments[0].job.id == "b", "the same stream, once that is lifted"
    assert (await beat(wire, "w")).directive == WORKER_DIRECTIVE_NONE
    stream.close()
    other.close()


async def test_a_drained_worker_finishes_what_it_holds_and_is_still_told_of_a_cancel(wire: Wire) -> None:
    await create(wire, "a")
    await create(wire, "b")
    stream = Stream(wire, max_in_flight=2)
    first, second = (await stream.next()).jobs.assignments
    await wire.beat("w", first)
    worker = await drain(wire, "w")
    assert (worker.held_count, list(worker.held_job_ids)) == (2, ["a", "b"])
    assert is_drained_by_operator(await stream.next())
    await create(wire, "c")
    assert await wire.beat("w", first) == worker_api.LEASE_STATE_OK
    await wire.jobs.UpdateJob(complete(first))
    assert (await get(wire, "a")).state == JOB_STATE_COMPLETED
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="b"))
    event = await stream.next()
    assert (event.cancel.job_id, event.cancel.fence) == ("b", second.fence), "and nothing before it"
    stream.close()


async def test_a_drain_outlives_the_stream(wire: Wire) -> None:
    await beat(wire, "w")
    await drain(wire, "w")
    await create(wire, "a")
    stream = Stream(wire)
    assert is_drained_by_operator(await stream.next()), "before any job"
    again = Stream(wire)
    assert is_drained_by_operator(await again.next())
    await drain(wire, "w", WORKER_DIRECTIVE_NONE)
    assert (await again.next()).jobs.assignments[0].job.id == "a"
    again.close()


async def test_a_drained_stream_has_no_credit(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_stream, "KEEPALIVE", 0.05)
    stream = Stream(wire, max_in_flight=3)
    assert (await stream.next()).keepalive.credit == 3
    await drain(wire, "w")
    while not is_drained_by_operator(event := await stream.next()):
        assert event.HasField("keepalive")
    assert (await stream.next()).keepalive.credit == 0
    stream.close()


async def test_a_drained_stream_still_ends_when_it_has_waited_enough(wire: Wire) -> None:
    await create(wire, "a")
    await beat(wire, "w")
    await drain(wire, "w")
    request = api.ClaimJobRequest(worker=WorkerIdentity(id="w"), max_jobs=1)
    request.wait_timeout.FromMilliseconds(50)
    events = [event async for event in wire.jobs.ClaimJob(request)]
    assert [is_drained_by_operator(event) for event in events] == [True]
