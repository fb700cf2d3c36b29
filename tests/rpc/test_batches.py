"""Calls of many items, and what of a request is handed on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode
from tests.rpc.standins import (
    Running,
    big_job,
    failure,
    reason,
    running,
)

from jobwire.v1 import job_pb2, job_service_pb2
from jobwire_server.domain.change import Edit
from jobwire_server.domain.limits import Limits
from jobwire_server.domain.move import Completion


@pytest.fixture
async def wire() -> AsyncIterator[Running]:
    async with running() as run:
        yield run


async def test_a_batch_answers_each_item_in_order_and_stores_what_is_right(wire: Running) -> None:
    def item(**fields: Any) -> job_service_pb2.CreateJobRequest:
        return job_service_pb2.CreateJobRequest(job=job_pb2.Job(**fields))

    preview = item(id="c")
    preview.validate_only = True
    payload = job_pb2.Payload(text="p")
    requests = [item(id="a", payload=payload), item(id="/"), item(id="taken"), preview, item(id="b")]
    answer = await wire.jobs.BatchCreateJobs(job_service_pb2.BatchCreateJobsRequest(requests=requests))
    assert [new.id for new in wire.services.created] == ["a", "taken", "b"]
    told = [result.response.job.id or result.error.reason for result in answer.results]
    assert told == ["a", "INVALID_FIELD", "JOB_EXISTS", "c", "b"]
    assert [result.response.created for result in answer.results] == [True, False, False, False, True]
    assert answer.results[1].error.metadata["field"] == "job.id"
    assert not answer.results[0].response.job.HasField("payload")


@pytest.mark.parametrize("size", [0, 4])
async def test_a_batch_of_no_or_too_many_items_is_refused(size: int) -> None:
    async with running(batch=3) as run:
        request = job_service_pb2.BatchCreateJobsRequest(requests=[job_service_pb2.CreateJobRequest()] * size)
        error = await failure(run.jobs.BatchCreateJobs(request))
        assert (error.code(), reason(error)) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_full_batch_of_the_longest_jobs_fits_into_an_answer(wire: Running) -> None:
    long = job_pb2.Job(type="t" * 256, user_id="u" * 256, queue="q" * 64)
    requests = []
    for i in range(1000):
        requests.append(job_service_pb2.CreateJobRequest(job=long))
        requests[-1].job.id = f"{i:0128}"
    answer = await wire.jobs.BatchCreateJobs(job_service_pb2.BatchCreateJobsRequest(requests=requests))
    assert answer.ByteSize() <= Limits().send
    assert len({result.response.job.id for result in answer.results}) == 1000


def settled(job_id: str) -> job_service_pb2.UpdateJobRequest:
    return job_service_pb2.UpdateJobRequest(
        job_id=job_id, token="0" * 32, complete=job_service_pb2.CompleteJob(result=job_pb2.Payload(text="r"))
    )


def raised(job_id: str) -> job_service_pb2.UpdateJobRequest:
    edit = job_service_pb2.EditJob(job=job_pb2.Job(priority=1))
    return job_service_pb2.UpdateJobRequest(job_id=job_id, edit=edit)


async def test_a_settlement_is_answered_without_bodies_and_an_edit_whole(wire: Running) -> None:
    wire.services.jobs = [big_job("j", 10)]
    settlement = await wire.jobs.UpdateJob(settled("j"))
    assert settlement.already_applied
    assert settlement.job.id == "j"
    assert not settlement.job.HasField("payload")
    assert not settlement.job.attempts
    edit = await wire.jobs.UpdateJob(raised("j"))
    assert edit.job.payload.data == b"x" * 10
    assert edit.job.attempts
    assert [type(change) for change in wire.services.changes] == [Completion, Edit]


async def test_a_settled_job_that_is_gone_at_once_is_answered_by_its_id(wire: Running) -> None:
    assert (await wire.jobs.UpdateJob(settled("j"))).job == job_pb2.Job(id="j")


async def test_a_batch_of_changes_keeps_its_order_around_refused_items(wire: Running) -> None:
    requests = [settled("a"), settled("/"), raised("b")]
    answer = await wire.jobs.BatchUpdateJobs(job_service_pb2.BatchUpdateJobsRequest(requests=requests))
    told = [result.response.job.id or result.error.reason for result in answer.results]
    assert told == ["a", "INVALID_FIELD", "b"]
    assert [change.job_id for change in wire.services.changes] == ["a", "b"]


async def test_a_brief_batch_of_creates_tells_ids_and_refusals_alone(wire: Running) -> None:
    requests = [job_service_pb2.CreateJobRequest(job=job_pb2.Job(id=id)) for id in ("a", "/", "taken")]
    answer = await wire.jobs.BatchCreateJobs(job_service_pb2.BatchCreateJobsRequest(requests=requests, brief=True))
    assert answer.results[0].response == job_service_pb2.CreateJobResponse(job=job_pb2.Job(id="a"), created=True)
    assert [result.error.reason for result in answer.results] == ["", "INVALID_FIELD", "JOB_EXISTS"]


async def test_a_brief_batch_of_changes_tells_refusals_alone(wire: Running) -> None:
    requests = [settled("a"), settled("/"), raised("b")]
    answer = await wire.jobs.BatchUpdateJobs(job_service_pb2.BatchUpdateJobsRequest(requests=requests, brief=True))
    assert [result.WhichOneof("outcome") for result in answer.results] == ["response", "error", "response"]
    assert answer.results[0].response == job_service_pb2.UpdateJobResponse(already_applied=True)


async def test_a_cancel_is_handed_on_whole_and_no_grace_is_not_the_default(wire: Running) -> None:
    request = job_service_pb2.CancelJobRequest(job_id="j", reason="r", etag="7")
    assert (await wire.jobs.CancelJob(request)).job.HasField("payload")
    assert wire.services.asked == ("j", "r", 30_000_000, "7")
    request.grace.SetInParent()
    await wire.jobs.CancelJob(request)
    assert wire.services.asked == ("j", "r", 0, "7")


async def test_a_replay_is_handed_on_whole(wire: Running) -> None:
    assert (await wire.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id="k"))).job.id == "k"
    assert wire.services.asked == ("k", None)


async def test_an_id_asked_for_twice_is_answered_once(wire: Running) -> None:
    wire.services.jobs = [big_job("a", 0), None]
    answer = await wire.jobs.BatchGetJobs(job_service_pb2.BatchGetJobsRequest(job_ids=["a", "b", "a"]))
    assert ([job.id for job in answer.jobs], list(answer.not_found_ids)) == (["a"], ["b"])


async def test_a_dry_run_stores_nothing(wire: Running) -> None:
    request = job_service_pb2.CreateJobRequest(job=job_pb2.Job(id="x"), validate_only=True)
    answer = await wire.jobs.CreateJob(request)
    assert (answer.job.id, answer.created, wire.services.created) == ("x", False, [])
