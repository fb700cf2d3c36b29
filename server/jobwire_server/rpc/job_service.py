"""`jobwire.v1.JobService`: requests in, the services' answers out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar, Final

from google.protobuf.message import DecodeError

from jobwire.v1 import job_service_pb2
from jobwire_server.domain.change import Change, Edit
from jobwire_server.domain.errors import JobwireError, job_not_found
from jobwire_server.domain.job import NewJob
from jobwire_server.rpc import validate
from jobwire_server.rpc.answers import (
    Room,
    Standings,
    job_message,
    recovered_message,
    write_created_briefly,
    write_got,
    write_job,
    write_preview,
    write_updated_briefly,
)
from jobwire_server.rpc.claim_messages import claim_messages, is_readable
from jobwire_server.rpc.convert import Reader
from jobwire_server.rpc.filters import (
    job_filter,
    listing_start,
    listing_token,
    page_size,
    selection,
    selection_token,
)
from jobwire_server.rpc.interceptors import Context, written
from jobwire_server.rpc.queues import state_counts
from jobwire_server.rpc.status import refusal
from jobwire_server.rpc.watch_messages import watch_messages, watched
from jobwire_server.service.by_filter import JobsByFilter
from jobwire_server.service.claim_events import Assigned, Event
from jobwire_server.service.claims import ClaimService
from jobwire_server.service.jobs import JobService
from jobwire_server.service.listings import Listings
from jobwire_server.service.watches import WatchService

_READ_AT_ONCE: Final = 32
"""Jobs of a batch read that are in memory at a time: as many of the largest are several answers."""


class JobServicer:
    """One coroutine an RPC; what is missing is not built."""

    SERVICE: ClassVar[str] = "jobwire.v1.JobService"

    def __init__(
        self,
        jobs: JobService,
        listings: Listings,
        by_filter: JobsByFilter,
        claims: ClaimService,
        watches: WatchService,
        reader: Reader,
        *,
        traceparent: Callable[[], str] | None = None,
    ) -> None:
        """`traceparent` of the call that is under way, for jobs that bring none; None: nobody traces."""
        self._traceparent = traceparent
        self._jobs = jobs
        self._listings = listings
        self._by_filter = by_filter
        self._claims = claims
        self._watches = watches
        self._reader = reader
        self._limits = reader.limits

    async def create_job(
        self, request: job_service_pb2.CreateJobRequest, _: Context
    ) -> job_service_pb2.CreateJobResponse:
        self._trace([request])
        new = self._reader.new_job(request)
        answer = job_service_pb2.CreateJobResponse()
        if request.validate_only:
            write_preview(answer.job, new, self._reader.now())
            return answer
        [created] = await self._jobs.create([new])
        if isinstance(created, JobwireError):
            raise created
        Standings().write_created(answer, new, created, whole=True)
        return answer

    async def batch_create_jobs(
        self, request: job_service_pb2.BatchCreateJobsRequest, _: Context
    ) -> job_service_pb2.BatchCreateJobsResponse:
        validate.items("requests", request.requests, self._limits.batch)
        self._trace(request.requests)
        answer = job_service_pb2.BatchCreateJobsResponse()
        results: list[job_service_pb2.CreateJobResult] = []
        new_jobs: list[NewJob] = []
        for item in request.requests:
            result = answer.results.add()
            try:
                new = self._reader.new_job(item)
            except JobwireError as error:
                result.error.CopyFrom(refusal(error).item())
                continue
            if item.validate_only:
                write_preview(result.response.job, new, self._reader.now(), bodies=False)
            else:
                results.append(result)
                new_jobs.append(new)
        made = await self._jobs.create(new_jobs, brief=request.brief) if new_jobs else []
        standings = Standings()
        for result, new, created in zip(results, new_jobs, made, strict=True):
            if isinstance(created, JobwireError):
                result.error.CopyFrom(refusal(created).item())
            elif request.brief:
                write_created_briefly(result.response, created)
            else:
                standings.write_created(result.response, new, created, whole=False)
        _fit(answer, self._limits.send)
        return answer

    async def get_job(self, request: job_service_pb2.GetJobRequest, _: Context) -> job_service_pb2.GetJobResponse:
        job_id = validate.job_id("job_id", request.job_id)
        [job] = await self._jobs.get([job_id])
        if job is None:
            raise job_not_found(job_id)
        return job_service_pb2.GetJobResponse(job=job_message(job))

    async def batch_get_jobs(
        self, request: job_service_pb2.BatchGetJobsRequest, _: Context
    ) -> job_service_pb2.BatchGetJobsResponse:
        validate.items("job_ids", request.job_ids, self._limits.batch)
        checked = (validate.job_id(f"job_ids[{i}]", job_id) for i, job_id in enumerate(request.job_ids))
        job_ids = list(dict.fromkeys(checked))
        answer = job_service_pb2.BatchGetJobsResponse()
        room = Room(self._limits.send, names=job_ids)
        while job_ids and not room.is_full:
            part, job_ids = job_ids[:_READ_AT_ONCE], job_ids[_READ_AT_ONCE:]
            write_got(answer, part, await self._jobs.get(part), room)
        answer.remaining_ids.extend(job_ids)
        return answer

    async def list_jobs(self, request: job_service_pb2.ListJobsRequest, _: Context) -> job_service_pb2.ListJobsResponse:
        answer = job_service_pb2.ListJobsResponse()
        room = Room(self._limits.send)
        end = await self._listings.page(
            job_filter("filter", request.filter, self._limits),
            after=listing_start(request),
            limit=page_size(request.page_size, self._limits),
            take=lambda job: room.add(answer.jobs, job),
        )
        answer.next_page_token = listing_token(request, end)
        return answer

    async def count_jobs(
        self, request: job_service_pb2.CountJobsRequest, _: Context
    ) -> job_service_pb2.CountJobsResponse:
        counts = await self._listings.count(job_filter("filter", request.filter, self._limits))
        return job_service_pb2.CountJobsResponse(counts=state_counts(counts), total=sum(counts.values()))

    async def update_job(
        self, request: job_service_pb2.UpdateJobRequest, _: Context
    ) -> job_service_pb2.UpdateJobResponse:
        change = self._reader.change(request)
        [updated] = await self._jobs.update([change])
        if isinstance(updated, JobwireError):
            raise updated
        answer = job_service_pb2.UpdateJobResponse()
        Standings().write_updated(answer, change, updated)
        if isinstance(change, Edit):
            [job] = await self._jobs.get([change.job_id])
            if job is not None:
                answer.job.Clear()
                write_job(answer.job, job)
        return answer

    async def batch_update_jobs(
        self, request: job_service_pb2.BatchUpdateJobsRequest, _: Context
    ) -> job_service_pb2.BatchUpdateJobsResponse:
        validate.items("requests", request.requests, self._limits.batch)
        answer = job_service_pb2.BatchUpdateJobsResponse()
        results: list[job_service_pb2.UpdateJobResult] = []
        changes: list[Change] = []
        for item in request.requests:
            result = answer.results.add()
            try:
                changes.append(self._reader.change(item))
                results.append(result)
            except JobwireError as error:
                result.error.CopyFrom(refusal(error).item())
        made = await self._jobs.update(changes, brief=request.brief) if changes else []
        standings = Standings()
        for result, change, updated in zip(results, changes, made, strict=True):
            if isinstance(updated, JobwireError):
                result.error.CopyFrom(refusal(updated).item())
            elif request.brief:
                write_updated_briefly(result.response, updated)
            else:
                standings.write_updated(result.response, change, updated)
        _fit(answer, self._limits.send)
        return answer

    async def claim_job(self, request: job_service_pb2.ClaimJobRequest, context: Context) -> None:
        stream = await self._claims.open(self._reader.claim(request))
        # Only an end that the service itself names leaves deliveries their deadline. Any other way out means that what
        # was handed over may never arrive: `context.cancelled()` does not tell reliably.
        peer_gone = True
        try:
            await written(context.send_initial_metadata(()))
            while True:
                try:
                    event = await stream.next()
                except JobwireError:
                    peer_gone = False
                    raise
                if event is None:
                    peer_gone = False
                    return
                try:
                    messages = list(claim_messages(stream, event, self._limits.send))
                except DecodeError:
                    messages = list(claim_messages(stream, await self._readable(event), self._limits.send))
                for message in messages:
                    await written(context.write(message.SerializeToString()))
        finally:
            await _to_its_end(stream.close(peer_gone=peer_gone))

    async def recover_stuck_jobs(
        self, request: job_service_pb2.RecoverStuckJobsRequest, _: Context
    ) -> job_service_pb2.RecoverStuckJobsResponse:
        return recovered_message(await self._jobs.recover(self._reader.recover(request)))

    async def cancel_job(
        self, request: job_service_pb2.CancelJobRequest, _: Context
    ) -> job_service_pb2.CancelJobResponse:
        job = await self._jobs.cancel(
            validate.job_id("job_id", request.job_id),
            reason=validate.text("reason", request.reason, self._limits.text),
            grace=self._reader.grace(request),
            etag=validate.etag("etag", request.etag),
        )
        return job_service_pb2.CancelJobResponse(job=job_message(job))

    async def retry_job(self, request: job_service_pb2.RetryJobRequest, _: Context) -> job_service_pb2.RetryJobResponse:
        job = await self._jobs.replay(
            validate.job_id("job_id", request.job_id), etag=validate.etag("etag", request.etag)
        )
        return job_service_pb2.RetryJobResponse(job=job_message(job))

    async def delete_job(
        self, request: job_service_pb2.DeleteJobRequest, _: Context
    ) -> job_service_pb2.DeleteJobResponse:
        await self._jobs.delete(
            validate.job_id("job_id", request.job_id),
            force=request.force,
            etag=validate.etag("etag", request.etag),
        )
        return job_service_pb2.DeleteJobResponse()

    async def cancel_jobs(
        self, request: job_service_pb2.CancelJobsRequest, _: Context
    ) -> job_service_pb2.CancelJobsResponse:
        changed = await self._by_filter.cancel(
            selection(request, self._limits),
            reason=validate.text("reason", request.reason, self._limits.text),
            grace=self._reader.grace(request),
        )
        token = selection_token(request, changed)
        return job_service_pb2.CancelJobsResponse(changed_count=changed.count, more=bool(token), next_page_token=token)

    async def retry_jobs(
        self, request: job_service_pb2.RetryJobsRequest, _: Context
    ) -> job_service_pb2.RetryJobsResponse:
        changed = await self._by_filter.replay(selection(request, self._limits))
        token = selection_token(request, changed)
        return job_service_pb2.RetryJobsResponse(changed_count=changed.count, more=bool(token), next_page_token=token)

    async def delete_jobs(
        self, request: job_service_pb2.DeleteJobsRequest, _: Context
    ) -> job_service_pb2.DeleteJobsResponse:
        changed = await self._by_filter.delete(selection(request, self._limits))
        token = selection_token(request, changed)
        return job_service_pb2.DeleteJobsResponse(changed_count=changed.count, more=bool(token), next_page_token=token)

    async def wait_job(self, request: job_service_pb2.WaitJobRequest, _: Context) -> job_service_pb2.WaitJobResponse:
        job, ended = await self._watches.wait(
            validate.job_id("job_id", request.job_id), timeout=self._reader.wait_timeout(request)
        )
        return job_service_pb2.WaitJobResponse(job=job_message(job), ended=ended)

    async def watch_jobs(self, request: job_service_pb2.WatchJobsRequest, context: Context) -> None:
        watch = await self._watches.open(**watched(request, self._limits))
        try:
            await written(context.send_initial_metadata(()))
            while True:
                for message in watch_messages(await watch.next(), self._limits.send):
                    await written(context.write(message.SerializeToString()))
        finally:
            self._watches.close(watch)

    def _trace(self, requests: Iterable[job_service_pb2.CreateJobRequest]) -> None:
        if self._traceparent is not None and (told := self._traceparent()):
            for request in requests:
                request.job.traceparent = request.job.traceparent or told

    async def _readable(self, event: Event) -> Event:
        """The jobs that can be handed out; the others are ended as dead letters, or they would hold up their queue."""
        if not isinstance(event, Assigned):
            return event
        readable = [assignment for assignment in event.assignments if is_readable(assignment.job)]
        await self._jobs.set_aside([assignment for assignment in event.assignments if assignment not in readable])
        return Assigned(event.now, readable)


def _fit(answer: job_service_pb2.BatchCreateJobsResponse | job_service_pb2.BatchUpdateJobsResponse, limit: int) -> None:
    """Takes what may be long out of the jobs of an answer that would pass `limit`; what is left of each job is far
    below its share of it."""
    if answer.ByteSize() <= limit:
        return
    for result in answer.results:
        if result.HasField("response"):
            for field in ("attempts", "error", "progress", "cancel_reason", "type", "user_id"):
                result.response.job.ClearField(field)


async def _to_its_end(closing: Coroutine[Any, Any, None]) -> None:
    """Awaits to the end although we are cancelled, and only then lets the cancellation go on."""
    task = asyncio.ensure_future(closing)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
