"""Limits that are set: what fits into the highest of them goes all the way, on each engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import grpc
import pytest
from tests.rpc.conftest import Wire
from tests.rpc.standins import failure, reason

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.admin_service_pb2 import GetServerInfoRequest
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED, Job, Payload
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.app import App
from jobwire_server.config import Config, read_limits

SIZE: Final = 768 * 1024


@pytest.fixture
async def wire(store_url: str) -> AsyncIterator[Wire]:
    limits = read_limits(f"max_payload_bytes={SIZE}, max_labels=1")
    app = App(Config(store=store_url, listen="127.0.0.1:0", http="off", drain_timeout=1, limits=limits))
    address = await app.start()
    async with grpc.aio.insecure_channel(address) as channel:  # which takes 4 MiB, as plain stubs do
        yield Wire(app, address, channel)
    await app.stop()


async def test_the_largest_job_there_can_be_is_created_claimed_completed_and_read(wire: Wire) -> None:
    body = Payload(data=bytes(range(256)) * (SIZE // 256))
    await wire.jobs.BatchCreateJobs(
        api.BatchCreateJobsRequest(requests=[api.CreateJobRequest(job=Job(id=id, payload=body)) for id in "abc"])
    )
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w"), max_in_flight=3, max_jobs=3))
    held = [assignment async for message in stream for assignment in message.jobs.assignments]
    assert [each.job.payload for each in held] == [body] * 3
    for each in held:
        done = api.CompleteJob(result=body)
        await wire.jobs.UpdateJob(api.UpdateJobRequest(job_id=each.job.id, token=each.token, complete=done))
    job = (await wire.jobs.GetJob(api.GetJobRequest(job_id="b"))).job
    assert (job.state, job.payload, job.result) == (JOB_STATE_COMPLETED, body, body)
    limits = (await wire.admin.GetServerInfo(GetServerInfoRequest())).limits
    assert job.ByteSize() <= limits.max_job_bytes <= limits.max_send_bytes
    several = await wire.jobs.BatchGetJobs(api.BatchGetJobsRequest(job_ids=list("abc")))
    assert {each.id for each in several.jobs} < set("abc"), "three of them are more than a message"


async def test_what_is_above_a_limit_is_refused_with_it(wire: Wire) -> None:
    limits = (await wire.admin.GetServerInfo(GetServerInfoRequest())).limits
    assert (limits.max_payload_bytes, limits.max_result_bytes, limits.max_labels) == (SIZE, SIZE, 1)
    for job in (Job(payload=Payload(data=b"x" * (SIZE + 1))), Job(labels={"a": "", "b": ""})):
        assert reason(await failure(wire.jobs.CreateJob(api.CreateJobRequest(job=job)))) == "TOO_LARGE"
