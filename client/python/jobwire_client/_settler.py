"""Settlements: what is said in them, and how they travel, many to a call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from jobwire.v1.job_pb2 import JobError
from jobwire.v1.job_service_pb2 import (
    BatchUpdateJobsRequest,
    FailJob,
    ReleaseJob,
    UpdateJobRequest,
    UpdateJobResponse,
)
from jobwire_client._coalescer import Coalescer
from jobwire_client._convert import Body, clean_text, fill_payload, to_duration
from jobwire_client._outage import brief
from jobwire_client.context import PermanentError, Retry
from jobwire_client.errors import (
    AlreadySettled,
    JobNotFound,
    JobwireError,
    LeaseLost,
    from_item_error,
    from_rpc_error,
)

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

log = logging.getLogger("jobwire.worker")


class Settler:
    """Sends the updates of one worker, coalesced: those of one job stay in order."""

    def __init__(self, jobs: JobServiceAsyncStub, *, brief: bool = False) -> None:
        """`brief`: an accepted update is answered without its job."""
        self._jobs = jobs
        self._brief = brief
        self._updates: Coalescer[UpdateJobRequest, UpdateJobResponse] = Coalescer(self._send, calls=1)

    async def send(self, request: UpdateJobRequest) -> UpdateJobResponse:
        """Delivers one update; raises the JobwireError that it was refused with.

        An unanswered settlement is repeated with the same token until an answer comes, however long that takes: the
        server accepts it late as long as nobody else was given the job, and tells when somebody was. An unanswered
        progress report is not repeated.
        """
        is_settlement = not request.HasField("progress")
        return await self._updates.submit(request, deadline=None, is_repeatable=is_settlement)

    async def close(self) -> None:
        """Gives up what is still unanswered."""
        await self._updates.close()

    async def _send(
        self, requests: Sequence[UpdateJobRequest], timeout: float
    ) -> Sequence[UpdateJobResponse | JobwireError]:
        try:
            batch = BatchUpdateJobsRequest(requests=requests, brief=self._brief)
            answer = await self._jobs.BatchUpdateJobs(batch, timeout=timeout)
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            log.info("%d updates are not answered: %s", len(requests), brief(error))
            raise error from None
        return [
            from_item_error(result.error) if result.HasField("error") else result.response for result in answer.results
        ]


def completion(result: Body) -> UpdateJobRequest:
    """TypeError, ValueError for a result that cannot be sent."""
    change = UpdateJobRequest()
    change.complete.SetInParent()
    if result is not None:
        fill_payload(change.complete.result, result)
    return change


def is_over(error: JobwireError) -> bool:
    """Nothing more can be reported of that attempt."""
    return isinstance(error, LeaseLost | AlreadySettled | JobNotFound)


def release(delay: float | timedelta = 0) -> UpdateJobRequest:
    return UpdateJobRequest(release=ReleaseJob(delay=to_duration(delay) if delay else None))


def failure(
    *, code: str, message: str, permanent: bool = False, after: float | timedelta | None = None
) -> UpdateJobRequest:
    """Cut to what the contract takes: a failure must not get lost for its length."""
    error = JobError(code=clean_text(code, 256), message=clean_text(message, 4096))
    delay = None if after is None else to_duration(after)
    return UpdateJobRequest(fail=FailJob(error=error, permanent=permanent, retry_delay=delay))


def failure_from(error: BaseException) -> UpdateJobRequest:
    """What an exception of a handler means."""
    name = type(error).__name__
    match error:
        case PermanentError():
            return failure(code=error.code or name, message=str(error), permanent=True)
        case Retry():
            return failure(code=error.code or name, message=str(error), after=error.after)
        case _:
            return failure(code=name, message=str(error))
