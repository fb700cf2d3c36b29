"""`jobwire.v1.WorkerService`: requests in, the service's answers out."""

from __future__ import annotations

from typing import ClassVar

from jobwire.v1 import worker_service_pb2
from jobwire_server.rpc import validate
from jobwire_server.rpc.answers import FRAME, MARGIN, lease_status
from jobwire_server.rpc.convert import Reader
from jobwire_server.rpc.filters import page_size
from jobwire_server.rpc.interceptors import Context
from jobwire_server.rpc.workers import (
    DIRECTIVES,
    directive_of,
    worker_message,
    worker_states,
    workers_start,
    workers_token,
)
from jobwire_server.service.workers import WorkerService


class WorkerServicer:
    """One coroutine an RPC; what is missing is not built."""

    SERVICE: ClassVar[str] = "jobwire.v1.WorkerService"

    def __init__(self, workers: WorkerService, reader: Reader) -> None:
        self._workers = workers
        self._reader = reader

    async def heartbeat(
        self, request: worker_service_pb2.HeartbeatRequest, _: Context
    ) -> worker_service_pb2.HeartbeatResponse:
        worker, renewals = self._reader.heartbeat(request)
        renewed, directive = await self._workers.heartbeat(worker, renewals)
        return worker_service_pb2.HeartbeatResponse(
            leases=[lease_status(renewal.job_id, answer) for renewal, answer in zip(renewals, renewed, strict=True)],
            directive=DIRECTIVES[directive],
        )

    async def list_workers(
        self, request: worker_service_pb2.ListWorkersRequest, _: Context
    ) -> worker_service_pb2.ListWorkersResponse:
        limits = self._reader.limits
        wanted = worker_states(request)
        after, size = workers_start(request), page_size(request.page_size, limits)
        # One more than asked for tells whether there is a next page.
        found = await self._workers.page(after=after, limit=size + 1)
        answer = worker_service_pb2.ListWorkersResponse()
        left = limits.send - MARGIN
        for record in found.workers[:size]:
            state = record.state(found.now)
            if not wanted or state in wanted:
                message = worker_message(record, state)
                left -= message.ByteSize() + FRAME
                if left < 0:
                    break
                answer.workers.append(message)
            after = record.info.id
        if found.workers and after != found.workers[-1].info.id:
            answer.next_page_token = workers_token(request, after)
        return answer

    async def drain_worker(
        self, request: worker_service_pb2.DrainWorkerRequest, _: Context
    ) -> worker_service_pb2.DrainWorkerResponse:
        worker_id = validate.name("worker_id", request.worker_id)
        record, now = await self._workers.drain(worker_id, directive_of(request))
        return worker_service_pb2.DrainWorkerResponse(worker=worker_message(record, record.state(now)))
