"""Settlements over the wire: whose they are, and what becomes of a repeat."""

from __future__ import annotations

import grpc
import pytest
from tests.rpc.calls import claim_one, complete, create, fail, get, refusal, release
from tests.rpc.conftest import Wire

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import (
    JOB_STATE_COMPLETED,
    JOB_STATE_IN_PROGRESS,
    JOB_STATE_QUEUED,
    Payload,
)


async def test_a_claimed_job_is_the_job_that_was_created(wire: Wire) -> None:
    created = await create(wire, "a", type="t", user_id="u", labels={"k": "v"}, payload=Payload(text="p"), priority=3)
    assignment = await claim_one(wire, worker="me")
    claimed, read = assignment.job, await get(wire, "a")
    assert claimed == read
    for field in ("id", "queue", "type", "user_id", "labels", "payload", "priority", "create_time", "queue_time"):
        assert getattr(claimed, field) == getattr(created, field), field
    assert claimed.state == JOB_STATE_IN_PROGRESS
    assert claimed.lease.worker_id == "me"
    assert claimed.attempt == 1
    assert assignment.fence == claimed.fence > 0


@pytest.mark.parametrize("settle", [complete, fail, release])
async def test_a_stale_token_changes_nothing(wire: Wire, settle: object) -> None:
    await create(wire, "a")
    first = await claim_one(wire)
    await wire.jobs.UpdateJob(release(first))
    second = await claim_one(wire)
    stranger = api.Assignment(job=second.job, token="0" * 32)
    before = await get(wire, "a")
    refused = await refusal(wire.jobs.UpdateJob(settle(stranger)))  # type: ignore[operator]  # one of the three above
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
    if settle is not release:
        refused = await refusal(wire.jobs.UpdateJob(settle(first)))  # type: ignore[operator]  # as above
        assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "ALREADY_SETTLED")
    assert await get(wire, "a") == before
    answer = await wire.jobs.UpdateJob(complete(second))
    assert answer.job.state == JOB_STATE_COMPLETED


async def test_a_settlement_without_a_token_is_refused(wire: Wire) -> None:
    await create(wire, "a")
    assignment = await claim_one(wire)
    assignment.token = ""
    assert await refusal(wire.jobs.UpdateJob(complete(assignment))) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LEASE_REQUIRED",
    )


async def test_a_repeated_settlement_is_ok_after_the_job_was_claimed_again(wire: Wire) -> None:
    await create(wire, "a")
    first = await claim_one(wire)
    assert not (await wire.jobs.UpdateJob(release(first))).already_applied
    second = await claim_one(wire, worker="other")
    before = await get(wire, "a")
    assert (await wire.jobs.UpdateJob(release(first))).already_applied
    assert await get(wire, "a") == before
    assert (await wire.jobs.UpdateJob(complete(second))).job.state == JOB_STATE_COMPLETED


async def test_a_repeated_settlement_is_ok_after_the_job_was_replayed(wire: Wire) -> None:
    await create(wire, "a")
    first = await claim_one(wire)
    await wire.jobs.UpdateJob(complete(first))
    await wire.jobs.RetryJob(api.RetryJobRequest(job_id="a"))
    assert (await wire.jobs.UpdateJob(complete(first))).already_applied
    assert (await get(wire, "a")).state == JOB_STATE_QUEUED
    second = await claim_one(wire)
    assert (await wire.jobs.UpdateJob(complete(first))).already_applied
    await wire.jobs.UpdateJob(complete(second, "again"))
    job = await get(wire, "a")
    assert job.result.text == "again"
    assert [attempt.number for attempt in job.attempts] == [1, 2]


async def test_a_repeated_failure_spends_one_retry(wire: Wire) -> None:
    await create(wire, "a")
    assignment = await claim_one(wire)
    await wire.jobs.UpdateJob(fail(assignment))
    assert (await wire.jobs.UpdateJob(fail(assignment))).already_applied
    assert (await get(wire, "a")).retry_count == 1


async def test_a_batch_judges_each_change_by_itself_and_one_jobs_changes_in_order(wire: Wire) -> None:
    await create(wire, "a")
    await create(wire, "b")
    first, second = await claim_one(wire), await claim_one(wire)
    unknown = api.UpdateJobRequest(job_id="nobody", token="0" * 32, complete=api.CompleteJob())
    answer = await wire.jobs.BatchUpdateJobs(
        api.BatchUpdateJobsRequest(requests=[complete(first), unknown, complete(second), fail(first), complete(first)])
    )
    one, two, three, four, five = answer.results
    assert one.response.job.state == three.response.job.state == JOB_STATE_COMPLETED
    assert two.error.reason == "JOB_NOT_FOUND"
    assert four.error.reason == "ALREADY_SETTLED"
    assert five.response.already_applied
