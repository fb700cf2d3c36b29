"""How updates travel: one call in flight, each with its own answer, settlements until they have one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, cast

import grpc
import pytest
import pytest_asyncio

from jobwire.v1.errors_pb2 import ItemError
from jobwire.v1.job_service_pb2 import (
    BatchUpdateJobsRequest,
    BatchUpdateJobsResponse,
    CompleteJob,
    ReportProgress,
    UpdateJobRequest,
    UpdateJobResponse,
    UpdateJobResult,
)
from jobwire_client._settler import Settler
from jobwire_client.errors import InternalError, LeaseLost, Unavailable

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

Answer = Callable[[BatchUpdateJobsRequest], BatchUpdateJobsResponse]


class ScriptedJobs:
    """A JobService whose answers the test decides, one call after the other."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[BatchUpdateJobsRequest, asyncio.Future[BatchUpdateJobsResponse]]]
        self.calls = asyncio.Queue()
        self.in_flight = 0

    async def BatchUpdateJobs(self, request: BatchUpdateJobsRequest, *, timeout: float) -> BatchUpdateJobsResponse:
        assert timeout > 0
        assert self.in_flight == 0, "two calls in flight"
        self.in_flight += 1
        answer: asyncio.Future[BatchUpdateJobsResponse] = asyncio.get_running_loop().create_future()
        self.calls.put_nowait((request, answer))
        try:
            return await answer
        finally:
            self.in_flight -= 1

    async def next_call(self, answer: Answer | Exception) -> list[str]:
        """Answers the next call; the job ids it was about."""
        request, future = await self.calls.get()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer(request))
        return [update.job_id for update in request.requests]


def accept(request: BatchUpdateJobsRequest) -> BatchUpdateJobsResponse:
    results = [UpdateJobResult(response=UpdateJobResponse(already_applied=True)) for _ in request.requests]
    return BatchUpdateJobsResponse(results=results)


def refuse(job_id: str, reason: str) -> Answer:
    def answer(request: BatchUpdateJobsRequest) -> BatchUpdateJobsResponse:
        accepted = accept(request)
        for update, result in zip(request.requests, accepted.results, strict=True):
            if update.job_id == job_id:
                result.error.CopyFrom(ItemError(code=9, reason=reason))
        return accepted

    return answer


def rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "")


def settlement(job_id: str) -> UpdateJobRequest:
    return UpdateJobRequest(job_id=job_id, token="t", complete=CompleteJob())


@pytest.fixture
def jobs() -> ScriptedJobs:
    return ScriptedJobs()


@pytest_asyncio.fixture
async def settler(jobs: ScriptedJobs) -> AsyncIterator[Settler]:
    settler = Settler(cast("JobServiceAsyncStub", jobs))
    yield settler
    await settler.close()


async def test_what_comes_while_a_call_is_in_flight_gathers_for_the_next(settler: Settler, jobs: ScriptedJobs) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(settler.send(settlement("a")))
        request, answer = await jobs.calls.get()
        for job_id in ("b", "c", "d"):
            tasks.create_task(settler.send(settlement(job_id)))
        await asyncio.sleep(0)
        answer.set_result(accept(request))
        assert await jobs.next_call(accept) == ["b", "c", "d"]


async def test_each_outcome_goes_to_its_own_job(settler: Settler, jobs: ScriptedJobs) -> None:
    sent = [asyncio.create_task(settler.send(settlement(job_id))) for job_id in ("a", "b", "c")]
    await jobs.next_call(refuse("b", "LEASE_LOST"))
    a, b, c = await asyncio.gather(*sent, return_exceptions=True)
    assert isinstance(a, UpdateJobResponse)
    assert isinstance(b, LeaseLost)
    assert isinstance(c, UpdateJobResponse)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_an_unanswered_settlement_is_sent_again_as_it_was(
    settler: Settler, jobs: ScriptedJobs, code: grpc.StatusCode
) -> None:
    sent = asyncio.create_task(settler.send(settlement("a")))
    for _ in range(3):
        assert await jobs.next_call(rpc_error(code)) == ["a"]
    request, answer = await jobs.calls.get()
    assert list(request.requests) == [settlement("a")]
    answer.set_result(accept(request))
    assert (await sent).already_applied


async def test_an_unanswered_report_is_dropped_and_the_settlement_behind_it_is_not(
    settler: Settler, jobs: ScriptedJobs
) -> None:
    report = asyncio.create_task(settler.send(UpdateJobRequest(job_id="a", token="t", progress=ReportProgress())))
    sent = asyncio.create_task(settler.send(settlement("a")))
    assert await jobs.next_call(rpc_error(grpc.StatusCode.UNAVAILABLE)) == ["a", "a"]
    assert await jobs.next_call(accept) == ["a"]
    assert (await sent).already_applied
    with pytest.raises(Unavailable):
        await report


async def test_a_contended_settlement_is_sent_again(settler: Settler, jobs: ScriptedJobs) -> None:
    sent = [asyncio.create_task(settler.send(settlement(job_id))) for job_id in ("a", "b")]
    assert await jobs.next_call(refuse("a", "CONTENDED")) == ["a", "b"]
    assert await jobs.next_call(accept) == ["a"]
    await asyncio.gather(*sent)


async def test_one_that_spoils_the_call_takes_no_other_with_it(settler: Settler, jobs: ScriptedJobs) -> None:
    sent = [asyncio.create_task(settler.send(settlement(job_id))) for job_id in ("a", "b", "c")]
    assert await jobs.next_call(rpc_error(grpc.StatusCode.INTERNAL)) == ["a", "b", "c"]
    assert await jobs.next_call(accept) == ["a"]
    assert await jobs.next_call(rpc_error(grpc.StatusCode.INTERNAL)) == ["b", "c"]
    assert await jobs.next_call(rpc_error(grpc.StatusCode.INTERNAL)) == ["b"]
    assert await jobs.next_call(accept) == ["c"]
    a, b, c = await asyncio.gather(*sent, return_exceptions=True)
    assert isinstance(a, UpdateJobResponse)
    assert isinstance(b, InternalError)
    assert isinstance(c, UpdateJobResponse)


async def test_a_caller_that_has_left_stops_nobody_else(settler: Settler, jobs: ScriptedJobs) -> None:
    left = asyncio.create_task(settler.send(settlement("a")))
    sent = asyncio.create_task(settler.send(settlement("b")))
    request, answer = await jobs.calls.get()
    left.cancel()
    answer.set_result(accept(request))
    assert (await sent).already_applied
