"""What surrounds every call, over a real port, with services that do what a test needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # the package ships no types
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from jobwire.v1 import admin_service_pb2, job_pb2, job_service_pb2
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_server.domain.change import Change, Complete, Edit
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import Job, JobState, NewJob
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.admin_service import AdminServicer
from jobwire_server.rpc.convert import Reader
from jobwire_server.rpc.job_service import JobServicer
from jobwire_server.rpc.server import SERVICES, CannotListen, Server, Servicer
from jobwire_server.service.claim_events import Assigned, Assignment, ClaimSpec, Event, KeepAlive
from jobwire_server.service.jobs import Updated
from jobwire_server.store.base import Created, CreateOutcome, StoreInfo, StoreUnavailable

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

    async def create(self, jobs: Sequence[NewJob]) -> list[Created | JobwireError]:
        self.created += jobs
        return [
            JobwireError(Reason.JOB_EXISTS, "taken", metadata={"job_id": new.id})
            if new.id == "taken"
            else Created(CreateOutcome.CREATED, new.id, stored(new), 1)
            for new in jobs
        ]

    async def update(self, changes: Sequence[Change]) -> list[Updated | JobwireError]:
        self.changes += changes
        return [Updated(self.jobs[0] if self.jobs else None, already_applied=True) for _ in changes]

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

    async def info(self) -> StoreInfo:
        return StoreInfo("memory", "SQLite 3.54.0", "memory://", "none", now=7, recovered_at=0)


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

    @property
    def jobs(self) -> Any:
        return JobServiceStub(self.channel)


@asynccontextmanager
async def running(*, reflection: bool = True, **limits: int) -> AsyncIterator[Running]:
    services = Services()
    service = cast("Any", services)
    given = replace(Limits(), **limits)
    servicers: list[Servicer] = [
        JobServicer(service, service, Reader(given, now=lambda: 0)),
        AdminServicer(services, given),
    ]
    server = Server(servicers, limits=given, reflection=reflection)
    port = await server.start("127.0.0.1:0")
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Running(server, services, channel, port)
    await server.stop(grace=1)


@pytest.fixture
async def wire() -> AsyncIterator[Running]:
    async with running() as run:
        yield run


def stored(new: NewJob) -> Job:
    nothing: dict[str, Any] = dict.fromkeys(Job.__slots__)
    nothing |= {name: getattr(new, name) for name in NewJob.__slots__ if name in nothing}
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


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [b"\xff\xff\xff", b"\x0a\x05ab", job_service_pb2.GetJobRequest(job_id="xx").SerializeToString()[:2] + b"\xff\xfe"],
    ids=["garbage", "cut off", "not UTF-8"],
)
async def test_malformed_bytes_are_an_invalid_argument_and_nothing_leaks(
    wire: Running, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        error = await failure(wire.channel.unary_unary("/jobwire.v1.JobService/GetJob")(raw))
    assert (error.code(), reason(error)) == (StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert "Traceback" not in said(error) + caplog.text
    assert "DecodeError" not in said(error)


async def test_malformed_bytes_end_a_stream_in_the_same_way(wire: Running) -> None:
    error = await failure(drained(wire.channel.unary_stream("/jobwire.v1.JobService/ClaimJob")(b"\xff\xff")))
    assert (error.code(), reason(error)) == (StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")


async def test_an_oversized_request_is_refused() -> None:
    async with running(receive=10_000) as run:
        payload = job_pb2.Payload(data=b"x" * 10_000)
        request = job_service_pb2.CreateJobRequest(job=job_pb2.Job(payload=payload))
        error = await failure(run.jobs.CreateJob(request))
        assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        assert not run.services.created


async def test_a_bug_is_internal_with_an_id_that_finds_it_in_the_log(
    wire: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> list[Job | None]:
        raise RuntimeError(SECRET)

    wire.services.on_get = broken
    error = await failure(wire.jobs.GetJob(job_service_pb2.GetJobRequest(job_id="j")))
    assert (error.code(), reason(error)) == (StatusCode.INTERNAL, "INTERNAL")
    assert SECRET not in said(error)
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(cast("grpc.Call", error)).details[0].Unpack(info)
    [record] = [record for record in caplog.records if record.name == "jobwire.rpc"]
    assert record.levelno == logging.ERROR
    assert info.metadata["correlation_id"] in record.getMessage()
    assert SECRET in caplog.text


async def test_a_store_that_is_away_is_unavailable_and_says_when_to_repeat(wire: Running) -> None:
    async def away() -> list[Job | None]:
        raise StoreUnavailable(SECRET)

    wire.services.on_get = away
    error = await failure(wire.jobs.GetJob(job_service_pb2.GetJobRequest(job_id="j")))
    assert (error.code(), reason(error)) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert has_detail(error, error_details_pb2.RetryInfo)
    assert SECRET not in said(error)


async def test_a_faulty_field_is_named_over_the_wire(wire: Running) -> None:
    policy = job_pb2.RetryPolicy(jitter=2)
    error = await failure(wire.jobs.CreateJob(job_service_pb2.CreateJobRequest(job=job_pb2.Job(retry_policy=policy))))
    assert (error.code(), reason(error)) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert has_detail(error, error_details_pb2.BadRequest)
    assert "job.retry_policy.jitter" in (error.details() or "")


async def test_a_logged_failure_holds_no_line_break_of_a_caller(
    wire: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async def strange() -> list[Job | None]:
        raise JobwireError(Reason.JOB_NOT_FOUND, "a\nFAKE LINE \x1b[31m")

    wire.services.on_get = strange
    with caplog.at_level(logging.INFO):
        await failure(wire.jobs.GetJob(job_service_pb2.GetJobRequest(job_id="j")))
    [record] = [record for record in caplog.records if record.name == "jobwire.rpc"]
    assert record.levelno == logging.INFO
    assert "\\nFAKE LINE \\x1b" in record.getMessage()


async def test_calls_over_the_limit_are_refused_and_those_under_way_finish() -> None:
    async with running(calls_in_flight=2) as run:
        arrived = asyncio.Semaphore(0)
        go_on = asyncio.Event()

        async def slow() -> list[Job | None]:
            arrived.release()
            await go_on.wait()
            return [big_job("j", 0)]

        run.services.on_get = slow
        get = job_service_pb2.GetJobRequest(job_id="j")
        held = [asyncio.ensure_future(run.jobs.GetJob(get)) for _ in range(2)]
        await arrived.acquire()
        await arrived.acquire()
        error = await failure(run.jobs.GetJob(get))
        assert (error.code(), reason(error)) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert has_detail(error, error_details_pb2.RetryInfo)
        go_on.set()
        assert [(await call).job.id for call in held] == ["j", "j"]
        assert (await run.jobs.GetJob(get)).job.id == "j"


async def test_a_cancelled_call_makes_room_again() -> None:
    async with running(calls_in_flight=1) as run:
        arrived, cancelled = asyncio.Event(), asyncio.Event()

        async def slow() -> list[Job | None]:
            arrived.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        run.services.on_get = slow
        call = run.jobs.GetJob(job_service_pb2.GetJobRequest(job_id="j"))
        await arrived.wait()
        call.cancel()
        await cancelled.wait()
        run.services.on_get, run.services.jobs = None, [big_job("j", 0)]
        assert (await run.jobs.GetJob(job_service_pb2.GetJobRequest(job_id="j"))).job.id == "j"


# --- batches -------------------------------------------------------------------------------------------------


async def test_a_batch_answers_each_item_in_order_and_stores_what_is_right(wire: Running) -> None:
    def item(**fields: Any) -> job_service_pb2.CreateJobRequest:
        return job_service_pb2.CreateJobRequest(job=job_pb2.Job(**fields))

    preview = item(id="c")
    preview.validate_only = True
    payload = job_pb2.Payload(text="p")
    requests = [item(id="a", payload=payload), item(id="/"), item(id="taken"), preview, item(id="b")]
    answer = await wire.jobs.BatchCreateJobs(job_service_pb2.BatchCreateJobsRequest(requests=requests))
    assert [new.id for new in wire.services.created] == ["a", "taken", "b"]
    told = [result.response.job.id or result.error.reason for result in answer.results]
    assert told == ["a", "INVALID_FIELD", "JOB_EXISTS", "c", "b"]
    assert [result.response.created for result in answer.results] == [True, False, False, False, True]
    assert answer.results[1].error.metadata["field"] == "job.id"
    assert not answer.results[0].response.job.HasField("payload")


@pytest.mark.parametrize("size", [0, 4])
async def test_a_batch_of_no_or_too_many_items_is_refused(size: int) -> None:
    async with running(batch=3) as run:
        request = job_service_pb2.BatchCreateJobsRequest(requests=[job_service_pb2.CreateJobRequest()] * size)
        error = await failure(run.jobs.BatchCreateJobs(request))
        assert (error.code(), reason(error)) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_full_batch_of_the_longest_jobs_fits_into_an_answer(wire: Running) -> None:
    long = job_pb2.Job(type="t" * 256, user_id="u" * 256, queue="q" * 64)
    requests = []
    for i in range(1000):
        requests.append(job_service_pb2.CreateJobRequest(job=long))
        requests[-1].job.id = f"{i:0128}"
    answer = await wire.jobs.BatchCreateJobs(job_service_pb2.BatchCreateJobsRequest(requests=requests))
    assert answer.ByteSize() <= Limits().send
    assert len({result.response.job.id for result in answer.results}) == 1000


def settled(job_id: str) -> job_service_pb2.UpdateJobRequest:
    return job_service_pb2.UpdateJobRequest(
        job_id=job_id, token="0" * 32, complete=job_service_pb2.CompleteJob(result=job_pb2.Payload(text="r"))
    )


def raised(job_id: str) -> job_service_pb2.UpdateJobRequest:
    edit = job_service_pb2.EditJob(job=job_pb2.Job(priority=1))
    return job_service_pb2.UpdateJobRequest(job_id=job_id, edit=edit)


async def test_a_settlement_is_answered_without_bodies_and_an_edit_whole(wire: Running) -> None:
    wire.services.jobs = [big_job("j", 10)]
    settlement = await wire.jobs.UpdateJob(settled("j"))
    assert settlement.already_applied
    assert settlement.job.id == "j"
    assert not settlement.job.HasField("payload")
    assert not settlement.job.attempts
    edit = await wire.jobs.UpdateJob(raised("j"))
    assert edit.job.payload.data == b"x" * 10
    assert edit.job.attempts
    assert [type(change) for change in wire.services.changes] == [Complete, Edit]


async def test_a_settled_job_that_is_gone_at_once_is_answered_by_its_id(wire: Running) -> None:
    assert (await wire.jobs.UpdateJob(settled("j"))).job == job_pb2.Job(id="j")


async def test_a_batch_of_changes_keeps_its_order_around_refused_items(wire: Running) -> None:
    requests = [settled("a"), settled("/"), raised("b")]
    answer = await wire.jobs.BatchUpdateJobs(job_service_pb2.BatchUpdateJobsRequest(requests=requests))
    told = [result.response.job.id or result.error.reason for result in answer.results]
    assert told == ["a", "INVALID_FIELD", "b"]
    assert [change.job_id for change in wire.services.changes] == ["a", "b"]


async def test_a_cancel_is_handed_on_whole_and_no_grace_is_not_the_default(wire: Running) -> None:
    request = job_service_pb2.CancelJobRequest(job_id="j", reason="r", etag="7")
    assert (await wire.jobs.CancelJob(request)).job.HasField("payload")
    assert wire.services.asked == ("j", "r", 30_000_000, "7")
    request.grace.SetInParent()
    await wire.jobs.CancelJob(request)
    assert wire.services.asked == ("j", "r", 0, "7")


async def test_a_replay_is_handed_on_whole(wire: Running) -> None:
    assert (await wire.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id="k"))).job.id == "k"
    assert wire.services.asked == ("k", None)


async def test_an_id_asked_for_twice_is_answered_once(wire: Running) -> None:
    wire.services.jobs = [big_job("a", 0), None]
    answer = await wire.jobs.BatchGetJobs(job_service_pb2.BatchGetJobsRequest(job_ids=["a", "b", "a"]))
    assert ([job.id for job in answer.jobs], list(answer.not_found_ids)) == (["a"], ["b"])


async def test_a_dry_run_stores_nothing(wire: Running) -> None:
    request = job_service_pb2.CreateJobRequest(job=job_pb2.Job(id="x"), validate_only=True)
    answer = await wire.jobs.CreateJob(request)
    assert (answer.job.id, answer.created, wire.services.created) == ("x", False, [])


# --- claim streams -------------------------------------------------------------------------------------------


def claim(run: Running) -> Any:
    run.services.stream = Stream()
    return run.jobs.ClaimJob(job_service_pb2.ClaimJobRequest())


async def test_headers_come_at_once_and_events_as_they_happen(wire: Running) -> None:
    call = claim(wire)
    await call.initial_metadata()
    stream = wire.services.stream
    assert stream is not None
    stream.events.put_nowait(KeepAlive(now=5, held=1, credit=2))
    told = (await call.read()).keepalive
    assert (told.worker_id, told.session, told.held, told.credit) == ("w", 3, 1, 2)
    stream.events.put_nowait(None)
    assert await call.read() is aio.EOF
    assert await call.code() is StatusCode.OK
    assert await stream.closed is False


async def test_jobs_too_large_for_one_message_come_in_several() -> None:
    async with running(send=5000) as run:
        call = claim(run)
        assert run.services.stream is not None
        jobs = [Assignment(big_job(f"j{i}", 2000), bytes(16), b"") for i in range(5)]
        run.services.stream.events.put_nowait(Assigned(0, jobs))
        run.services.stream.events.put_nowait(None)
        messages = await drained(call)
        assert [[one.job.id for one in message.jobs.assignments] for message in messages] == [
            ["j0", "j1"],
            ["j2", "j3"],
            ["j4"],
        ]


async def test_a_stream_that_the_server_ends_leaves_deliveries_their_deadline(wire: Running) -> None:
    call = claim(wire)
    assert wire.services.stream is not None
    wire.services.stream.events.put_nowait(JobwireError(Reason.SUPERSEDED, "a newer stream"))
    error = await failure(drained(call))
    assert (error.code(), reason(error)) == (StatusCode.ABORTED, "SUPERSEDED")
    assert await wire.services.stream.closed is False


async def test_a_stream_that_may_not_open_says_why(wire: Running) -> None:
    wire.services.open_error = JobwireError(Reason.TOO_MANY_STREAMS, "enough", retry_after=1)
    error = await failure(drained(claim(wire)))
    assert (error.code(), reason(error)) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")


async def test_a_client_that_cancels_is_gone(wire: Running) -> None:
    call = claim(wire)
    await call.initial_metadata()
    call.cancel()
    assert wire.services.stream is not None
    assert await wire.services.stream.closed is True


async def test_a_connection_that_breaks_is_a_peer_gone(wire: Running) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{wire.port}") as channel:
        stream = wire.services.stream = Stream()
        await cast("Any", JobServiceStub(channel)).ClaimJob(job_service_pb2.ClaimJobRequest()).initial_metadata()
    assert await stream.closed is True


async def test_the_close_of_a_stream_runs_to_its_end_though_the_call_is_cancelled(wire: Running) -> None:
    call = claim(wire)
    await call.initial_metadata()
    stream = wire.services.stream
    assert stream is not None
    stream.may_close.clear()
    stream.events.put_nowait(None)
    await stream.closing.wait()
    call.cancel()
    # A call on the same connection arrives behind the cancellation.
    await failure(wire.channel.unary_unary("/jobwire.v1.JobService/Nothing")(b""))
    assert not stream.closed.done()
    stream.may_close.set()
    assert await stream.closed is False


# --- the server ----------------------------------------------------------------------------------------------


async def health_of(run: Running, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(run.channel)
    return cast("int", (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def not_serving(run: Running) -> None:
    """Returns when the server has told its watchers that it will go away."""
    stub: Any = health_pb2_grpc.HealthStub(run.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    async for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            watch.cancel()
            return


async def test_health_is_told_of_each_service_and_ends_with_the_drain(wire: Running) -> None:
    for service in ("", *SERVICES):
        assert await health_of(wire, service) == health_pb2.HealthCheckResponse.SERVING
    await wire.server.begin_drain()
    for service in ("", *SERVICES):
        assert await health_of(wire, service) == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await wire.jobs.CreateJob(job_service_pb2.CreateJobRequest())).created


@pytest.mark.parametrize("reflection", [True, False])
async def test_reflection_is_an_option(reflection: bool) -> None:
    async with running(reflection=reflection) as run:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(run.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if not reflection:
            assert (await failure(drained(call))).code() is StatusCode.UNIMPLEMENTED
            return
        [answer] = await drained(call)
        assert set(SERVICES) <= {service.name for service in answer.list_services_response.service}


async def test_a_port_that_is_taken_is_said_so(wire: Running) -> None:
    second = Server([], limits=Limits())
    with pytest.raises(CannotListen, match=f"127.0.0.1:{wire.port}"):
        await second.start(f"127.0.0.1:{wire.port}")
    await second.stop(grace=0)


async def test_stop_lets_calls_finish_and_refuses_new_ones(wire: Running) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> list[Job | None]:
        arrived.set()
        await go_on.wait()
        return [big_job("j", 0)]

    wire.services.on_get = slow
    held = asyncio.ensure_future(wire.jobs.GetJob(job_service_pb2.GetJobRequest(job_id="j")))
    await arrived.wait()
    stopping = asyncio.ensure_future(wire.server.stop(grace=30))
    await not_serving(wire)
    error = await failure(wire.jobs.CreateJob(job_service_pb2.CreateJobRequest()))
    assert (error.code(), reason(error)) == (StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    go_on.set()
    assert (await held).job.id == "j"
    await stopping


async def test_server_info_answers_without_the_store_too(wire: Running) -> None:
    admin: Any = AdminServiceStub(wire.channel)
    here = await admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest())
    assert here.store.connected
    assert (here.store.kind, here.store.durability) == (
        admin_service_pb2.STORE_KIND_MEMORY,
        admin_service_pb2.DURABILITY_VOLATILE,
    )
    assert (here.store.engine, here.store.engine_version) == ("sqlite", "3.54.0")
    assert {field.name for field, _ in here.limits.ListFields()} == set(here.limits.DESCRIPTOR.fields_by_name)
    wire.services.store_is_away = True
    away = await admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest())
    assert not away.store.connected
    assert not away.store.HasField("round_trip")
    assert (away.store.engine, away.instance_id) == (here.store.engine, here.instance_id)
