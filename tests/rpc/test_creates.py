"""Creates over the wire: the same request twice makes one job."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
from tests.rpc.calls import FOREVER, claim_one, get, refusal
from tests.rpc.conftest import Wire

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import (
    JOB_STATE_SCHEDULED,
    Job,
    Payload,
)


async def test_a_create_repeated_by_id_answers_the_stored_job(wire: Wire) -> None:
    request = api.CreateJobRequest(job=Job(id="a", payload=Payload(text="x")))
    first, second = await wire.jobs.CreateJob(request), await wire.jobs.CreateJob(request)
    assert (first.created, second.created) == (True, False)
    assert first.job == second.job
    request.job.payload.text = "y"
    assert await refusal(wire.jobs.CreateJob(request)) == (grpc.StatusCode.ALREADY_EXISTS, "JOB_EXISTS")


async def test_a_create_repeated_by_request_id_answers_the_stored_job(wire: Wire) -> None:
    request = api.CreateJobRequest(job=Job(payload=Payload(text="x")), request_id="r")
    first, second = await wire.jobs.CreateJob(request), await wire.jobs.CreateJob(request)
    assert (first.created, second.created) == (True, False)
    assert first.job.id == second.job.id
    request.job.payload.text = "y"
    assert await refusal(wire.jobs.CreateJob(request)) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_of_many_creates_of_one_id_at_once_one_creates(wire: Wire) -> None:
    request = api.CreateJobRequest(job=Job(id="a"))
    answers = await asyncio.gather(*(wire.jobs.CreateJob(request) for _ in range(50)))
    assert Counter(answer.created for answer in answers) == {True: 1, False: 49}
    await claim_one(wire)
    assert (await get(wire, "a")).attempt == 1


async def test_a_scheduled_job_is_not_claimed_before_its_time(wire: Wire) -> None:
    """One of the seed's bugs: dates compared as numbers, so that a delay counted for nothing."""
    later = Job(id="later")
    later.schedule_time.GetCurrentTime()
    later.schedule_time.seconds += 1
    created = await wire.jobs.CreateJob(api.CreateJobRequest(job=later))
    assert created.job.state == JOB_STATE_SCHEDULED
    async with asyncio.timeout(FOREVER):
        assignment = await claim_one(wire)
    assert assignment.job.id == "later"
    assert assignment.job.lease.expire_time.ToMicroseconds() - 30_000_000 >= later.schedule_time.ToMicroseconds()
