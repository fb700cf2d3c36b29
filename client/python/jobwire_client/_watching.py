"""Following jobs and statistics, through outages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import grpc

from jobwire.v1.admin_service_pb2 import Stats, WatchStatsRequest
from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import BatchGetJobsRequest, WaitJobRequest, WatchJobsRequest, WatchJobsResponse
from jobwire_client._backoff import Backoff
from jobwire_client._calls import is_worth_repeating
from jobwire_client._convert import to_duration
from jobwire_client._outage import Outage, brief, is_expected
from jobwire_client.errors import JobwireError, from_rpc_error
from jobwire_client.models import BATCH_ITEMS

if TYPE_CHECKING:
    from jobwire.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

WAITED_AT_ONCE: Final = 60.0
"""Seconds that one call waits for a job; then it asks anew."""

log = logging.getLogger("jobwire.client")


class JobChange(NamedTuple):
    """What a watch has to say of a job."""

    job_id: str
    job: Job | None
    """As it is now, without payload and http. None: it is there no longer, or has left the filter."""
    in_snapshot: bool
    """It was so already when the watch began."""


class Patience:
    """How long failures may follow each other."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._backoff = Backoff()
        self._outage = Outage()

    def succeeded(self) -> None:
        self._since = None
        self._backoff.reset()
        if (seconds := self._outage.end()) is not None:
            log.info("following again after %.1f s", seconds)

    async def failed(self, error: JobwireError) -> None:
        """Waits for as long as is good before the next try; raises the error when there should be none."""
        now = asyncio.get_running_loop().time()
        pause = self._backoff.next(at_least=error.retry_after)
        self._since = now if self._since is None else self._since
        if not is_worth_repeating(error, is_repeatable=True) or now + pause > self._since + self._seconds:
            raise error
        level = self._outage.level(brief(error), is_expected=is_expected(error))
        log.log(level, "not following: %s", brief(error))
        await asyncio.sleep(pause)


async def ended(jobs: JobServiceAsyncStub, job_id: str, *, patience: Patience, timeout: float) -> Job:
    """The whole job, once it has ended. `timeout` is what an answer may be late."""
    request = WaitJobRequest(job_id=job_id, timeout=to_duration(WAITED_AT_ONCE))
    while True:
        try:
            answer = await jobs.WaitJob(request, timeout=WAITED_AT_ONCE + timeout)
        except grpc.aio.AioRpcError as error:
            await patience.failed(from_rpc_error(error))
            continue
        if answer.ended:
            return answer.job
        patience.succeeded()


async def changes(
    jobs: JobServiceAsyncStub, request: WatchJobsRequest, *, patience: Patience, timeout: float
) -> AsyncGenerator[JobChange, None]:
    """The jobs as they are, then each change; after an outage what has changed meanwhile."""
    view = _View(request.job_ids)
    while True:
        stream = jobs.WatchJobs(request)
        try:
            async for event in stream:
                patience.succeeded()
                for change in view.take(event):
                    yield change
                if view.unnamed and event.HasField("snapshot_done"):
                    # Gone, or in a state that the snapshot was not asked for: an end must not be missed.
                    there = await _read(jobs, view.unnamed, timeout) if request.filter.states else []
                    for change in view.settle(there):
                        yield change
        except grpc.aio.AioRpcError as error:
            await patience.failed(from_rpc_error(error))
        finally:
            stream.cancel()


async def readings(
    admin: AdminServiceAsyncStub, request: WatchStatsRequest, *, patience: Patience
) -> AsyncGenerator[Stats, None]:
    """The statistics now, and at each interval."""
    while True:
        stream = admin.WatchStats(request)
        try:
            async for response in stream:
                patience.succeeded()
                yield response.stats
        except grpc.aio.AioRpcError as error:
            await patience.failed(from_rpc_error(error))
        finally:
            stream.cancel()


async def _read(jobs: JobServiceAsyncStub, job_ids: Collection[str], timeout: float) -> list[Job]:
    wanted, found = [*job_ids], list[Job]()
    while wanted:
        answer = await jobs.BatchGetJobs(BatchGetJobsRequest(job_ids=wanted[:BATCH_ITEMS]), timeout=timeout)
        wanted = [*answer.remaining_ids, *wanted[BATCH_ITEMS:]]
        found += answer.jobs
    for job in found:  # as a watch tells them
        job.ClearField("payload")
        job.ClearField("http")
    return found


class _View:
    """Which version of each job was told: states come twice at times, and older ones after newer."""

    def __init__(self, job_ids: Collection[str]) -> None:
        self._asked = frozenset(job_ids)
        self._told: dict[str, tuple[int, int, int]] = {}
        self._is_first = True
        self._in_snapshot = False
        self.unnamed: set[str] = set()
        """What was told before, and this snapshot has not named."""

    def take(self, event: WatchJobsResponse) -> Iterator[JobChange]:
        match event.WhichOneof("event"):
            case "snapshot_started":
                self._in_snapshot = True
                self.unnamed = {*self._told}
            case "snapshot_done":
                self._in_snapshot = self._is_first = False
            case "changed":
                for job in event.changed.jobs:
                    self.unnamed.discard(job.id)
                    yield from self._changed(job)
            case "removed":
                for job_id in event.removed.job_ids:
                    self.unnamed.discard(job_id)
                    yield from self._removed(job_id)

    def settle(self, there: Collection[Job]) -> Iterator[JobChange]:
        """Of what a snapshot has not named, these are there."""
        for job in there:
            self.unnamed.discard(job.id)
            yield from self._changed(job)
        for job_id in self.unnamed:
            yield from self._removed(job_id)
        self.unnamed = set()

    def _changed(self, job: Job) -> Iterator[JobChange]:
        # An id that was deleted and created anew begins with version 1 again.
        version = (job.create_time.seconds, job.create_time.nanos, job.version)
        if version > self._told.get(job.id, (0, 0, 0)):
            self._told[job.id] = version
            yield JobChange(job.id, job, self._in_snapshot and self._is_first)

    def _removed(self, job_id: str) -> Iterator[JobChange]:
        was_told = self._told.pop(job_id, None) is not None
        # Of others' jobs a watch by filter may hear, too, when they go.
        if was_told or (self._is_first and job_id in self._asked):
            yield JobChange(job_id, None, self._in_snapshot and self._is_first)
