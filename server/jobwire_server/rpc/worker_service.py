"""`jobwire.v1.WorkerService`: heartbeats; the registry is not built yet."""

from __future__ import annotations

from typing import ClassVar

from jobwire.v1 import worker_pb2, worker_service_pb2
from jobwire_server.rpc.answers import lease_status
from jobwire_server.rpc.convert import Reader
from jobwire_server.rpc.interceptors import Context
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
        renewed = await self._workers.heartbeat(worker, renewals)
        return worker_service_pb2.HeartbeatResponse(
            leases=[lease_status(renewal.job_id, answer) for renewal, answer in zip(renewals, renewed, strict=True)],
            # Nothing can drain a worker before DrainWorker is built.
            directive=worker_pb2.WORKER_DIRECTIVE_NONE,
        )
