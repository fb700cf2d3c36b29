"""A real server in this process, over a port, on each engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.conftest import ENGINES
from tests.store import invariants
from tests.valkey_process import Keyspace

from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.job_service_pb2 import Assignment
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobwire_server.app import App, open_store
from jobwire_server.config import Config

if TYPE_CHECKING:
    from jobwire.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub
    from jobwire.v1.queue_service_pb2_grpc import QueueServiceAsyncStub
    from jobwire.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(value * 1e6))
    return duration


class Wire:
    """Stubs on a channel to a running server."""

    def __init__(self, app: App, address: str, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.address = address
        self.channel = channel
        self.jobs: JobServiceAsyncStub = JobServiceStub(channel)
        self.workers: WorkerServiceAsyncStub = WorkerServiceStub(channel)
        self.queues: QueueServiceAsyncStub = QueueServiceStub(channel)
        self.admin: AdminServiceAsyncStub = AdminServiceStub(channel)

    async def beat(self, worker: str, assignment: Assignment) -> worker_api.LeaseState.ValueType:
        """One heartbeat for one lease; answers its state."""
        request = worker_api.HeartbeatRequest(
            worker=WorkerIdentity(id=worker),
            leases=[worker_api.LeaseBeat(job_id=assignment.job.id, token=assignment.token)],
        )
        [lease] = (await self.workers.Heartbeat(request)).leases
        return lease.state


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture
async def store_url(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> AsyncIterator[str]:
    """An empty store. When all that used it is over, its invariants must hold."""
    if keyspace is not None:
        url = keyspace.url
    else:
        url = "memory://" if engine == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    yield url
    if engine != "memory":  # nothing is left of that
        store = open_store(url)
        await store.open()
        broken = await invariants.broken(store, keyspace)
        await store.close()
        assert not broken


@pytest.fixture
async def wire(store_url: str) -> AsyncIterator[Wire]:
    app = App(Config(store=store_url, listen="127.0.0.1:0", http="off", drain_timeout=1))
    address = await app.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Wire(app, address, channel)
    finally:
        await app.stop()
