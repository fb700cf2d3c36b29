"""The promises of a job's life, through a real server over a port: what a caller in any language can rely on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import (
    ATTEMPT_OUTCOME_FAILED,
    JOB_STATE_CANCELED,
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_PROGRESS,
    JOB_STATE_QUEUED,
    JOB_STATE_SCHEDULED,
    Job,
    JobError,
    Payload,
    RetryPolicy,
)
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.domain.job import NewJob

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


# --- settlements ------------------------------------------------------------------------------------------------------


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


# --- creates ----------------------------------------------------------------------------------------------------------


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


# --- claims -----------------------------------------------------------------------------------------------------------


async def test_fifty_claimers_take_each_of_a_thousand_jobs_once_and_none_exceeds_its_credit(wire: Wire) -> None:
    jobs, claimers, credit = 1000, 50, 7
    for start in range(0, jobs, 500):
        await wire.jobs.BatchCreateJobs(
            api.BatchCreateJobsRequest(
                requests=[api.CreateJobRequest(job=Job(id=f"job-{i}")) for i in range(start, start + 500)]
            )
        )
    taken: Counter[str] = Counter()
    done = asyncio.Event()

    async def claimer(name: str) -> None:
        held: set[str] = set()

        async def settle(assignments: list[api.Assignment]) -> None:
            answer = await wire.jobs.BatchUpdateJobs(
                api.BatchUpdateJobsRequest(requests=[complete(a) for a in assignments])
            )
            assert all(result.HasField("response") for result in answer.results)

        request = api.ClaimJobRequest(worker=WorkerIdentity(id=name), max_in_flight=credit)
        async for event in wire.jobs.ClaimJob(request):
            assignments = list(event.jobs.assignments)
            held.update(a.job.id for a in assignments)
            taken.update(a.job.id for a in assignments)
            assert len(held) <= credit
            if taken.total() >= jobs:
                done.set()
            # From here on the server may count them as settled, so what is held is known only to be less.
            held.difference_update(a.job.id for a in assignments)
            await settle(assignments)

    async with asyncio.timeout(60):
        tasks = [asyncio.create_task(claimer(f"w{i}")) for i in range(claimers)]
        all_taken = asyncio.create_task(done.wait())
        await asyncio.wait([all_taken, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in (all_taken, *tasks):
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [error for error in ended if not isinstance(error, asyncio.CancelledError)]
    assert taken == Counter({f"job-{i}": 1 for i in range(jobs)})


async def test_a_worker_that_settles_nothing_is_given_its_credit_and_no_more(wire: Wire) -> None:
    for i in range(10):
        await create(wire, f"job-{i}")
    worker = WorkerIdentity(id="greedy")
    held: list[api.Assignment] = []
    request = api.ClaimJobRequest(worker=worker, max_in_flight=3, delivery_timeout=seconds(0))
    stream = wire.jobs.ClaimJob(request)
    events = aiter_events(stream)
    async with asyncio.timeout(FOREVER):
        while len(held) < 3:
            held += (await anext(events)).jobs.assignments
        # A second stream of the same worker id finds the credit used up although it has never been handed a job.
        second = wire.jobs.ClaimJob(
            api.ClaimJobRequest(worker=worker, max_in_flight=3, max_jobs=1, wait_timeout=seconds(0.5))
        )
        assert [event async for event in second] == []
        await wire.jobs.UpdateJob(complete(held[0]))
        third = wire.jobs.ClaimJob(
            api.ClaimJobRequest(worker=worker, max_in_flight=3, max_jobs=1, wait_timeout=seconds(FOREVER))
        )
        assert [len(event.jobs.assignments) async for event in third] == [1]
    assert len({a.job.id for a in held}) == 3


def aiter_events(
    stream: grpc.aio.UnaryStreamCall[api.ClaimJobRequest, api.ClaimJobResponse],
) -> AsyncIterator[api.ClaimJobResponse]:
    return stream.__aiter__()


async def test_a_worker_that_vanishes_before_its_first_beat_costs_its_job_nothing(wire: Wire) -> None:
    await create(wire, "a")
    before = await get(wire, "a")
    stream = wire.jobs.ClaimJob(
        api.ClaimJobRequest(worker=WorkerIdentity(id="gone"), delivery_timeout=seconds(60), lease_duration=seconds(60))
    )
    first = await anext(aiter_events(stream))
    assert first.jobs.assignments[0].job.id == "a"
    stream.cancel()
    # A minute would pass before the delivery's deadline: it comes back because the peer has gone.
    async with asyncio.timeout(1):
        second = await claim_one(wire, worker="next")
    assert second.job.id == "a"
    assert second.job.attempt == 1
    assert second.job.queue_time == before.queue_time
    assert (second.job.retry_count, second.job.interruption_count) == (0, 0)
    assert second.fence > first.jobs.assignments[0].fence


async def test_an_acknowledged_job_stays_with_its_worker_when_the_stream_breaks(wire: Wire) -> None:
    await create(wire, "a")
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    first = (await anext(aiter_events(stream))).jobs.assignments[0]
    await wire.beat("w", first)
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await anext(aiter_events(stream))
    other = wire.jobs.ClaimJob(
        api.ClaimJobRequest(worker=WorkerIdentity(id="other"), max_jobs=1, wait_timeout=seconds(0.3))
    )
    assert [event async for event in other] == []
    assert (await wire.jobs.UpdateJob(complete(first))).job.state == JOB_STATE_COMPLETED


async def test_a_newer_stream_of_a_worker_ends_the_older_one(wire: Wire) -> None:
    older = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=1)))
    await older.initial_metadata()
    newer = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=2)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter_events(older))
    assert caught.value.code() == grpc.StatusCode.ABORTED
    assert dict(caught.value.trailing_metadata() or ())["jobwire-reason"] == "SUPERSEDED"
    late = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w", session=1)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter_events(late))
    assert caught.value.code() == grpc.StatusCode.ABORTED
    await create(wire, "a")
    assert (await anext(aiter_events(newer))).jobs.assignments[0].job.id == "a"


async def test_a_waiting_stream_is_told_of_a_new_job(wire: Wire) -> None:
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    await stream.initial_metadata()
    waiting = asyncio.ensure_future(anext(aiter_events(stream)))
    await create(wire, "a")
    async with asyncio.timeout(FOREVER):
        assert (await waiting).jobs.assignments[0].job.id == "a"


async def test_a_silent_worker_gets_nothing_until_it_beats(wire: Wire) -> None:
    await create(wire, "a")
    await create(wire, "b")
    stream = wire.jobs.ClaimJob(
        api.ClaimJobRequest(worker=WorkerIdentity(id="w"), max_in_flight=1, delivery_timeout=seconds(0.2))
    )
    events = aiter_events(stream)
    async with asyncio.timeout(FOREVER):
        first = (await anext(events)).jobs.assignments[0]
        lost = await anext(events)
        assert (lost.lost.job_id, lost.lost.fence) == (first.job.id, first.fence)
        waiting = asyncio.ensure_future(anext(events))
        other = await claim_one(wire, worker="other")
        assert other.job.id == first.job.id, "it went back to its old place"
        assert not waiting.done()
        await wire.workers.Heartbeat(worker_api.HeartbeatRequest(worker=WorkerIdentity(id="w")))
        assert (await waiting).jobs.assignments[0].job.id == "b"


# --- cancel, failures, recovery ---------------------------------------------------------------------------------------


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
