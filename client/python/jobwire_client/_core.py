"""What the client stands on: a channel, the stubs, and calls that are repeated and coalesced."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    CancelJobsRequest,
    CancelJobsResponse,
    CreateJobRequest,
    DeleteJobsRequest,
    DeleteJobsResponse,
    RetryJobsRequest,
    RetryJobsResponse,
)
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobwire_client._calls import call
from jobwire_client._channel import DEFAULT_TARGET, Connection, ConnectOptions
from jobwire_client._coalescer import Coalescer
from jobwire_client.errors import JobwireError, from_item_error, from_rpc_error
from jobwire_client.models import BATCH_ITEMS, Told

if TYPE_CHECKING:
    from jobwire.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub
    from jobwire.v1.queue_service_pb2_grpc import QueueServiceAsyncStub
    from jobwire.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

CREATING: Final = 2
"""Creates in flight at a time: one travels while the server works on the other."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
ByFilter = TypeVar("ByFilter", CancelJobsRequest, RetryJobsRequest, DeleteJobsRequest)
Changed = TypeVar("Changed", CancelJobsResponse, RetryJobsResponse, DeleteJobsResponse)


@dataclass(frozen=True, slots=True)
class Stubs:
    """The generated stubs, for everything the client has no method for. They raise `grpc.aio.AioRpcError`."""

    jobs: JobServiceAsyncStub
    workers: WorkerServiceAsyncStub
    queues: QueueServiceAsyncStub
    admin: AdminServiceAsyncStub


class Core:
    """Opened, used and closed in one event loop."""

    def __init__(
        self, target: str = DEFAULT_TARGET, *, timeout: float = 10.0, **connect: Unpack[ConnectOptions]
    ) -> None:
        """Does not connect yet. `timeout` is each call's deadline in seconds, repeats included; each call can have its
        own. ValueError, OSError: for a target or files that cannot be used.
        """
        self._timeout = timeout
        self._name = os.urandom(16).hex()
        self._numbers = itertools.count(1)
        self._channel = Connection.to(target, **connect).open()
        self._creates: Coalescer[CreateJobRequest, Job] = Coalescer(self._create, calls=CREATING)
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
        await self._creates.close()
        await self._channel.close()

    def _request_id(self, job_id: str | None) -> str:
        """Makes the create repeatable; a given id does so by itself. With the pid: a fork must not give one twice."""
        return "" if job_id else f"{self._name}-{os.getpid()}-{next(self._numbers)}"

    async def _create(self, requests: Sequence[CreateJobRequest], timeout: float) -> Sequence[Job | JobwireError]:
        try:
            answer = await self.stubs.jobs.BatchCreateJobs(BatchCreateJobsRequest(requests=requests), timeout=timeout)
        except grpc.aio.AioRpcError as rpc_error:
            raise from_rpc_error(rpc_error) from None
        return [
            from_item_error(result.error) if result.HasField("error") else result.response.job
            for result in answer.results
        ]

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
        *,
        is_repeatable: bool = True,
    ) -> Response:
        seconds = self._timeout if timeout is None else timeout
        return await call(method, request, timeout=seconds, is_repeatable=is_repeatable)

    async def _for_all(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[ByFilter, Changed],
        request: ByFilter,
        limit: int | None,
        timeout: float | None,
        told: Told | None,
        *,
        is_repeatable: bool = True,
    ) -> int:
        """Goes on behind the jobs already looked at until there is no more; how many were changed."""
        changed = 0
        while limit is None or changed < limit:
            request.max_jobs = BATCH_ITEMS if limit is None else min(limit - changed, BATCH_ITEMS)
            # From the second call on a repeat cannot reach back to what has been changed before.
            answer = await self._call(method, request, timeout, is_repeatable=is_repeatable or bool(request.page_token))
            changed += answer.changed_count
            if told is not None:
                told(changed)
            if not answer.more:
                break
            request.page_token = answer.next_page_token
        return changed
