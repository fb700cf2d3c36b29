"""Calls to one server or several, each repeated while nobody knows whether it happened, as the contract allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeVar

import grpc

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub
    from jobwire.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

Answer = TypeVar("Answer")

UNKNOWN: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
"""After these the caller does not know whether its call happened."""

PAUSE: Final = 0.02
"""Seconds before a call is repeated."""

_EAGER: Final = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Stubs:
    """One server as callers see it. A call that is not answered within `timeout` seconds is unknown."""

    jobs: JobServiceAsyncStub
    workers: WorkerServiceAsyncStub
    timeout: float


class Calls:
    """A caller that knows some servers on one store; `async with` it."""

    def __init__(self, addresses: Sequence[str], *, timeout: float = 10.0) -> None:
        self._channels = [grpc.aio.insecure_channel(address, options=_EAGER) for address in addresses]
        self.servers = [Stubs(JobServiceStub(each), WorkerServiceStub(each), timeout) for each in self._channels]
        self.in_flight = 0
        self.unknown = 0
        """Calls whose outcome their caller never learned."""
        self.on_call: Callable[[], None] = lambda: None
        """Called whenever a call begins."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def until_known(self, call: Callable[[Stubs], Awaitable[Answer]], *, at: int = 0) -> Answer:
        """Makes the call at that server, and repeats it at the next one while its outcome is unknown."""
        while True:
            self.in_flight += 1
            self.on_call()
            try:
                return await call(self.servers[at % len(self.servers)])
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNKNOWN:
                    raise
                self.unknown += 1
                at += 1
                await asyncio.sleep(PAUSE)
            finally:
                self.in_flight -= 1

    async def create(self, request: api.BatchCreateJobsRequest, *, at: int = 0) -> api.BatchCreateJobsResponse:
        """Its jobs have ids or request ids."""
        return await self.until_known(
            lambda server: server.jobs.BatchCreateJobs(request, timeout=server.timeout), at=at
        )

    async def beat(self, request: worker_api.HeartbeatRequest, *, at: int = 0) -> worker_api.HeartbeatResponse:
        """Renews the leases that it lists."""
        return await self.until_known(lambda server: server.workers.Heartbeat(request, timeout=server.timeout), at=at)

    async def read(self, ids: Iterable[str], *, at: int = 0) -> dict[str, Job]:
        """The jobs that are there, whole."""
        jobs: dict[str, Job] = {}
        wanted = list(ids)
        while wanted:
            answer = await self._get(api.BatchGetJobsRequest(job_ids=wanted[:_AT_ONCE]), at)
            jobs |= {job.id: job for job in answer.jobs}
            wanted = [*answer.remaining_ids, *wanted[_AT_ONCE:]]
        return jobs

    async def count(self, *, at: int = 0) -> int:
        """How many jobs there are, whoever has asked for them."""
        answer = await self.until_known(
            lambda server: server.jobs.CountJobs(api.CountJobsRequest(), timeout=server.timeout), at=at
        )
        return answer.total

    async def update(self, changes: Sequence[api.UpdateJobRequest], *, at: int = 0) -> list[api.UpdateJobResult]:
        """An outcome for each, in order."""
        results: list[api.UpdateJobResult] = []
        for start in range(0, len(changes), _AT_ONCE):
            some = api.BatchUpdateJobsRequest(requests=changes[start : start + _AT_ONCE])
            results += (await self._update(some, at)).results
        return results

    async def _get(self, request: api.BatchGetJobsRequest, at: int) -> api.BatchGetJobsResponse:
        return await self.until_known(lambda server: server.jobs.BatchGetJobs(request, timeout=server.timeout), at=at)

    async def _update(self, request: api.BatchUpdateJobsRequest, at: int) -> api.BatchUpdateJobsResponse:
        return await self.until_known(
            lambda server: server.jobs.BatchUpdateJobs(request, timeout=server.timeout), at=at
        )
