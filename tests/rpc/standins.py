"""A server on a port whose services do what a test needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import grpc
import pytest
from grpc import aio
from grpc_status import rpc_status

from jobwire.v1 import job_pb2
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_server.domain.change import Change
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import Job, JobState, NewJob
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.admin_service import AdminServicer
from jobwire_server.rpc.convert import Reader
from jobwire_server.rpc.job_service import JobServicer
from jobwire_server.rpc.server import PINGS, Pings, Server, Servicer
from jobwire_server.service.claim_events import ClaimSpec, Event
from jobwire_server.service.jobs import Updated
from jobwire_server.service.load import Load
from jobwire_server.store.base import Created, CreateOutcome, Queues, Standing, StoreUnavailable, Workers
from jobwire_server.store.info import StoreInfo
from jobwire_server.telemetry.metrics import Registry

SECRET = "s3cr3t"


@dataclass
class Services:
    """Every service in one, as far as a test needs it."""

    on_get: Callable[[], Awaitable[list[Job | None]]] | None = None
    jobs: list[Job | None] = field(default_factory=list)
    created: list[NewJob] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    asked: tuple[object, ...] = ()
    stream: Stream | None = None
    open_error: JobwireError | None = None
    store_is_away: bool = False

    async def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        return await self.on_get() if self.on_get else self.jobs

    async def create(self, jobs: Sequence[NewJob], *, brief: bool = False) -> list[Created | JobwireError]:
        self.created += jobs
        return [
            JobwireError(Reason.JOB_EXISTS, "taken", metadata={"job_id": new.id})
            if new.id == "taken"
            else Created(CreateOutcome.CREATED, new.id, 1, Standing.of(stored(new)))
            for new in jobs
        ]

    async def update(self, changes: Sequence[Change], *, brief: bool = False) -> list[Updated | JobwireError]:
        self.changes += changes
        job = self.jobs[0] if self.jobs else None
        return [Updated(None if job is None else Standing.of(job), already_applied=True) for _ in changes]

    async def cancel(self, job_id: str, *, reason: str, grace: int, etag: str | None) -> Job:
        self.asked = (job_id, reason, grace, etag)
        return big_job(job_id, 1)

    async def replay(self, job_id: str, *, etag: str | None) -> Job:
        self.asked = (job_id, etag)
        return big_job(job_id, 1)

    async def open(self, spec: ClaimSpec) -> Stream:
        if self.open_error:
            raise self.open_error
        assert self.stream is not None
        return self.stream

    async def ping(self) -> None:
        if self.store_is_away:
            raise StoreUnavailable(SECRET)

    async def queues(self, **_: object) -> Queues:
        return Queues(7, 0, [])

    async def workers(self, **_: object) -> Workers:
        return Workers(7, [])

    async def info(self) -> StoreInfo:
        await self.ping()
        return StoreInfo(
            kind="memory",
            engine="SQLite 3.54.0",
            url="memory://",
            durability="none",
            schema_version=3,
            now=7,
            recovered_at=0,
            used_bytes=4096,
            client_count=2,
            operations_per_second=1.5,
        )


class Stream:
    """A claim stream that says what a test puts into it."""

    worker_id = "w"
    session = 3

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | JobwireError | None] = asyncio.Queue()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.closing = asyncio.Event()
        self.closed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def next(self) -> Event | None:
        event = await self.events.get()
        if isinstance(event, JobwireError):
            raise event
        return event

    async def close(self, *, peer_gone: bool) -> None:
        self.closing.set()
        await self.may_close.wait()
        self.closed.set_result(peer_gone)


@dataclass
class Running:
    """A server on a port, and a channel to it."""

    server: Server
    services: Services
    channel: Any
    """Untyped: the stubs know no channel that carries plain bytes."""
    port: int
    limits: Limits
    metrics: Registry

    @property
    def jobs(self) -> Any:
        return JobServiceStub(self.channel)


@asynccontextmanager
async def running(*, reflection: bool = True, pings: Pings = PINGS, **limits: int) -> AsyncIterator[Running]:
    services = Services()
    service = cast("Any", services)
    given = replace(Limits(), **limits)
    servicers: list[Servicer] = [
        JobServicer(service, service, service, service, service, Reader(given, now=lambda: 0)),
        AdminServicer(services, service, service, Load(Registry(), advice=""), given),
    ]
    metrics = Registry()
    server = Server(servicers, limits=given, reflection=reflection, pings=pings, metrics=metrics)
    port = await server.start("127.0.0.1:0")
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Running(server, services, channel, port, given, metrics)
    finally:
        # One that is left running by a test that failed hangs a later one, in the end of gRPC's own thread.
        await server.stop(grace=1)


def stored(new: NewJob) -> Job:
    nothing: dict[str, Any] = dict.fromkeys(Job._fields)
    nothing |= {name: getattr(new, name) for name in NewJob._fields if name in nothing}
    nothing |= dict.fromkeys(
        ("score", "version", "revision", "create_time", "update_time", "attempt", "retry_count", "fence"), 1
    )
    nothing |= {"interruption_count": 0, "acknowledged": False, "cancel_requested": False, "cancel_reason": ""}
    return Job(**nothing | {"history": (), "worker_id": "w", "state": JobState.IN_PROGRESS, "claim_time": 1})


def big_job(name: str, size: int) -> Job:
    payload = job_pb2.Job(payload=job_pb2.Payload(data=b"x" * size)).SerializeToString()
    return stored(NewJob(id=name, submission=payload))


async def failure(call: Awaitable[object]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def drained(stream: Any) -> list[Any]:
    return [message async for message in stream]


def reason(error: aio.AioRpcError) -> object:
    return dict(error.trailing_metadata() or ()).get("jobwire-reason")


def has_detail(error: aio.AioRpcError, kind: Any) -> bool:
    status = rpc_status.from_call(cast("grpc.Call", error))
    return any(detail.Is(kind.DESCRIPTOR) for detail in status.details)


def said(error: aio.AioRpcError) -> str:
    """All that a failed call told its caller."""
    return f"{error.details()} {error.debug_error_string()} {list(error.trailing_metadata() or ())}"
