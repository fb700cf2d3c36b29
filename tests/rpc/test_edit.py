"""Edits over the wire: what may change in which state, and where that puts the job."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.calls import FOREVER, aiter_events, claim_one, complete, create, fail, get, refusal
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import (
    JOB_STATE_CANCELED,
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_PROGRESS,
    JOB_STATE_QUEUED,
    JOB_STATE_SCHEDULED,
    Job,
    Payload,
    RetryPolicy,
)
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.rpc.convert import EDITABLE

ILLEGAL = (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
MISMATCH = (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


def ahead(hours: float) -> Timestamp:
    return Timestamp(seconds=int(time.time() + hours * 3600))


def editing(id: str, *paths: str, etag: str = "", **fields: Any) -> api.UpdateJobRequest:
    edit = api.EditJob(job=Job(**fields), update_mask=FieldMask(paths=paths), etag=etag)
    return api.UpdateJobRequest(job_id=id, edit=edit)


async def edit(wire: Wire, id: str, *paths: str, etag: str = "", **fields: Any) -> Job:
    return (await wire.jobs.UpdateJob(editing(id, *paths, etag=etag, **fields))).job


VALUES: dict[str, Any] = {
    "priority": 2,
    "schedule_time": ahead(1),
    "labels": {"k": "v"},
    "retry_policy": RetryPolicy(
        max_retries=9,
        initial_delay=seconds(2),
        multiplier=3,
        max_delay=seconds(60),
        jitter=0,
        max_interruptions=0,
    ),
    "expire_time": ahead(2),
    "retention": seconds(0),
    "payload": Payload(content_type="t", data=b"new"),
}


# --- fields ---------------------------------------------------------------------------------------------------


def test_every_editable_field_is_tried() -> None:
    assert set(VALUES) == set(EDITABLE)


@pytest.mark.parametrize("path", VALUES)
async def test_a_field_is_set_and_goes_back_to_its_default_and_the_others_stay(wire: Wire, path: str) -> None:
    plain = await create(wire, "plain")
    full = await create(wire, "full", **{**VALUES, "type": "t", "user_id": "u"})

    changed = await edit(wire, "plain", path, **{path: VALUES[path]})
    assert getattr(changed, path) == VALUES[path]
    assert changed == await get(wire, "plain")
    assert int(changed.version) == int(plain.version) + 1
    assert changed.etag != plain.etag

    reset = await edit(wire, "full", path)
    for name in (*VALUES, "type", "user_id", "create_time"):
        expected = plain if name == path else full
        assert getattr(reset, name) == getattr(expected, name), name


async def test_without_a_mask_all_that_is_set_is_changed(wire: Wire) -> None:
    await create(wire, "a", labels={"old": "1"}, payload=Payload(text="p"))
    job = await edit(wire, "a", priority=1, labels={"new": "2"})
    assert (job.priority, dict(job.labels), job.payload.text) == (1, {"new": "2"}, "p")


@pytest.mark.parametrize(
    "request_",
    [
        editing("a"),
        editing("a", "queue", queue="q"),
        editing("a", "id"),
        editing("a", "payload.text", payload=Payload(text="x")),
        editing("a", "*"),
        editing("a", "http"),
        editing("a", queue="q"),
        editing("a", type="t"),
        editing("a", user_id="u"),
        editing("a", execution_timeout=seconds(1)),
        editing("a", "priority", priority=1, labels={"k": "v"}),
        editing("a", priority=11),
        editing("a", expire_time=ahead(1), schedule_time=ahead(2)),
    ],
)
async def test_what_cannot_be_edited_is_refused_and_nothing_changes(wire: Wire, request_: api.UpdateJobRequest) -> None:
    before = await create(wire, "a")
    assert await refusal(wire.jobs.UpdateJob(request_)) == INVALID
    assert await get(wire, "a") == before


async def test_an_edit_needs_no_lease_and_refuses_a_token(wire: Wire) -> None:
    await create(wire, "a")
    assignment = await claim_one(wire)
    request = editing("a", priority=1)
    request.token = assignment.token
    assert await refusal(wire.jobs.UpdateJob(request)) == INVALID
    assert (await edit(wire, "a", priority=1)).priority == 1


async def test_an_edit_of_no_job_finds_none(wire: Wire) -> None:
    refused = await refusal(wire.jobs.UpdateJob(editing("a", priority=1)))
    assert refused == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_a_batch_applies_the_edits_of_one_job_in_their_order(wire: Wire) -> None:
    await create(wire, "a")
    requests = [editing("a", priority=1), editing("a", labels={"k": "v"}), editing("a", priority=3), editing("b")]
    answer = await wire.jobs.BatchUpdateJobs(api.BatchUpdateJobsRequest(requests=requests))
    assert [result.response.job.version for result in answer.results[:3]] == [2, 3, 4]
    assert answer.results[3].error.reason == "INVALID_FIELD"
    edited = await get(wire, "a")
    assert (edited.priority, dict(edited.labels)) == (3, {"k": "v"})


# --- states ---------------------------------------------------------------------------------------------------


async def test_while_a_worker_has_it_all_but_payload_and_schedule_time_may_change(wire: Wire) -> None:
    await create(wire, "a", payload=Payload(text="old"))
    assignment = await claim_one(wire)
    for path, value in VALUES.items():
        request = editing("a", path, **{path: value})
        if path in ("payload", "schedule_time"):
            before = await get(wire, "a")
            assert await refusal(wire.jobs.UpdateJob(request)) == ILLEGAL
            assert await get(wire, "a") == before
        else:
            job = (await wire.jobs.UpdateJob(request)).job
            assert (job.state, getattr(job, path)) == (JOB_STATE_IN_PROGRESS, value)
    # The lease is as good as before, and the new retention of 0 holds: the job goes at its end.
    await wire.jobs.UpdateJob(complete(assignment))
    assert await refusal(get(wire, "a")) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


@pytest.mark.parametrize("state", [JOB_STATE_COMPLETED, JOB_STATE_FAILED, JOB_STATE_CANCELED])
async def test_after_the_end_all_but_the_times_may_change(wire: Wire, state: int) -> None:
    await create(wire, "a", payload=Payload(text="old"))
    if state == JOB_STATE_CANCELED:
        await wire.jobs.CancelJob(api.CancelJobRequest(job_id="a"))
    else:
        assignment = await claim_one(wire)
        settlement = complete(assignment) if state == JOB_STATE_COMPLETED else fail(assignment, permanent=True)
        await wire.jobs.UpdateJob(settlement)
    for path in ("schedule_time", "expire_time"):
        for request in (editing("a", path), editing("a", path, **{path: VALUES[path]})):
            assert await refusal(wire.jobs.UpdateJob(request)) == ILLEGAL
    others = {path: value for path, value in VALUES.items() if path not in ("schedule_time", "expire_time")}
    job = await edit(wire, "a", **{**others, "retention": seconds(3600)})
    assert job.state == state
    # It counts from the end, not from the edit.
    assert job.purge_time.seconds == job.finish_time.seconds + 3600


async def test_a_mended_dead_letter_is_replayed_with_what_it_was_given(wire: Wire) -> None:
    await create(wire, "a", payload=Payload(text="broken"))
    await wire.jobs.UpdateJob(fail(await claim_one(wire), permanent=True))
    await edit(wire, "a", payload=Payload(text="mended"), priority=1)
    await wire.jobs.RetryJob(api.RetryJobRequest(job_id="a"))
    assignment = await claim_one(wire)
    assert (assignment.job.payload.text, assignment.job.priority) == ("mended", 1)


# --- etags ----------------------------------------------------------------------------------------------------


async def test_an_etag_holds_until_the_job_moves_or_is_edited(wire: Wire) -> None:
    etag = (await create(wire, "a")).etag
    etag_2 = (await edit(wire, "a", etag=etag, priority=2)).etag
    assert await refusal(wire.jobs.UpdateJob(editing("a", etag=etag, priority=3))) == MISMATCH
    assert (await get(wire, "a")).priority == 2
    assignment = await claim_one(wire)
    assert await refusal(wire.jobs.UpdateJob(editing("a", etag=etag_2, priority=3))) == MISMATCH
    etag_3 = (await get(wire, "a")).etag
    # An acknowledgment, progress and a cancel request change the version alone.
    await wire.beat("w", assignment)
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="a"))
    assert (await edit(wire, "a", etag=etag_3, priority=4)).priority == 4


async def test_a_mismatch_tells_the_present_etag(wire: Wire) -> None:
    await create(wire, "a")
    requests = [editing("a", etag="no-such", priority=3)]
    [result] = (await wire.jobs.BatchUpdateJobs(api.BatchUpdateJobsRequest(requests=requests))).results
    assert result.error.reason == "ETAG_MISMATCH"
    assert result.error.metadata["etag"] == (await get(wire, "a")).etag


async def test_of_many_edits_with_one_etag_one_is_made(wire: Wire) -> None:
    etag = (await create(wire, "a")).etag
    calls = [wire.jobs.UpdateJob(editing("a", etag=etag, labels={"n": str(i)})) for i in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    [made] = [answer for answer in answers if isinstance(answer, api.UpdateJobResponse)]
    assert await get(wire, "a") == made.job
    refused = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert refused == [grpc.StatusCode.ABORTED] * 19


# --- places ---------------------------------------------------------------------------------------------------


async def test_a_job_edited_to_the_future_leaves_the_queue_and_one_edited_to_the_past_enters_it(wire: Wire) -> None:
    await create(wire, "a")
    await create(wire, "b", schedule_time=ahead(1))
    a = await edit(wire, "a", schedule_time=ahead(1))
    assert a.state == JOB_STATE_SCHEDULED
    b = await edit(wire, "b", schedule_time=Timestamp(seconds=1))
    assert (b.state, b.HasField("queue_time")) == (JOB_STATE_QUEUED, True)
    assert (await claim_one(wire)).job.id == "b"
    # The default of a reset schedule_time is now.
    assert (await edit(wire, "a", "schedule_time")).state == JOB_STATE_QUEUED
    assert (await claim_one(wire)).job.id == "a"


async def test_a_job_edited_to_now_comes_to_a_waiting_stream(wire: Wire) -> None:
    await create(wire, "a", schedule_time=ahead(1))
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    await stream.initial_metadata()
    waiting = asyncio.ensure_future(anext(aiter_events(stream)))
    await edit(wire, "a", "schedule_time")
    async with asyncio.timeout(FOREVER):
        assert (await waiting).jobs.assignments[0].job.id == "a"


async def test_an_edited_priority_changes_the_order_of_those_that_wait(wire: Wire) -> None:
    for id in "abc":
        await create(wire, id)
    await edit(wire, "c", priority=1)
    await edit(wire, "a", priority=10)
    assert [(await claim_one(wire)).job.id for _ in "abc"] == ["c", "b", "a"]


async def test_a_priority_edited_while_scheduled_counts_once_it_is_queued(wire: Wire) -> None:
    await create(wire, "a")
    await create(wire, "b", schedule_time=ahead(1))
    await edit(wire, "b", priority=1)
    await edit(wire, "b", "schedule_time")
    assert [(await claim_one(wire)).job.id for _ in "ab"] == ["b", "a"]
