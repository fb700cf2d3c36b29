"""CancelJobs, RetryJobs, DeleteJobs and PurgeQueue over the wire: a bounded stretch of all that match, a call."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.calls import (
    FOREVER,
    aiter_events,
    claim_one,
    complete,
    counted,
    create,
    create_many,
    fail,
    get,
    listed,
    refusal,
)
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import queue_service_pb2 as queue_api
from jobwire.v1.job_pb2 import (
    JOB_STATE_CANCELED,
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_PROGRESS,
    JOB_STATE_QUEUED,
    JOB_STATE_SCHEDULED,
    Job,
    JobFilter,
)
from jobwire.v1.worker_pb2 import WorkerIdentity

LATER = Timestamp(seconds=4_000_000_000)
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")

Answer: TypeAlias = api.CancelJobsResponse | api.RetryJobsResponse | api.DeleteJobsResponse

VERBS: dict[str, Any] = {
    "CancelJobs": api.CancelJobsRequest,
    "RetryJobs": api.RetryJobsRequest,
    "DeleteJobs": api.DeleteJobsRequest,
}


async def call(wire: Wire, verb: str, wanted: JobFilter | None = None, **fields: Any) -> Answer:
    answer: Answer = await getattr(wire.jobs, verb)(VERBS[verb](filter=wanted, **fields))
    assert answer.more == bool(answer.next_page_token)
    return answer


async def to_the_end(wire: Wire, verb: str, wanted: JobFilter, **fields: Any) -> list[int]:
    """What each call of a row changed."""
    counts = []
    token = ""
    async with asyncio.timeout(FOREVER):
        while True:
            answer = await call(wire, verb, wanted, page_token=token, **fields)
            counts.append(answer.changed_count)
            if not answer.more:
                return counts
            token = answer.next_page_token


async def one_of_each(wire: Wire) -> None:
    """`scheduled`, `running`, `completed`, `failed`, `canceled`, `queued`: by their ids."""
    await create(wire, "scheduled", schedule_time=LATER)
    for id in ("completed", "failed", "running"):
        await create(wire, id)
    await wire.jobs.UpdateJob(complete(await claim_one(wire)))
    await wire.jobs.UpdateJob(fail(await claim_one(wire), permanent=True))
    await claim_one(wire)
    for id in ("canceled", "queued"):
        await create(wire, id)
    await wire.jobs.CancelJob(api.CancelJobRequest(job_id="canceled"))
    assert await counted(wire) == dict.fromkeys(
        [
            JOB_STATE_SCHEDULED,
            JOB_STATE_QUEUED,
            JOB_STATE_IN_PROGRESS,
            JOB_STATE_COMPLETED,
            JOB_STATE_FAILED,
            JOB_STATE_CANCELED,
        ],
        1,
    )


DEFAULT = JobFilter(queues=["default"])


# --- what each verb acts on -----------------------------------------------------------------------------------


async def test_cancel_ends_what_waits_asks_what_runs_and_counts_each_once(wire: Wire) -> None:
    await one_of_each(wire)
    cancel = await call(wire, "CancelJobs", DEFAULT, reason="enough", grace=seconds(60))
    assert (cancel.changed_count, cancel.more) == (3, False)
    for id in ("scheduled", "queued"):
        job = await get(wire, id)
        assert (job.state, job.cancel_reason) == (JOB_STATE_CANCELED, "enough")
    running = await get(wire, "running")
    assert (running.state, running.cancel_requested) == (JOB_STATE_IN_PROGRESS, True)
    # Asked before, and a shorter grace by filter is no new request.
    assert (await call(wire, "CancelJobs", DEFAULT, grace=seconds(0))).changed_count == 0
    assert await get(wire, "running") == running


async def test_replay_lets_run_again_what_had_ended(wire: Wire) -> None:
    await one_of_each(wire)
    assert (await call(wire, "RetryJobs", JobFilter(states=[JOB_STATE_FAILED]))).changed_count == 1
    assert (await get(wire, "failed")).state == JOB_STATE_QUEUED
    assert (await call(wire, "RetryJobs", DEFAULT)).changed_count == 2
    assert await counted(wire) == {JOB_STATE_SCHEDULED: 1, JOB_STATE_QUEUED: 4, JOB_STATE_IN_PROGRESS: 1}


async def test_delete_removes_all_but_what_runs(wire: Wire) -> None:
    await one_of_each(wire)
    assert (await call(wire, "DeleteJobs", DEFAULT)).changed_count == 5
    assert await listed(wire) == ["running"]


@pytest.mark.parametrize(
    ("verb", "states"),
    [
        ("CancelJobs", [JOB_STATE_COMPLETED, JOB_STATE_FAILED]),
        ("RetryJobs", [JOB_STATE_QUEUED, JOB_STATE_IN_PROGRESS]),
        ("DeleteJobs", [JOB_STATE_IN_PROGRESS]),
    ],
)
async def test_states_that_a_verb_cannot_act_on_leave_nothing_to_do(wire: Wire, verb: str, states: list[Any]) -> None:
    await one_of_each(wire)
    before = sorted(await listed(wire))
    answer = await call(wire, verb, JobFilter(states=states))
    assert (answer.changed_count, answer.more) == (0, False)
    assert sorted(await listed(wire)) == before


async def test_a_worker_is_told_of_a_cancel_by_filter(wire: Wire) -> None:
    await create(wire, "a", user_id="ann")
    stream = wire.jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w")))
    events = aiter_events(stream)
    async with asyncio.timeout(FOREVER):
        assignment = (await anext(events)).jobs.assignments[0]
        await wire.beat("w", assignment)
        assert (await call(wire, "CancelJobs", JobFilter(user_id="ann"), reason="r")).changed_count == 1
        notice = (await anext(events)).cancel
    assert (notice.job_id, notice.reason) == ("a", "r")


# --- whom the filter means ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
async def test_an_empty_filter_is_refused(wire: Wire, verb: str) -> None:
    await create(wire, "a")
    assert await refusal(call(wire, verb)) == INVALID
    assert await refusal(call(wire, verb, JobFilter(), validate_only=True)) == INVALID


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(queues=["q"]),
        JobFilter(user_id="ann"),
        JobFilter(types=["t"]),
        JobFilter(labels={"k": "v"}),
        JobFilter(labels={"k": "v"}, user_id="ann", types=["t"], queues=["q"]),
    ],
    ids=["queue", "user", "type", "label", "all of them"],
)
async def test_each_part_of_a_filter_protects_what_it_does_not_name(wire: Wire, wanted: JobFilter) -> None:
    await create(wire, "meant", queue="q", user_id="ann", type="t", labels={"k": "v", "l": "w"})
    await create(wire, "other", queue="r", user_id="bob", type="u", labels={"k": "w"})
    await create(wire, "bare")
    for verb, expected in (("CancelJobs", 1), ("CancelJobs", 0), ("RetryJobs", 1), ("DeleteJobs", 1)):
        assert (await call(wire, verb, wanted)).changed_count == expected, verb
    assert await listed(wire, states=[JOB_STATE_QUEUED]) == ["bare", "other"]


async def test_what_was_created_later_is_left_alone(wire: Wire) -> None:
    await create(wire, "before")
    border = (await create(wire, "border")).create_time
    await create(wire, "after")
    assert (await call(wire, "DeleteJobs", JobFilter(create_time_before=border))).changed_count == 1
    assert await listed(wire) == ["border", "after"]


# --- how far one call goes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
async def test_a_dry_run_counts_and_changes_nothing(wire: Wire, verb: str) -> None:
    await one_of_each(wire)
    before = [await get(wire, id) for id in await listed(wire)]
    would = await call(wire, verb, DEFAULT, validate_only=True)
    assert [await get(wire, job.id) for job in before] == before
    assert would.changed_count == (await call(wire, verb, DEFAULT)).changed_count > 0


@pytest.mark.parametrize("verb", ["CancelJobs", "DeleteJobs"])
async def test_a_row_of_calls_changes_max_jobs_each_until_all_is_done(wire: Wire, verb: str) -> None:
    await create_many(wire, *(Job(id=f"job-{i}", queue=f"q{i % 3}") for i in range(250)))
    wanted = JobFilter(queues=["q0", "q1"])
    assert sum(await to_the_end(wire, verb, wanted, max_jobs=60, validate_only=True)) == 167
    counts = await to_the_end(wire, verb, wanted, max_jobs=60)
    assert [count for count in counts if count] == [60, 60, 47]
    assert await counted(wire, states=[JOB_STATE_QUEUED]) == {JOB_STATE_QUEUED: 83}
    assert await to_the_end(wire, verb, wanted) == [0]


async def test_more_than_a_thousand_take_more_than_one_call(wire: Wire) -> None:
    await create_many(wire, *(Job(id=f"job-{i}") for i in range(1100)))
    first = await call(wire, "CancelJobs", DEFAULT)
    assert (first.changed_count, first.more) == (1000, True)
    second = await call(wire, "CancelJobs", DEFAULT, page_token=first.next_page_token)
    assert (second.changed_count, second.more) == (100, False)
    assert sum(await to_the_end(wire, "RetryJobs", DEFAULT)) == 1100
    assert await counted(wire) == {JOB_STATE_QUEUED: 1100}


async def test_a_rare_job_is_met_behind_calls_that_change_nothing(wire: Wire) -> None:
    await create_many(wire, *(Job(id=f"job-{i}") for i in range(1500)), Job(id="needle", labels={"k": "v"}))
    counts = await to_the_end(wire, "DeleteJobs", JobFilter(labels={"k": "v"}))
    assert len(counts) > 1
    assert sum(counts) == 1
    assert await counted(wire) == {JOB_STATE_QUEUED: 1500}


async def test_a_row_of_replays_ends_although_the_jobs_fail_again_and_again(wire: Wire) -> None:
    """Those that failed anew stand behind all that is still to be replayed: the row must not follow them."""
    await create_many(wire, *(Job(id=f"job-{i}") for i in range(10)))
    for _ in range(10):
        await wire.jobs.UpdateJob(fail(await claim_one(wire), permanent=True))
    wanted = JobFilter(states=[JOB_STATE_FAILED])
    token, replayed = "", 0
    async with asyncio.timeout(FOREVER):
        while True:
            answer = await call(wire, "RetryJobs", wanted, max_jobs=3, page_token=token)
            replayed += answer.changed_count
            for _ in range(answer.changed_count):
                await wire.jobs.UpdateJob(fail(await claim_one(wire), permanent=True))
            if not answer.more:
                break
            token = answer.next_page_token
    assert replayed == 10
    assert {job.attempt for job in (await wire.jobs.ListJobs(api.ListJobsRequest())).jobs} == {2}
    assert (await call(wire, "RetryJobs", wanted, max_jobs=3)).changed_count == 3, "a new row"


@pytest.mark.parametrize("verb", VERBS)
async def test_what_a_request_may_not_say_is_refused(wire: Wire, verb: str) -> None:
    await create_many(wire, *(Job(id=f"job-{i}") for i in range(4)))
    await call(wire, "CancelJobs", DEFAULT, max_jobs=2)
    one = await call(wire, verb, DEFAULT, max_jobs=1, validate_only=True)
    assert one.more
    other = "DeleteJobs" if verb != "DeleteJobs" else "RetryJobs"
    assert await refusal(call(wire, other, DEFAULT, page_token=one.next_page_token)) == INVALID
    assert await refusal(call(wire, verb, JobFilter(types=["t"]), page_token=one.next_page_token)) == INVALID
    assert await refusal(call(wire, verb, DEFAULT, page_token=one.next_page_token + "A")) == INVALID
    assert await refusal(call(wire, verb, DEFAULT, max_jobs=1001)) == INVALID
    if verb == "CancelJobs":
        assert await refusal(call(wire, verb, DEFAULT, grace=seconds(-1))) == INVALID
        too_large = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
        assert await refusal(call(wire, verb, DEFAULT, reason="r" * 257)) == too_large


# --- PurgeQueue -----------------------------------------------------------------------------------------------


async def purge(wire: Wire, name: str = "default", **fields: Any) -> queue_api.PurgeQueueResponse:
    return await wire.queues.PurgeQueue(queue_api.PurgeQueueRequest(name=name, **fields))


async def test_a_purge_removes_what_waits_in_one_queue_and_leaves_the_queue(wire: Wire) -> None:
    await one_of_each(wire)
    await create(wire, "elsewhere", queue="other")
    assert (await purge(wire, validate_only=True)).deleted_count == 2
    answer = await purge(wire)
    assert (answer.deleted_count, answer.more) == (2, False)
    assert sorted(await listed(wire)) == ["canceled", "completed", "elsewhere", "failed", "running"]
    assert (await purge(wire, states=[JOB_STATE_FAILED, JOB_STATE_COMPLETED])).deleted_count == 2
    queue = (await wire.queues.GetQueue(queue_api.GetQueueRequest(name="default"))).queue
    assert [(count.state, count.count) for count in queue.counts] == [
        (JOB_STATE_IN_PROGRESS, 1),
        (JOB_STATE_CANCELED, 1),
    ]


async def test_a_purge_goes_on_while_there_is_more(wire: Wire) -> None:
    await create_many(wire, *(Job(id=f"job-{i}") for i in range(25)))
    deleted = []
    async with asyncio.timeout(FOREVER):
        while (answer := await purge(wire, max_jobs=10)).more:
            deleted.append(answer.deleted_count)
    assert sum(deleted) + answer.deleted_count == 25
    assert max(deleted) == 10


async def test_a_purge_of_running_jobs_or_of_no_queue_is_refused(wire: Wire) -> None:
    await one_of_each(wire)
    assert await refusal(purge(wire, states=[JOB_STATE_IN_PROGRESS])) == INVALID
    assert await refusal(purge(wire, "")) == INVALID
    assert await refusal(purge(wire, max_jobs=1001)) == INVALID
    assert await refusal(purge(wire, "none")) == (grpc.StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
