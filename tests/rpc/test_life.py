"""The rest of a job's life over the wire: cancels, failures, recovery."""

from __future__ import annotations

import asyncio
import time

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.calls import FOREVER, aiter_events, claim_one, complete, create, fail, get, refusal, release
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import (
    ATTEMPT_OUTCOME_FAILED,
    JOB_STATE_CANCELED,
    JOB_STATE_COMPLETED,
    JOB_STATE_EXPIRED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_PROGRESS,
    JOB_STATE_QUEUED,
    Job,
    RetryPolicy,
)
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.domain.job import NewJob


async def test_a_cancel_reaches_the_worker_and_its_next_exit_ends_the_job_canceled(wire: Wire) -> None:
    await create(wire, "a")
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    events = aiter_events(stream)
    assignment = (await anext(events)).jobs.assignments[0]
    await wire.beat("w", assignment)
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="a", reason="changed my mind"))
    async with asyncio.timeout(FOREVER):
        notice = (await anext(events)).cancel
    assert (notice.job_id, notice.fence, notice.reason) == ("a", assignment.fence, "changed my mind")
    beaten = await wire.beat("w", assignment)
    assert beaten == worker_api.LEASE_STATE_CANCEL_REQUESTED
    await wire.jobs.UpdateJob(fail(assignment))
    job = await get(wire, "a")
    assert (job.state, job.retry_count) == (JOB_STATE_CANCELED, 0)


async def test_a_cancel_that_races_with_a_failure_ends_canceled(wire: Wire) -> None:
    """Whichever comes first: a failure that was decided before the cancel came is decided again."""
    for i in range(30):
        await create(wire, f"a{i}")
        assignment = await claim_one(wire)
        cancel = wire.jobs.CancelJob(api.CancelJobRequest(job_id=assignment.job.id))
        failure = wire.jobs.UpdateJob(fail(assignment, delay=3600))
        await (asyncio.gather(cancel, failure) if i % 2 else asyncio.gather(failure, cancel))
        assert (await get(wire, assignment.job.id)).state == JOB_STATE_CANCELED


async def test_a_complete_that_comes_first_wins_over_a_cancel(wire: Wire) -> None:
    await create(wire, "a")
    assignment = await claim_one(wire)
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="a"))
    assert (await wire.jobs.UpdateJob(complete(assignment))).job.state == JOB_STATE_COMPLETED


async def test_a_cancel_unheeded_ends_the_job_when_its_grace_has_passed(wire: Wire) -> None:
    await create(wire, "a")
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    events = aiter_events(stream)
    assignment = (await anext(events)).jobs.assignments[0]
    await wire.beat("w", assignment)
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="a", grace=seconds(0.1)))
    async with asyncio.timeout(FOREVER):
        assert (await anext(events)).HasField("cancel")
        assert (await anext(events)).lost.job_id == "a"
    assert (await get(wire, "a")).state == JOB_STATE_CANCELED
    refused = await refusal(wire.jobs.UpdateJob(complete(assignment)))
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")


async def test_failures_are_retried_until_the_budget_is_used_up(wire: Wire) -> None:
    policy = RetryPolicy(max_retries=1, initial_delay=Duration(nanos=1_000_000), jitter=0)
    await create(wire, "a", retry_policy=policy)
    await wire.jobs.UpdateJob(fail(await claim_one(wire)))
    await wire.jobs.UpdateJob(fail(await claim_one(wire)))
    job = await get(wire, "a")
    assert (job.state, job.retry_count, job.error.code) == (JOB_STATE_FAILED, 1, "Oops")
    assert [attempt.outcome for attempt in job.attempts] == [ATTEMPT_OUTCOME_FAILED] * 2
    replayed = (await wire.jobs.RetryJob(api.RetryJobRequest(job_id="a"))).job
    assert (replayed.state, replayed.retry_count, replayed.attempt) == (JOB_STATE_QUEUED, 0, 2)


async def test_a_job_that_nobody_started_in_time_expires_and_a_replay_gives_it_all_the_time(wire: Wire) -> None:
    soon = Timestamp()
    soon.FromNanoseconds(time.time_ns() + 300_000_000)
    await create(wire, "a", expire_time=soon)
    async with asyncio.timeout(FOREVER):
        while (job := await get(wire, "a")).state == JOB_STATE_QUEUED:
            pass  # maintenance sweeps about five times a second
    assert (job.state, job.HasField("finish_time"), job.HasField("start_time")) == (JOB_STATE_EXPIRED, True, False)
    replayed = (await wire.jobs.RetryJob(api.RetryJobRequest(job_id="a"))).job
    assert (replayed.state, replayed.HasField("expire_time")) == (JOB_STATE_QUEUED, False)
    assert (await claim_one(wire)).job.id == "a"


