"""Reading many jobs over the wire: pages, counts, batches."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.rpc.calls import (
    FOREVER,
    claim_one,
    complete,
    counted,
    create,
    create_many,
    fail,
    get,
    listed,
    pages,
    refusal,
)
from tests.rpc.conftest import Wire

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import (
    JOB_STATE_COMPLETED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_PROGRESS,
    JOB_STATE_QUEUED,
    JOB_STATE_SCHEDULED,
    Job,
    JobFilter,
    Payload,
)
from jobwire_server.domain.limits import Limits
from jobwire_server.store.base import SCAN

KIB = 1024


# --- pages ----------------------------------------------------------------------------------------------------


async def test_one_queue_in_one_state_is_listed_in_the_order_of_its_index(wire: Wire) -> None:
    for i, priority in enumerate((5, 1, 9, 5, 2)):
        await create(wire, f"job-{i}", priority=priority)
    wanted: dict[str, Any] = {"queues": ["default"], "states": [JOB_STATE_QUEUED]}
    order = await listed(wire, **wanted)
    assert order == ["job-1", "job-4", "job-0", "job-3", "job-2"]
    assert await listed(wire, size=2, **wanted) == order
    assert (await claim_one(wire)).job.id == order[0]


async def test_a_users_jobs_come_newest_first(wire: Wire) -> None:
    for i in range(5):
        await create(wire, f"job-{i}", user_id="ann", queue=f"q{i % 2}")
        await create(wire, f"other-{i}", user_id="bob")
    assert await listed(wire, size=2, user_id="ann") == ["job-4", "job-3", "job-2", "job-1", "job-0"]
    assert await listed(wire, user_id="ann", queues=["q0"]) == ["job-4", "job-2", "job-0"]
    assert await listed(wire, user_id="an") == []


async def test_a_page_holds_whole_jobs_as_they_are(wire: Wire) -> None:
    await create(wire, "a", type="t", user_id="u", labels={"k": "v"}, payload=Payload(text="p"))
    await wire.jobs.UpdateJob(complete(await claim_one(wire), "r"))
    [[job]] = await pages(wire, JobFilter())
    assert job == await get(wire, "a")
    assert (job.payload.text, job.result.text, job.labels["k"], len(job.attempts)) == ("p", "r", "v", 1)


async def test_each_part_of_a_filter_narrows_the_listing(wire: Wire) -> None:
    await create(wire, "a", queue="q1", type="t1", labels={"env": "prod", "v": "1"})
    await create(wire, "b", queue="q2", type="t2", labels={"env": "prod"})
    await create(wire, "c", queue="q1", type="t2", labels={"env": "test"})
    later = Timestamp()
    later.GetCurrentTime()
    later.seconds += 3600
    await create(wire, "d", queue="q2", schedule_time=later)

    async def ids(**wanted: Any) -> str:
        return "".join(sorted(await listed(wire, size=1, **wanted)))

    assert await ids() == "abcd"
    assert await ids(queues=["q1"]) == "ac"
    assert await ids(queues=["q2", "q1", "none"]) == "abcd"
    assert await ids(queues=["none"]) == ""
    assert await ids(states=[JOB_STATE_SCHEDULED]) == "d"
    assert await ids(states=[JOB_STATE_SCHEDULED, JOB_STATE_QUEUED]) == "abcd"
    assert await ids(types=["t2"]) == "bc"
    assert await ids(types=["t1", "t2"], queues=["q1"]) == "ac"
    assert await ids(types=[""]) == "d"
    assert await ids(labels={"env": "prod"}) == "ab"
    assert await ids(labels={"env": "prod", "v": "1"}) == "a"
    assert await ids(labels={"env": "prod"}, queues=["q2"]) == "b"
    c = (await get(wire, "c")).create_time
    assert await ids(create_time_after=c) == "cd"
    assert await ids(create_time_before=c) == "ab"
    assert await ids(create_time_before=c, types=["t1"]) == "a"


async def test_a_job_meets_an_edit_of_its_labels_at_once(wire: Wire) -> None:
    await create(wire, "a", labels={"env": "test"})
    edit = api.EditJob(job=Job(labels={"env": "prod"}))
    await wire.jobs.UpdateJob(api.UpdateJobRequest(job_id="a", edit=edit))
    assert await listed(wire, labels={"env": "prod"}) == ["a"]
    assert await listed(wire, labels={"env": "test"}) == []


async def test_large_jobs_make_short_pages_and_none_is_missed(wire: Wire) -> None:
    sizes = [1, 250, 250, 1, 250, 250, 250, 250, 250, 1, 250, 250, 250, 250, 250, 250, 250]
    for i, size in enumerate(sizes):
        await create(wire, f"job-{i:02}", payload=Payload(data=b"x" * (size * KIB)))
    found = await pages(wire, JobFilter(queues=["default"], states=[JOB_STATE_QUEUED]), size=1000)
    assert [job.id for page in found for job in page] == [f"job-{i:02}" for i in range(len(sizes))]
    assert 1 < len(found) < len(sizes)
    # What is next would not have fitted.
    for page, following in itertools.pairwise(found):
        assert sum(job.ByteSize() for job in [*page, following[0]]) > Limits().send - 10 * KIB


async def test_what_is_rare_is_found_behind_empty_pages(wire: Wire) -> None:
    jobs = [Job(id=f"job-{i:04}", type="common") for i in range(SCAN + SCAN // 2)]
    await create_many(wire, *jobs, Job(id="needle", type="rare", labels={"k": "v"}))
    found = await pages(wire, JobFilter(types=["rare"]))
    assert found[0] == []
    assert [job.id for page in found for job in page] == ["needle"]
    assert (await listed(wire, labels={"k": "v"})) == ["needle"]
    assert await listed(wire, size=1000, queues=["default"]) == [*(job.id for job in jobs), "needle"]


async def test_jobs_that_are_claimed_meanwhile_are_not_listed_as_queued_any_more(wire: Wire) -> None:
    for i in range(4):
        await create(wire, f"job-{i}")
    request = api.ListJobsRequest(filter=JobFilter(states=[JOB_STATE_QUEUED]), page_size=2)
    first = await wire.jobs.ListJobs(request)
    assert [job.id for job in first.jobs] == ["job-0", "job-1"]
    for _ in range(3):
        await claim_one(wire)
    request.page_token = first.next_page_token
    second = await wire.jobs.ListJobs(request)
    assert [job.id for job in second.jobs] == ["job-3"]


async def test_a_page_token_that_does_not_fit_is_refused(wire: Wire) -> None:
    for i in range(3):
        await create(wire, f"job-{i}")
    first = await wire.jobs.ListJobs(api.ListJobsRequest(page_size=1))
    faults = [
        api.ListJobsRequest(page_token=first.next_page_token, filter=JobFilter(user_id="u")),
        api.ListJobsRequest(page_token=first.next_page_token[:-1]),
        api.ListJobsRequest(page_token="x"),
        api.ListJobsRequest(page_size=1001),
        api.ListJobsRequest(filter=JobFilter(states=[0])),  # type: ignore[list-item]  # UNSPECIFIED, as a number
    ]
    for request in faults:
        refused = await refusal(wire.jobs.ListJobs(request))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    # Another size of page is no other listing.
    rest = await wire.jobs.ListJobs(api.ListJobsRequest(page_size=5, page_token=first.next_page_token))
    assert [job.id for job in rest.jobs] == ["job-1", "job-2"]


# --- counts ---------------------------------------------------------------------------------------------------


async def test_counts_follow_each_job_through_its_states(wire: Wire) -> None:
    assert await counted(wire) == {}
    for i in range(4):
        await create(wire, f"job-{i}", queue="q1" if i else "q2")
    assert await counted(wire) == {JOB_STATE_QUEUED: 4}
    assert await counted(wire, queues=["q1"]) == {JOB_STATE_QUEUED: 3}
    assert await counted(wire, queues=["q1"], states=[JOB_STATE_FAILED]) == {}


async def test_counts_by_anything_but_queue_and_state_come_from_the_jobs_themselves(wire: Wire) -> None:
    await create(wire, "a", type="t1", user_id="ann", labels={"k": "1"})
    await create(wire, "b", type="t2", user_id="ann", labels={"k": "2"})
    await create(wire, "c", type="t1", user_id="bob", labels={"k": "1"})
    await wire.jobs.UpdateJob(fail(await claim_one(wire), permanent=True))
    await wire.jobs.UpdateJob(complete(await claim_one(wire)))
    running = await claim_one(wire)
    assert running.job.id == "c"
    assert await counted(wire) == {JOB_STATE_IN_PROGRESS: 1, JOB_STATE_COMPLETED: 1, JOB_STATE_FAILED: 1}
    assert await counted(wire, user_id="ann") == {JOB_STATE_COMPLETED: 1, JOB_STATE_FAILED: 1}
    assert await counted(wire, types=["t1"]) == {JOB_STATE_IN_PROGRESS: 1, JOB_STATE_FAILED: 1}
    assert await counted(wire, labels={"k": "1"}) == {JOB_STATE_IN_PROGRESS: 1, JOB_STATE_FAILED: 1}
    assert await counted(wire, labels={"k": "1"}, user_id="bob") == {JOB_STATE_IN_PROGRESS: 1}
    assert await counted(wire, create_time_after=running.job.create_time) == {JOB_STATE_IN_PROGRESS: 1}


async def test_a_count_that_takes_many_scans_is_whole(wire: Wire) -> None:
    jobs = [Job(type="t" if i % 3 else "", labels={"k": str(i % 2)}) for i in range(2 * SCAN + 100)]
    await create_many(wire, *jobs)
    assert await counted(wire) == {JOB_STATE_QUEUED: len(jobs)}
    assert await counted(wire, types=["t"]) == {JOB_STATE_QUEUED: sum(job.type == "t" for job in jobs)}
    assert await counted(wire, labels={"k": "1"}) == {JOB_STATE_QUEUED: len(jobs) // 2}


# --- batch reads ----------------------------------------------------------------------------------------------


async def test_a_batch_read_names_what_is_unknown_and_keeps_the_order(wire: Wire) -> None:
    for id in "abc":
        await create(wire, id)
    answer = await wire.jobs.BatchGetJobs(api.BatchGetJobsRequest(job_ids=["c", "x", "a", "c", "y"]))
    assert [job.id for job in answer.jobs] == ["c", "a"]
    assert list(answer.not_found_ids) == ["x", "y"]
    assert not answer.remaining_ids
    assert answer.jobs[0] == await get(wire, "c")


@pytest.mark.parametrize("ids", [[], ["a"] * 1001, ["a", ""], ["a", "b/c"]], ids=["none", "too many", "empty", "bad"])
async def test_a_batch_read_of_what_cannot_be_ids_is_refused(wire: Wire, ids: list[str]) -> None:
    refused = await refusal(wire.jobs.BatchGetJobs(api.BatchGetJobsRequest(job_ids=ids)))
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_batch_read_of_large_jobs_is_cut_and_the_rest_is_named(wire: Wire) -> None:
    ids = [f"job-{i:02}" for i in range(40)]
    for id in ids:
        await create(wire, id, payload=Payload(data=b"x" * (200 * KIB)))
    seen: Counter[str] = Counter()
    rest = [*ids, "unknown"]
    async with asyncio.timeout(FOREVER):
        while rest:
            answer = await wire.jobs.BatchGetJobs(api.BatchGetJobsRequest(job_ids=rest))
            assert answer.ByteSize() <= Limits().send
            got = [job.id for job in answer.jobs]
            assert got == rest[: len(got)]
            told = [*got, *answer.not_found_ids, *answer.remaining_ids]
            assert sorted(told) == sorted(rest), "each id is in exactly one of the three"
            seen.update([*got, *answer.not_found_ids])
            rest = list(answer.remaining_ids)
    assert seen == Counter([*ids, "unknown"])


async def test_a_thousand_small_jobs_are_read_at_once(wire: Wire) -> None:
    ids = [f"job-{i}" for i in range(1000)]
    await create_many(wire, *(Job(id=id) for id in ids))
    answer = await wire.jobs.BatchGetJobs(api.BatchGetJobsRequest(job_ids=ids))
    assert [job.id for job in answer.jobs] == ids
