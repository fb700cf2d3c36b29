"""The client of those who create jobs and look after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import TypeAlias, Unpack

from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import (
    BatchCreateJobsRequest,
    BatchGetJobsRequest,
    CancelJobRequest,
    CancelJobsRequest,
    CountJobsRequest,
    CreateJobRequest,
    DeleteJobRequest,
    DeleteJobsRequest,
    GetJobRequest,
    ListJobsRequest,
    ListJobsResponse,
    RecoverStuckJobsRequest,
    RecoverStuckJobsResponse,
    RetryJobRequest,
    RetryJobsRequest,
    UpdateJobRequest,
    WatchJobsRequest,
)
from jobwire_client._convert import Body, to_duration
from jobwire_client._operations import Operations
from jobwire_client._watching import JobChange, Patience, changes, ended
from jobwire_client.errors import JobNotFound, JobwireError, from_item_error
from jobwire_client.models import (
    BATCH_ITEMS,
    EditFields,
    FilterFields,
    JobFields,
    Told,
    create_request,
    in_batches,
    job_edit,
    job_filter,
    state_name,
)

Outcomes: TypeAlias = "list[Job | JobwireError]"
Jobs: TypeAlias = "list[Job]"


class AsyncClient(Operations):
    """A connection for one event loop. Close it, or write `async with AsyncClient() as client`.

    >>> async def main():
    ...     async with AsyncClient(address) as client:
    ...         job = await client.create("email.send", {"to": "ann@example.org"}, queue="mail", id="welcome-ann")
    ...         return (await client.get(job.id)).payload.text
    >>> asyncio.run(main())
    '{"to": "ann@example.org"}'

    Errors are those of `jobwire_client.errors`. While the server cannot be reached, calls that are safe to repeat are
    repeated until `timeout` has passed. After a fork, use a client made in the child.
    """

    # --- one job

    async def create(
        self,
        type: str = "",
        payload: Body = None,
        *,
        request_id: str = "",
        timeout: float | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Creates a job, exactly once per call. Calls made at the same time share one on the wire.

        The answer holds id, queue, state, version, etag and times, and nothing of what was given. With an `id` or a
        `request_id` it is exactly once over calls and processes too: the same request again answers the job from
        before. JobExists, RequestIdReused, InvalidField, TooLarge, StoreFull.
        """
        request = create_request(type, payload, request_id or self._request_id(fields.get("id")), fields)
        deadline = asyncio.get_running_loop().time() + (self._timeout if timeout is None else timeout)
        return await self._creates.submit(request, deadline=deadline)

    async def get(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The whole job. JobNotFound."""
        answer = await self._call(self.stubs.jobs.GetJob, GetJobRequest(job_id=job_id), timeout)
        return answer.job

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The whole job, once it has ended. TimeoutError when it has not after `timeout` seconds.

        An outage is waited through for as long as a call may last. JobNotFound, also when the job goes meanwhile; one
        with a retention of 0 is answered as it ended, unless an outage came in between.
        """
        async with asyncio.timeout(timeout):
            return await ended(self.stubs.jobs, job_id, patience=Patience(self._timeout), timeout=self._timeout)

    async def watch(
        self, job_ids: Iterable[str] = (), *, timeout: float | None = None, **where: Unpack[FilterFields]
    ) -> AsyncIterator[JobChange]:
        """The jobs as they are, then each change as it comes, until you stop: of these ids, of a filter, or of all.

        Tells states: of changes in quick succession the last; the end of a job is never missed. `states` choose what
        is told first. After an outage it tells what has changed meanwhile; it raises when one has lasted `timeout`
        seconds. It remembers the version of each job that it has told, until that is gone.

        >>> async def main():
        ...     async with AsyncClient(address) as client:
        ...         async for change in client.watch(queues=["mail"]):
        ...             if change.job is not None:
        ...                 return change.job_id, state_name(change.job.state)
        >>> asyncio.run(main())
        ('welcome-ann', 'QUEUED')
        """
        request = WatchJobsRequest(job_ids=job_ids, filter=job_filter(where) if where else None)
        patience = Patience(self._timeout if timeout is None else timeout)
        async with aclosing(changes(self.stubs.jobs, request, patience=patience, timeout=self._timeout)) as told:
            async for change in told:
                yield change

    async def update(
        self, job_id: str, *, etag: str = "", timeout: float | None = None, **fields: Unpack[EditFields]
    ) -> Job:
        """Changes what is named of a job; None puts it back to its default.

        Repeated only when the `etag` is given: without it a repeat could undo a later change.
        JobNotFound, EtagMismatch, IllegalTransition (such as a payload while a worker holds the job), InvalidField.
        """
        request = UpdateJobRequest(job_id=job_id, edit=job_edit(etag, fields))
        answer = await self._call(self.stubs.jobs.UpdateJob, request, timeout, is_repeatable=bool(etag))
        return answer.job

    async def cancel(
        self,
        job_id: str,
        *,
        reason: str = "",
        grace: float | timedelta | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> Job:
        """Asks for the end of a job. Look at the state of the answer: a running job has `grace` (30 s) to stop.

        JobNotFound, EtagMismatch.
        """
        request = CancelJobRequest(
            job_id=job_id, reason=reason, etag=etag, grace=None if grace is None else to_duration(grace)
        )
        answer = await self._call(self.stubs.jobs.CancelJob, request, timeout)
        return answer.job

    async def retry(self, job_id: str, *, etag: str = "", timeout: float | None = None) -> Job:
        """Replays an ended job. Repeated only when the `etag` is given: without it a repeat could replay it twice.

        JobNotFound, IllegalTransition, EtagMismatch.
        """
        request = RetryJobRequest(job_id=job_id, etag=etag)
        answer = await self._call(self.stubs.jobs.RetryJob, request, timeout, is_repeatable=bool(etag))
        return answer.job

    async def delete(self, job_id: str, *, force: bool = False, etag: str = "", timeout: float | None = None) -> None:
        """Removes a job and its history; one that a worker holds only with `force`.

        Repeated only when the `etag` is given: without it a repeat could remove a later job of that id.
        JobNotFound, IllegalTransition, EtagMismatch.
        """
        request = DeleteJobRequest(job_id=job_id, force=force, etag=etag)
        try:
            await self._call(self.stubs.jobs.DeleteJob, request, timeout, is_repeatable=bool(etag))
        except JobNotFound as error:
            if not error.is_outcome_unknown:  # else it was the first try that removed it
                raise

    # --- many jobs

    async def create_many(self, jobs: Iterable[Job | CreateJobRequest], *, timeout: float | None = None) -> Outcomes:
        """Creates jobs made by `new_job`, at most 1,000 to a call; an outcome for each, in order.

        One that is refused leaves the others alone. Each answer holds what that of `create` does. Raises only when a
        whole call failed; the calls before it have taken effect then.
        """
        outcomes: Outcomes = []
        requests = (
            job if isinstance(job, CreateJobRequest) else CreateJobRequest(job=job, request_id=self._request_id(job.id))
            for job in jobs
        )
        for batch in in_batches(requests):
            answer = await self._call(self.stubs.jobs.BatchCreateJobs, BatchCreateJobsRequest(requests=batch), timeout)
            outcomes += (
                from_item_error(result.error) if result.HasField("error") else result.response.job
                for result in answer.results
            )
        return outcomes

    async def get_many(self, job_ids: Iterable[str], *, timeout: float | None = None) -> Jobs:
        """The whole jobs, in no promised order; those that are not there are left out."""
        wanted = list(dict.fromkeys(job_ids))
        jobs: Jobs = []
        while wanted:
            request = BatchGetJobsRequest(job_ids=wanted[:BATCH_ITEMS])
            answer = await self._call(self.stubs.jobs.BatchGetJobs, request, timeout)
            jobs += answer.jobs
            wanted = [*answer.remaining_ids, *wanted[BATCH_ITEMS:]]
        return jobs

    async def list(
        self,
        *,
        page_size: int = 0,
        limit: int | None = None,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> AsyncIterator[Job]:
        """The whole jobs that match, page by page, in the order of `ListJobs`; all jobs without a filter.

        `timeout` is for each page. A job that changes meanwhile may come twice or not at all.

        >>> async def main():
        ...     async with AsyncClient(address) as client:
        ...         return [job.id async for job in client.list(queues=["mail"], states=["QUEUED"], limit=10)]
        >>> asyncio.run(main())
        ['welcome-ann']
        """
        token, left = "", limit
        while left is None or left > 0:
            page = await self.list_page(page_token=token, page_size=page_size, timeout=timeout, **where)
            for job in page.jobs[:left]:
                yield job
            if left is not None:
                left -= len(page.jobs)
            if not (token := page.next_page_token):
                return

    async def list_page(
        self,
        *,
        page_token: str = "",
        page_size: int = 0,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> ListJobsResponse:
        """One page, and the token of the next: only an empty token says that there is none."""
        request = ListJobsRequest(filter=job_filter(where), page_size=page_size, page_token=page_token)
        return await self._call(self.stubs.jobs.ListJobs, request, timeout)

    async def count(self, *, timeout: float | None = None, **where: Unpack[FilterFields]) -> dict[str, int]:
        """How many jobs match, by state; states without jobs are left out. Quick with `queues` and `states` only."""
        answer = await self._call(self.stubs.jobs.CountJobs, CountJobsRequest(filter=job_filter(where)), timeout)
        return {state_name(each.state): each.count for each in answer.counts}

    async def cancel_where(
        self,
        *,
        reason: str = "",
        grace: float | timedelta | None = None,
        limit: int | None = None,
        validate_only: bool = False,
        told: Told | None = None,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> int:
        """Cancels the jobs that match, and says how many.

        The three of this kind want a filter, ask for 1,000 at a time until all were looked at or `limit` is reached
        (`timeout` is for each time; `told` hears the number so far), and with `validate_only` count without changing
        anything. After a repeat the count may be too low.
        """
        request = CancelJobsRequest(
            filter=job_filter(where),
            reason=reason,
            grace=None if grace is None else to_duration(grace),
            validate_only=validate_only,
        )
        return await self._for_all(self.stubs.jobs.CancelJobs, request, limit, timeout, told)

    async def retry_where(
        self,
        *,
        limit: int | None = None,
        validate_only: bool = False,
        told: Told | None = None,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> int:
        """Replays the ended jobs that match. Name the states: with none named COMPLETED jobs run again too.

        A first call of unknown outcome is not repeated: it could replay what has failed anew.
        """
        request = RetryJobsRequest(filter=job_filter(where), validate_only=validate_only)
        return await self._for_all(
            self.stubs.jobs.RetryJobs, request, limit, timeout, told, is_repeatable=validate_only
        )

    async def delete_where(
        self,
        *,
        limit: int | None = None,
        validate_only: bool = False,
        told: Told | None = None,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> int:
        """Removes the jobs that match and that no worker holds."""
        request = DeleteJobsRequest(filter=job_filter(where), validate_only=validate_only)
        return await self._for_all(self.stubs.jobs.DeleteJobs, request, limit, timeout, told)

    async def recover(
        self,
        *,
        queues: Sequence[str] = (),
        stuck_for: float | timedelta | None = None,
        max_retries: int | None = None,
        initial_delay: float | timedelta | None = None,
        max_jobs: int = 0,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> RecoverStuckJobsResponse:
        """Takes back leases past their deadline now, and with `stuck_for` also live ones. Call again while `more`."""
        request = RecoverStuckJobsRequest(
            queues=queues,
            stuck_for=None if stuck_for is None else to_duration(stuck_for),
            max_retries=max_retries,
            initial_delay=None if initial_delay is None else to_duration(initial_delay),
            max_jobs=max_jobs,
            validate_only=validate_only,
        )
        return await self._call(self.stubs.jobs.RecoverStuckJobs, request, timeout)