async def expire_before_now(wire: Wire, id: str) -> None:
    edit = api.EditJob(job=Job(expire_time=Timestamp(seconds=1)))
    await wire.jobs.UpdateJob(api.UpdateJobRequest(job_id=id, edit=edit))


async def test_a_job_that_has_expired_is_never_handed_out(wire: Wire) -> None:
    await create(wire, "late", priority=1)
    await create(wire, "next")
    await expire_before_now(wire, "late")
    assert (await claim_one(wire)).job.id == "next"


async def test_a_job_that_was_started_does_not_expire_any_more(wire: Wire) -> None:
    await create(wire, "started")
    assignment = await claim_one(wire)
    await create(wire, "waiting")
    for id in ("started", "waiting"):
        await expire_before_now(wire, id)
    await wire.jobs.UpdateJob(release(assignment))
    async with asyncio.timeout(FOREVER):
        while (await get(wire, "waiting")).state != JOB_STATE_EXPIRED:
            pass  # the same sweep would take the other
    assert (await get(wire, "started")).state == JOB_STATE_QUEUED
    assert (await claim_one(wire)).job.id == "started"


async def test_a_job_that_would_expire_before_it_is_due_is_refused(wire: Wire) -> None:
    later = Timestamp(seconds=4_000_000_000)
    for job in (Job(expire_time=Timestamp(seconds=1)), Job(schedule_time=later, expire_time=later)):
        refused = await refusal(wire.jobs.CreateJob(api.CreateJobRequest(job=job)))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_permanent_failure_is_not_retried(wire: Wire) -> None:
    await create(wire, "a")
    await wire.jobs.UpdateJob(fail(await claim_one(wire), permanent=True))
    assert (await get(wire, "a")).state == JOB_STATE_FAILED


async def test_recovery_takes_a_stuck_job_back_and_clears_its_worker(wire: Wire) -> None:
    await create(wire, "a")
    stuck = await claim_one(wire)
    nothing = await wire.jobs.RecoverStuckJobs(api.RecoverStuckJobsRequest())
    assert not nothing.requeued_ids, "its deadline is ahead"
    request = api.RecoverStuckJobsRequest(stuck_for=seconds(1), validate_only=True)
    async with asyncio.timeout(FOREVER):
        while not (found := await wire.jobs.RecoverStuckJobs(request)).requeued_ids:
            pass  # it has been held for less than that
    assert list(found.requeued_ids) == ["a"]
    assert (await get(wire, "a")).state == JOB_STATE_IN_PROGRESS
    request.validate_only = False
    assert list((await wire.jobs.RecoverStuckJobs(request)).requeued_ids) == ["a"]
    job = await get(wire, "a")
    assert (job.state, job.interruption_count, job.lease.worker_id) == (JOB_STATE_QUEUED, 1, "")
    refused = await refusal(wire.jobs.UpdateJob(complete(stuck)))
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")


async def test_a_dead_workers_job_runs_again_and_costs_an_interruption_not_a_retry(wire: Wire) -> None:
    await create(wire, "a")
    dead = await claim_one(wire, worker="dead", lease=1)
    async with asyncio.timeout(FOREVER):
        again = await claim_one(wire, worker="next")
    assert again.job.id == "a"
    assert again.fence > dead.fence
    assert (again.job.attempt, again.job.interruption_count, again.job.retry_count) == (2, 1, 0)


async def test_a_job_whose_record_cannot_be_read_is_set_aside_and_its_queue_keeps_moving(wire: Wire) -> None:
    await wire.app.store.create([NewJob(id="bad", submission=b"\xff\xff no protobuf")])
    await create(wire, "good")
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w"), max_in_flight=10))
    taken: list[str] = []
    async with asyncio.timeout(FOREVER):
        events = aiter_events(stream)
        while "good" not in taken:
            taken += [assignment.job.id for assignment in (await anext(events)).jobs.assignments]
    assert taken == ["good"]
    bad = await get(wire, "bad")
    assert (bad.state, bad.error.code) == (JOB_STATE_FAILED, "CORRUPT_JOB")
