"""What tests of a running server ask of it, in a word each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import Job, JobError, JobFilter, Payload
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.domain.limits import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


FOREVER = 20.0
"""Seconds after which something that was promised has failed to come; nothing here takes that long."""


async def claim_one(
    wire: Wire, *, worker: str = "w", delivery: float | None = None, lease: float = 30
) -> api.Assignment:
    """Claims one job over a stream that then ends by itself."""
    request = api.ClaimJobRequest(
        worker=WorkerIdentity(id=worker),
        max_jobs=1,
        max_in_flight=100,
        lease_duration=seconds(lease),
        wait_timeout=seconds(FOREVER),
    )
    if delivery is not None:
        request.delivery_timeout.CopyFrom(seconds(delivery))
    async for event in wire.jobs.ClaimJob(request):
        if event.HasField("jobs"):
            [assignment] = event.jobs.assignments
            return assignment
    raise AssertionError("the stream ended without a job")


async def create(wire: Wire, id: str, **fields: object) -> Job:
    return (await wire.jobs.CreateJob(api.CreateJobRequest(job=Job(id=id, **fields)))).job  # type: ignore[arg-type]  # fields of Job


async def get(wire: Wire, id: str) -> Job:
    return (await wire.jobs.GetJob(api.GetJobRequest(job_id=id))).job


def complete(assignment: api.Assignment, text: str = "done") -> api.UpdateJobRequest:
    return api.UpdateJobRequest(
        job_id=assignment.job.id, token=assignment.token, complete=api.CompleteJob(result=Payload(text=text))
    )


def fail(assignment: api.Assignment, *, permanent: bool = False, delay: float | None = None) -> api.UpdateJobRequest:
    change = api.FailJob(error=JobError(code="Oops", message="no"), permanent=permanent)
    if delay is not None:
        change.retry_delay.CopyFrom(seconds(delay))
    return api.UpdateJobRequest(job_id=assignment.job.id, token=assignment.token, fail=change)


def release(assignment: api.Assignment) -> api.UpdateJobRequest:
    return api.UpdateJobRequest(job_id=assignment.job.id, token=assignment.token, release=api.ReleaseJob())


async def refusal(call: object) -> tuple[grpc.StatusCode, str]:
    """Status code and reason of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # any unary call
    trailers = dict(caught.value.trailing_metadata() or ())
    return caught.value.code(), str(trailers.get("jobwire-reason"))


def aiter_events(
    stream: grpc.aio.UnaryStreamCall[api.ClaimJobRequest, api.ClaimJobResponse],
) -> AsyncIterator[api.ClaimJobResponse]:
    return stream.__aiter__()


async def create_many(wire: Wire, *jobs: Job) -> None:
    for i in range(0, len(jobs), 500):
        requests = [api.CreateJobRequest(job=job) for job in jobs[i : i + 500]]
        answer = await wire.jobs.BatchCreateJobs(api.BatchCreateJobsRequest(requests=requests))
        assert all(result.response.created for result in answer.results)


async def pages(wire: Wire, wanted: JobFilter, *, size: int = 0) -> list[list[Job]]:
    """Every page to the end of the listing."""
    request = api.ListJobsRequest(filter=wanted, page_size=size)
    found = []
    async with asyncio.timeout(FOREVER):
        while True:
            page = await wire.jobs.ListJobs(request)
            assert page.ByteSize() <= Limits().send
            found.append(list(page.jobs))
            if not page.next_page_token:
                return found
            assert page.next_page_token != request.page_token
            request.page_token = page.next_page_token


async def listed(wire: Wire, size: int = 0, **wanted: Any) -> list[str]:
    """The ids of all pages."""
    return [job.id for page in await pages(wire, JobFilter(**wanted), size=size) for job in page]


async def counted(wire: Wire, **wanted: Any) -> dict[int, int]:
    answer = await wire.jobs.CountJobs(api.CountJobsRequest(filter=JobFilter(**wanted)))
    states = [count.state for count in answer.counts]
    assert states == sorted(set(states))
    assert answer.total == sum(count.count for count in answer.counts)
    return {count.state: count.count for count in answer.counts}
