"""The client of a producer: creates jobs, reads them, cancels and replays them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypedDict, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.job_pb2 import Job, RetryPolicy
from jobwire.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    BatchGetJobsRequest,
    CancelJobRequest,
    CreateJobRequest,
    GetJobRequest,
    RetryJobRequest,
)
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobwire_client._backoff import Backoff
from jobwire_client._channel import DEFAULT_TARGET, open_channel
from jobwire_client._convert import Body, to_duration, to_payload, to_timestamp
from jobwire_client.errors import JobwireError, Unavailable, from_item_error, from_rpc_error

if TYPE_CHECKING:
    from jobwire.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub
    from jobwire.v1.queue_service_pb2_grpc import QueueServiceAsyncStub
    from jobwire.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

BATCH_ITEMS: Final = 1_000
BATCH_BYTES: Final = 8 * 1024 * 1024
"""Half of what the server takes in one message."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class JobFields(TypedDict, total=False):
    """What may be said of a new job beside its type and payload; `job.proto` says what each means."""

    id: str
    queue: str
    user_id: str
    labels: Mapping[str, str]
    priority: int
    schedule_time: datetime
    expire_time: datetime
    execution_timeout: float | timedelta
    retention: float | timedelta
    retry_policy: RetryPolicy


def new_job(type: str = "", payload: Body = None, **fields: Unpack[JobFields]) -> Job:
    """A job to be created. Durations are seconds or timedeltas; times need a zone."""
    job = Job(
        type=type,
        payload=to_payload(payload),
        id=fields.get("id", ""),
        queue=fields.get("queue", ""),
        user_id=fields.get("user_id", ""),
        labels=fields.get("labels"),
        priority=fields.get("priority"),
        retry_policy=fields.get("retry_policy"),
    )
    if (schedule_time := fields.get("schedule_time")) is not None:
        job.schedule_time.CopyFrom(to_timestamp(schedule_time))
    if (expire_time := fields.get("expire_time")) is not None:
        job.expire_time.CopyFrom(to_timestamp(expire_time))
    if (execution_timeout := fields.get("execution_timeout")) is not None:
        job.execution_timeout.CopyFrom(to_duration(execution_timeout))
    if (retention := fields.get("retention")) is not None:
        job.retention.CopyFrom(to_duration(retention))
    return job


@dataclass(frozen=True, slots=True)
class Stubs:
    """The generated stubs, for everything the client has no method for. They raise `grpc.aio.AioRpcError`."""

    jobs: JobServiceAsyncStub
    workers: WorkerServiceAsyncStub
    queues: QueueServiceAsyncStub
    admin: AdminServiceAsyncStub


