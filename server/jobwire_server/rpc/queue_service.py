"""`jobwire.v1.QueueService`: requests in, the services' answers out."""

from __future__ import annotations

from typing import ClassVar

from jobwire.v1 import queue_service_pb2 as api
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc import validate
from jobwire_server.rpc.filters import page_size, purge_selection
from jobwire_server.rpc.interceptors import Context
from jobwire_server.rpc.queues import queue_changes, queue_message, queues_start, queues_token
from jobwire_server.service.by_filter import JobsByFilter
from jobwire_server.service.queues import QueueService


class QueueServicer:
    """One coroutine an RPC; what is missing is not built."""

    SERVICE: ClassVar[str] = "jobwire.v1.QueueService"

    def __init__(self, queues: QueueService, by_filter: JobsByFilter, limits: Limits) -> None:
        self._queues = queues
        self._by_filter = by_filter
        self._limits = limits

    async def list_queues(self, request: api.ListQueuesRequest, _: Context) -> api.ListQueuesResponse:
        size = page_size(request.page_size, self._limits)
        # One more than asked for tells whether there is a next page.
        found = await self._queues.page(after=queues_start(request), limit=size + 1)
        page = found.queues[:size]
        return api.ListQueuesResponse(
            queues=[queue_message(record, found.now) for record in page],
            next_page_token=queues_token(page[-1].settings.name) if len(found.queues) > size else "",
        )

    async def get_queue(self, request: api.GetQueueRequest, _: Context) -> api.GetQueueResponse:
        record, now = await self._queues.get(validate.name("name", request.name))
        return api.GetQueueResponse(queue=queue_message(record, now))

    async def update_queue(self, request: api.UpdateQueueRequest, _: Context) -> api.UpdateQueueResponse:
        record, now = await self._queues.update(
            validate.name("queue.name", request.queue.name),
            queue_changes(request, self._limits),
            etag=validate.etag("etag", request.etag),
            allow_missing=request.allow_missing,
        )
        return api.UpdateQueueResponse(queue=queue_message(record, now))

    async def purge_queue(self, request: api.PurgeQueueRequest, _: Context) -> api.PurgeQueueResponse:
        selection = purge_selection(request, self._limits)
        await self._queues.get(request.name)  # deleting from no queue would look like success
        deleted = await self._by_filter.delete(selection)
        return api.PurgeQueueResponse(deleted_count=deleted.count, more=deleted.end is not None)
