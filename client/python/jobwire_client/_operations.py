"""What operators ask of a server: its queues, its workers, itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import TypeAlias, Unpack

import grpc

from jobwire.v1.admin_service_pb2 import (
    BackupContents,
    BackupRequest,
    GetServerInfoRequest,
    GetServerInfoResponse,
    GetStatsRequest,
    Stats,
    WatchStatsRequest,
)
from jobwire.v1.queue_pb2 import Queue
from jobwire.v1.queue_service_pb2 import GetQueueRequest, ListQueuesRequest, PurgeQueueRequest
from jobwire.v1.worker_pb2 import Worker as RegisteredWorker
from jobwire.v1.worker_service_pb2 import DrainWorkerRequest, ListWorkersRequest
from jobwire_client._convert import to_duration
from jobwire_client._core import Core
from jobwire_client._watching import Patience, readings
from jobwire_client.errors import JobwireError, from_rpc_error
from jobwire_client.models import (
    BATCH_ITEMS,
    AnyWorkerState,
    Directive,
    QueueSettings,
    State,
    Told,
    queue_update,
    to_directive,
    to_state,
    to_worker_state,
)

Queues: TypeAlias = "list[Queue]"
Workers: TypeAlias = "list[RegisteredWorker]"


class Operations(Core):
    """The part of `AsyncClient` that is about no job in particular."""

    async def list_queues(self, *, timeout: float | None = None) -> Queues:
        """All of them by name, with settings and counts. `timeout` is for each 1,000."""
        queues: Queues = []
        request = ListQueuesRequest(page_size=BATCH_ITEMS)
        while True:
            page = await self._call(self.stubs.queues.ListQueues, request, timeout)
            queues += page.queues
            if not page.next_page_token:
                return queues
            request.page_token = page.next_page_token

    async def get_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """QueueNotFound."""
        answer = await self._call(self.stubs.queues.GetQueue, GetQueueRequest(name=name), timeout)
        return answer.queue

    async def update_queue(
        self,
        name: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        timeout: float | None = None,
        **settings: Unpack[QueueSettings],
    ) -> Queue:
        """Changes the settings that are named; None puts one back to its default. `allow_missing` makes the queue.

        QueueNotFound, EtagMismatch, InvalidField.
        """
        request = queue_update(name, etag, allow_missing, settings)
        answer = await self._call(self.stubs.queues.UpdateQueue, request, timeout)
        return answer.queue

    async def pause_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """No job of it is claimed from now on; what runs goes on. QueueNotFound."""
        return await self.update_queue(name, paused=True, timeout=timeout)

    async def resume_queue(self, name: str, *, timeout: float | None = None) -> Queue:
        """Lifts a pause. QueueNotFound."""
        return await self.update_queue(name, paused=False, timeout=timeout)

    async def purge_queue(
        self,
        name: str,
        *,
        states: Sequence[State] = (),
        limit: int | None = None,
        validate_only: bool = False,
        told: Told | None = None,
        timeout: float | None = None,
    ) -> int:
        """Deletes the jobs of a queue in these states, by default all that wait, and says how many.

        `timeout` is for each 1,000, and `told` hears the number so far; `validate_only` counts the first 1,000 at most.
        QueueNotFound.
        """
        purged = 0
        request = PurgeQueueRequest(
            name=name, states=[to_state(state) for state in states], validate_only=validate_only
        )
        while limit is None or purged < limit:
            request.max_jobs = BATCH_ITEMS if limit is None else min(limit - purged, BATCH_ITEMS)
            answer = await self._call(self.stubs.queues.PurgeQueue, request, timeout)
            purged += answer.deleted_count
            if told is not None:
                told(purged)
            if not answer.more or validate_only:
                break
        return purged

    async def workers(self, *, states: Sequence[AnyWorkerState] = (), timeout: float | None = None) -> Workers:
        """All of them by id, or those in these states: IDLE, BUSY, QUIET, LOST. `timeout` is for each 1,000."""
        workers: Workers = []
        request = ListWorkersRequest(states=[to_worker_state(state) for state in states], page_size=BATCH_ITEMS)
        while True:
            page = await self._call(self.stubs.workers.ListWorkers, request, timeout)
            workers += page.workers
            if not page.next_page_token:
                return workers
            request.page_token = page.next_page_token

    async def drain_worker(
        self, worker_id: str, directive: Directive = "QUIET", *, timeout: float | None = None
    ) -> RegisteredWorker:
        """Gives a worker no more jobs: QUIET lets it finish what it holds, TERMINATE end as well; NONE lifts that.

        It holds until it is lifted, also when the worker comes back under its id. At a `held_count` of 0 it is drained.
        WorkerNotFound.
        """
        request = DrainWorkerRequest(worker_id=worker_id, directive=to_directive(directive))
        answer = await self._call(self.stubs.workers.DrainWorker, request, timeout)
        return answer.worker

    async def server_info(self, *, timeout: float | None = None) -> GetServerInfoResponse:
        """What the server is, what it stores in, how safe that is, and its limits."""
        return await self._call(self.stubs.admin.GetServerInfo, GetServerInfoRequest(), timeout)

    async def stats(self, queues: Sequence[str] = (), *, minutes: bool = False, timeout: float | None = None) -> Stats:
        """Counts, rates and ages of these queues, or of all, and the workers; with `minutes` the last hour as well."""
        request = GetStatsRequest(queues=queues, minutes=minutes)
        answer = await self._call(self.stubs.admin.GetStats, request, timeout)
        return answer.stats

    async def watch_stats(
        self, queues: Sequence[str] = (), *, interval: float | timedelta = 1.0, timeout: float | None = None
    ) -> AsyncIterator[Stats]:
        """The same at once, and then every `interval`, until you stop; who comes late for one gets the latest.

        After an outage it goes on; it raises when one has lasted `timeout` seconds.

        >>> async def main():
        ...     async with AsyncClient(address) as client:
        ...         await client.create("x", queue="mail")
        ...         async for stats in client.watch_stats(["mail"]):
        ...             return stats.queues[0].queue, stats.totals.activity[0].created_count
        >>> asyncio.run(main())
        ('mail', 1)
        """
        request = WatchStatsRequest(queues=queues, interval=to_duration(interval))
        patience = Patience(self._timeout if timeout is None else timeout)
        async with aclosing(readings(self.stubs.admin, request, patience=patience)) as told:
            async for stats in told:
                yield stats

    async def backup(self, write: Callable[[bytes], object], *, timeout: float | None = None) -> BackupContents:
        """Hands the whole store to `write`, piece by piece, as the file that `jobwire restore` reads; answers what is
        in it.

        What was written is a backup only when this returns. It takes as long as it takes, unless there is a `timeout`;
        nothing is repeated. TooManyStreams, StoreFull, ServerDraining.

        >>> async def main():
        ...     async with AsyncClient(address) as client:
        ...         pieces = []
        ...         contents = await client.backup(pieces.append)
        ...         return contents.size_bytes == sum(map(len, pieces))
        >>> asyncio.run(main())
        True
        """
        size, contents = 0, None
        stream = self.stubs.admin.Backup(BackupRequest(), timeout=timeout)
        try:
            async for part in stream:
                if part.HasField("contents"):
                    contents = part.contents
                else:
                    write(part.data)
                    size += len(part.data)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            stream.cancel()
        if contents is None or contents.size_bytes != size:
            raise JobwireError("not all of the backup has come", code=grpc.StatusCode.DATA_LOSS, reason="DATA_LOSS")
        return contents