class AsyncClient:
    """A connection to one server, for one event loop. Close it, or write `async with AsyncClient() as client`.

    Errors are those of `jobwire_client.errors`. While the server cannot be reached, calls that are safe to repeat are
    repeated until `timeout` has passed.
    """

    def __init__(self, target: str = DEFAULT_TARGET, *, timeout: float = 10.0) -> None:
        """Does not connect yet. `timeout` is each call's deadline in seconds, repeats included."""
        self._channel = open_channel(target)
        self._timeout = timeout
        self.stubs = Stubs(
            jobs=JobServiceStub(self._channel),
            workers=WorkerServiceStub(self._channel),
            queues=QueueServiceStub(self._channel),
            admin=AdminServiceStub(self._channel),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends calls under way."""
        await self._channel.close()

    async def create(
        self,
        type: str = "",
        payload: Body = None,
        *,
        request_id: str = "",
        timeout: float | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Creates a job, exactly once per call, and answers it as stored.

        With an `id` or a `request_id` it is exactly once over calls and processes too: the same request again answers
        the job from before. JobExists, RequestIdReused, InvalidField, TooLarge, StoreFull.
        """
        job = new_job(type, payload, **fields)
        request = CreateJobRequest(job=job, request_id=request_id or _request_id(job))
        answer = await self._call(self.stubs.jobs.CreateJob, request, timeout)
        return answer.job

    async def create_many(
        self, jobs: Iterable[Job | CreateJobRequest], *, timeout: float | None = None
    ) -> list[Job | JobwireError]:
        """Creates jobs made by `new_job`, at most 1,000 to a call; an outcome for each, in order.

        One that is refused leaves the others alone. The jobs answered carry no payload, labels or http. Raises only
        when a whole call failed; the calls before it have taken effect then.
        """
        requests = [
            job if isinstance(job, CreateJobRequest) else CreateJobRequest(job=job, request_id=_request_id(job))
            for job in jobs
        ]
        outcomes: list[Job | JobwireError] = []
        for batch in in_batches(requests):
            request = BatchCreateJobsRequest(requests=batch)
            answer = await self._call(self.stubs.jobs.BatchCreateJobs, request, timeout)
            outcomes += (
                from_item_error(result.error) if result.HasField("error") else result.response.job
                for result in answer.results
            )
        return outcomes

    async def get(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The whole job. JobNotFound."""
        answer = await self._call(self.stubs.jobs.GetJob, GetJobRequest(job_id=job_id), timeout)
        return answer.job

    async def get_many(self, job_ids: Iterable[str], *, timeout: float | None = None) -> list[Job]:
        """The whole jobs, in no promised order; those that are not there are left out."""
        wanted = list(dict.fromkeys(job_ids))
        jobs: list[Job] = []
        while wanted:
            request = BatchGetJobsRequest(job_ids=wanted[:BATCH_ITEMS])
            answer = await self._call(self.stubs.jobs.BatchGetJobs, request, timeout)
            jobs += answer.jobs
            wanted = [*answer.remaining_ids, *wanted[BATCH_ITEMS:]]
        return jobs

    async def cancel(
        self,
        job_id: str,
        *,
        reason: str = "",
        grace: float | timedelta | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> Job:
        """Asks for the end of a job. Look at the state of the answer: a running job has `grace` to stop.

        JobNotFound, EtagMismatch.
        """
        request = CancelJobRequest(job_id=job_id, reason=reason, etag=etag)
        if grace is not None:
            request.grace.CopyFrom(to_duration(grace))
        answer = await self._call(self.stubs.jobs.CancelJob, request, timeout)
        return answer.job

    async def retry(self, job_id: str, *, etag: str = "", timeout: float | None = None) -> Job:
        """Replays an ended job. Repeated only when the `etag` is given: without it a repeat could replay it twice.

        JobNotFound, IllegalTransition, EtagMismatch.
        """
        request = RetryJobRequest(job_id=job_id, etag=etag)
        answer = await self._call(self.stubs.jobs.RetryJob, request, timeout, is_repeatable=bool(etag))
        return answer.job

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
        *,
        is_repeatable: bool = True,
    ) -> Response:
        clock = asyncio.get_running_loop().time
        deadline = clock() + (self._timeout if timeout is None else timeout)
        backoff = Backoff()
        while True:
            try:
                return await method(request, timeout=deadline - clock())
            except grpc.aio.AioRpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                wait = backoff.next(at_least=error.retry_after)
                if not is_repeatable or not isinstance(error, Unavailable) or clock() + wait >= deadline:
                    raise error from None
            await asyncio.sleep(wait)


def in_batches(requests: Iterable[Request]) -> Iterator[Sequence[Request]]:
    """As many to a batch as the server takes in one call."""
    batch: list[Request] = []
    size = 0
    for request in requests:
        bytes_more = request.ByteSize()
        if batch and (len(batch) == BATCH_ITEMS or size + bytes_more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += bytes_more
    if batch:
        yield batch


def _request_id(job: Job) -> str:
    """A given id makes the create repeatable by itself."""
    return "" if job.id else uuid.uuid4().hex
