"""DeleteJob over the wire: the job goes, wherever it stands, and whoever had it hears of it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.calls import FOREVER, aiter_events, claim_one, complete, create, fail, get, refusal
from tests.rpc.conftest import Wire

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import Job
from jobwire.v1.worker_pb2 import WorkerIdentity

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def delete(wire: Wire, id: str, *, force: bool = False, etag: str = "") -> None:
    await wire.jobs.DeleteJob(api.DeleteJobRequest(job_id=id, force=force, etag=etag))


@pytest.mark.parametrize("state", ["scheduled", "queued", "completed", "failed", "canceled"])
async def test_a_job_that_nobody_has_goes_at_once_and_a_repeat_finds_none(wire: Wire, state: str) -> None:
    later = Timestamp(seconds=4_000_000_000)
    await (create(wire, "a", schedule_time=later) if state == "scheduled" else create(wire, "a"))
    match state:
        case "completed":
            await wire.jobs.UpdateJob(complete(await claim_one(wire)))
        case "failed":
            await wire.jobs.UpdateJob(fail(await claim_one(wire), permanent=True))
        case "canceled":
            await wire.jobs.CancelJob(api.CancelJobRequest(job_id="a"))
    await delete(wire, "a")
    assert await refusal(get(wire, "a")) == NOT_FOUND
    assert await refusal(delete(wire, "a")) == NOT_FOUND
    assert not (await wire.jobs.ListJobs(api.ListJobsRequest())).jobs
    assert (await wire.jobs.CountJobs(api.CountJobsRequest())).total == 0


async def test_a_running_job_is_deleted_by_force_alone_and_its_worker_is_told(wire: Wire) -> None:
    await create(wire, "a")
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    events = aiter_events(stream)
    async with asyncio.timeout(FOREVER):
        assignment = (await anext(events)).jobs.assignments[0]
        await wire.beat("w", assignment)
        refused = await refusal(delete(wire, "a"))
        assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
        assert (await get(wire, "a")).lease.worker_id == "w"
        await delete(wire, "a", force=True)
        lost = (await anext(events)).lost
        assert (lost.job_id, lost.fence) == ("a", assignment.fence)
        assert await wire.beat("w", assignment) == worker_api.LEASE_STATE_LOST
        assert await refusal(wire.jobs.UpdateJob(complete(assignment))) == NOT_FOUND
        # Its credit, of one, is free again.
        await create(wire, "b")
        assert (await anext(events)).jobs.assignments[0].job.id == "b"


async def test_an_etag_of_before_deletes_nothing(wire: Wire) -> None:
    etag = (await create(wire, "a")).etag
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="a"))
    refused = await refusal(delete(wire, "a", etag=etag))
    assert refused == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    await delete(wire, "a", etag=(await get(wire, "a")).etag)


async def test_an_etag_of_an_earlier_life_of_the_id_changes_nothing(wire: Wire) -> None:
    old = await create(wire, "a")
    await delete(wire, "a")
    new = await create(wire, "a")
    assert new.version == old.version
    edit = api.EditJob(job=Job(priority=1), etag=old.etag)
    for late in (
        wire.jobs.UpdateJob(api.UpdateJobRequest(job_id="a", edit=edit)),
        wire.jobs.CancelJob(api.CancelJobRequest(job_id="a", etag=old.etag)),
        delete(wire, "a", etag=old.etag),
    ):
        assert await refusal(late) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert (await get(wire, "a")).etag == new.etag


async def test_an_id_is_free_again_and_a_request_id_stays_remembered(wire: Wire) -> None:
    by_id = api.CreateJobRequest(job=Job(id="a"))
    assert (await wire.jobs.CreateJob(by_id)).created
    await delete(wire, "a")
    assert (await wire.jobs.CreateJob(by_id)).created
    by_request = api.CreateJobRequest(request_id="r")
    made = await wire.jobs.CreateJob(by_request)
    await delete(wire, made.job.id)
    again = await wire.jobs.CreateJob(by_request)
    assert not again.created
    assert again.job == Job(id=made.job.id), "gone, so only its id is told"


async def test_the_fence_of_a_job_made_anew_is_higher(wire: Wire) -> None:
    await create(wire, "a")
    first = await claim_one(wire)
    await delete(wire, "a", force=True)
    await create(wire, "a")
    second = await claim_one(wire)
    assert second.fence > first.fence
    refused = await refusal(wire.jobs.UpdateJob(complete(first)))
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")


async def test_a_deletion_of_what_cannot_be_an_id_is_refused(wire: Wire) -> None:
    for request in (api.DeleteJobRequest(), api.DeleteJobRequest(job_id="a", etag="<>")):
        refused = await refusal(wire.jobs.DeleteJob(request))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
