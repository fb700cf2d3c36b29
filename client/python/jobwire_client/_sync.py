"""`AsyncClient` for programs without an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Generic, Self, TypeVar, Unpack, cast

from jobwire.v1.admin_service_pb2 import BackupContents, GetServerInfoResponse, Stats
from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import CreateJobRequest, ListJobsResponse, RecoverStuckJobsResponse
from jobwire.v1.queue_pb2 import Queue
from jobwire.v1.worker_pb2 import Worker as RegisteredWorker
from jobwire_client._async import AsyncClient, Jobs, Outcomes
from jobwire_client._channel import DEFAULT_TARGET, ConnectOptions
from jobwire_client._convert import Body
from jobwire_client._operations import Queues, Workers
from jobwire_client._watching import JobChange
from jobwire_client.models import (
    AnyWorkerState,
    Directive,
    EditFields,
    FilterFields,
    JobFields,
    QueueSettings,
    State,
    Told,
)

CLOSING: Final = 5.0
"""Seconds that the end of a process waits for its clients."""

T = TypeVar("T")


class Client:
    """What `AsyncClient` does, method by method, for threads: any number of them may use one client at a time, and
    creates of several threads share a call. Close it, or write `with Client() as client`; else the process's end does.

    >>> with Client(address) as client:
    ...     job = client.create("report", {"month": 7}, queue="reports")
    ...     job = client.cancel(job.id, reason="not needed")
    ...     state_name(job.state)
    'CANCELED'

    The calls run in an event loop in a thread of its own. Neither survives a fork: make one client in each process.
    """

    def __init__(
        self, target: str = DEFAULT_TARGET, *, timeout: float = 10.0, **connect: Unpack[ConnectOptions]
    ) -> None:
        """As for `AsyncClient`."""
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobwire-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_opened(target, timeout, connect))
        except BaseException:
            _end(self._loop, self._thread, self._pid, None)
            raise
        # Runs at the latest when the interpreter ends, while threads still do.
        self._end = weakref.finalize(self, _end, self._loop, self._thread, self._pid, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends calls under way, whichever thread waits for them. A second time does nothing."""
        self._end()

    def _each(self, watching: AsyncIterator[T]) -> Iterator[T]:
        # What `async def` and `yield` make is more than its annotation says to those who only iterate.
        told = _Told(cast("AsyncGenerator[T, None]", watching))
        try:
            while (each := self._run(told.next())) is not None:
                yield each
        finally:
            if not self._loop.is_closed():
                self._run(told.end())

    def _run(self, calling: Coroutine[None, None, T]) -> T:
        if os.getpid() != self._pid:
            calling.close()
            raise RuntimeError("this client was made before a fork: make one in each process")
        if self._loop.is_closed():
            calling.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(calling, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("this client was closed during the call") from None
        except BaseException:
            future.cancel()  # such as Ctrl-C: nobody waits for the answer any more
            raise

    def create(
        self,
        type: str = "",
        payload: Body = None,
        *,
        request_id: str = "",
        timeout: float | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Creates a job, exactly once per call. Calls made at the same time share one on the wire."""
        return self._run(self._client.create(type, payload, request_id=request_id, timeout=timeout, **fields))

    def get(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The whole job. JobNotFound."""
        return self._run(self._client.get(job_id, timeout=timeout))

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The whole job, once it has ended. TimeoutError when it has not after `timeout` seconds."""
        return self._run(self._client.wait(job_id, timeout=timeout))

    def watch(
        self, job_ids: Iterable[str] = (), *, timeout: float | None = None, **where: Unpack[FilterFields]
    ) -> Iterator[JobChange]:
        """The jobs as they are, then each change as it comes, until you stop: of these ids, of a filter, or of all."""
        yield from self._each(self._client.watch(job_ids, timeout=timeout, **where))

    def update(self, job_id: str, *, etag: str = "", timeout: float | None = None, **fields: Unpack[EditFields]) -> Job:
        """Changes what is named of a job; None puts it back to its default."""
        return self._run(self._client.update(job_id, etag=etag, timeout=timeout, **fields))

    def cancel(
        self,
        job_id: str,
        *,
        reason: str = "",
        grace: float | timedelta | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> Job:
        """Asks for the end of a job. Look at the state of the answer: a running job has `grace` (30 s) to stop."""
        return self._run(self._client.cancel(job_id, reason=reason, grace=grace, etag=etag, timeout=timeout))

    def retry(self, job_id: str, *, etag: str = "", timeout: float | None = None) -> Job:
        """Replays an ended job. Repeated only when the `etag` is given: without it a repeat could replay it twice."""
        return self._run(self._client.retry(job_id, etag=etag, timeout=timeout))

    def delete(self, job_id: str, *, force: bool = False, etag: str = "", timeout: float | None = None) -> None:
        """Removes a job and its history; one that a worker holds only with `force`."""
        self._run(self._client.delete(job_id, force=force, etag=etag, timeout=timeout))

    def create_many(self, jobs: Iterable[Job | CreateJobRequest], *, timeout: float | None = None) -> Outcomes:
        """Creates jobs made by `new_job`, at most 1,000 to a call; an outcome for each, in order."""
        return self._run(self._client.create_many(jobs, timeout=timeout))

    def get_many(self, job_ids: Iterable[str], *, timeout: float | None = None) -> Jobs:
        """The whole jobs, in no promised order; those that are not there are left out."""
        return self._run(self._client.get_many(job_ids, timeout=timeout))

    def list(
        self,
        *,
        page_size: int = 0,
        limit: int | None = None,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> Iterator[Job]:
        """The whole jobs that match, page by page, in the order of `ListJobs`; all jobs without a filter."""
        token, left = "", limit
        while left is None or left > 0:
            page = self.list_page(page_token=token, page_size=page_size, timeout=timeout, **where)
            yield from page.jobs[:left]
            if left is not None:
                left -= len(page.jobs)
            if not (token := page.next_page_token):
                return

    def list_page(
        self,
        *,
        page_token: str = "",
        page_size: int = 0,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> ListJobsResponse:
        """One page, and the token of the next: only an empty token says that there is none."""
        return self._run(self._client.list_page(page_token=page_token, page_size=page_size, timeout=timeout, **where))

    def count(self, *, timeout: float | None = None, **where: Unpack[FilterFields]) -> dict[str, int]:
        """How many jobs match, by state; states without jobs are left out. Quick with `queues` and `states` only."""
        return self._run(self._client.count(timeout=timeout, **where))

    def cancel_where(
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
        """Cancels the jobs that match, and says how many."""
        return self._run(
            self._client.cancel_where(
                reason=reason,
                grace=grace,
                limit=limit,
                validate_only=validate_only,
                told=told,
                timeout=timeout,
                **where,
            )
        )

    def retry_where(
        self,
        *,
        limit: int | None = None,
        validate_only: bool = False,
        told: Told | None = None,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> int:
        """Replays the ended jobs that match. Name the states: with none named COMPLETED jobs run again too."""
        return self._run(
            self._client.retry_where(limit=limit, validate_only=validate_only, told=told, timeout=timeout, **where)
        )

    def delete_where(
        self,
        *,
        limit: int | None = None,
        validate_only: bool = False,
        told: Told | None = None,
        timeout: float | None = None,
        **where: Unpack[FilterFields],
    ) -> int:
        """Removes the jobs that match and that no worker holds."""
        return self._run(
            self._client.delete_where(limit=limit, validate_only=validate_only, told=told, timeout=timeout, **where)
        )

    def recover(
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
        return self._run(
            self._client.recover(
                queues=queues,
                stuck_for=stuck_for,
                max_retries=max_retries,
                initial_delay=initial_delay,
                max_jobs=max_jobs,
                validate_only=validate_only,
                timeout=timeout,
            )
        )

    def list_queues(self, *, timeout: float | None = None) -> Queues:
        """All of them by name, with settings and counts. `timeout` is for each 1,000."""
        return self._run(self._client.list_queues(timeout=timeout))

    def get_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """QueueNotFound."""
        return self._run(self._client.get_queue(name, timeout=timeout))

    def update_queue(
        self,
        name: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        timeout: float | None = None,
        **settings: Unpack[QueueSettings],
    ) -> Queue:
        """Changes the settings that are named; None puts one back to its default. `allow_missing` makes the queue."""
        return self._run(
            self._client.update_queue(name, etag=etag, allow_missing=allow_missing, timeout=timeout, **settings)
        )

    def pause_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """No job of it is claimed from now on; what runs goes on. QueueNotFound."""
        return self._run(self._client.pause_queue(name, timeout=timeout))

    def resume_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Lifts a pause. QueueNotFound."""
        return self._run(self._client.resume_queue(name, timeout=timeout))

    def purge_queue(
        self,
        name: str,
        *,
        states: Sequence[State] = (),
        limit: int | None = None,
        validate_only: bool = False,
        told: Told | None = None,
        timeout: float | None = None,
    ) -> int:
        """Deletes the jobs of a queue in these states, by default all that wait, and says how many."""
        return self._run(
            self._client.purge_queue(
                name, states=states, limit=limit, validate_only=validate_only, told=told, timeout=timeout
            )
        )

    def workers(self, *, states: Sequence[AnyWorkerState] = (), timeout: float | None = None) -> Workers:
        """All of them by id, or those in these states: IDLE, BUSY, QUIET, LOST. `timeout` is for each 1,000."""
        return self._run(self._client.workers(states=states, timeout=timeout))

    def drain_worker(
        self, worker_id: str, directive: Directive = "QUIET", *, timeout: float | None = None
    ) -> RegisteredWorker:
        """Gives a worker no more jobs: QUIET lets it finish what it holds, TERMINATE end as well; NONE lifts that."""
        return self._run(self._client.drain_worker(worker_id, directive, timeout=timeout))

    def server_info(self, *, timeout: float | None = None) -> GetServerInfoResponse:
        """What the server is, what it stores in, how safe that is, and its limits."""
        return self._run(self._client.server_info(timeout=timeout))

    def stats(self, queues: Sequence[str] = (), *, minutes: bool = False, timeout: float | None = None) -> Stats:
        """Counts, rates and ages of these queues, or of all, and the workers; with `minutes` the last hour as well."""
        return self._run(self._client.stats(queues, minutes=minutes, timeout=timeout))

    def watch_stats(
        self, queues: Sequence[str] = (), *, interval: float | timedelta = 1.0, timeout: float | None = None
    ) -> Iterator[Stats]:
        """The same at once, and then every `interval`, until you stop; who comes late for one gets the latest."""
        yield from self._each(self._client.watch_stats(queues, interval=interval, timeout=timeout))

    def backup(self, write: Callable[[bytes], object], *, timeout: float | None = None) -> BackupContents:
        """Hands the whole store to `write`, piece by piece, as the file that `jobwire restore` reads; answers what is
        in it."""
        return self._run(self._client.backup(write, timeout=timeout))


class _Told(Generic[T]):
    """What a watch tells, one after the other. Used in the event loop only."""

    def __init__(self, watching: AsyncGenerator[T, None]) -> None:
        self._watching = watching
        self._under_way: asyncio.Task[object] | None = None

    async def next(self) -> T | None:
        self._under_way = asyncio.current_task()
        try:
            return await anext(self._watching, None)
        finally:
            self._under_way = None

    async def end(self) -> None:
        """Ends a `next` first: a Ctrl-C at the moment when a call is handed to the loop leaves nobody who could cancel
        it, and a generator that runs cannot be closed.
        """
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.wait([self._under_way])
        await self._watching.aclose()


async def _opened(target: str, timeout: float, connect: ConnectOptions) -> AsyncClient:
    """In the event loop that it will be used in."""
    return AsyncClient(target, timeout=timeout, **connect)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int, client: AsyncClient | None) -> None:
    if os.getpid() != pid:
        return  # after a fork: neither loop nor thread is here
    if client is not None:
        asyncio.run_coroutine_threadsafe(_closed(client), loop)
    else:
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():  # the collector may run in any thread
        thread.join(CLOSING)
        if not thread.is_alive():
            loop.close()


async def _closed(client: AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    try:
        await client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    finally:
        loop.call_soon(loop.stop)
