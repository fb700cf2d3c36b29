"""What surrounds every call: errors, limits, health, and how a server ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # the package ships no types
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from tests.rpc.standins import (
    SECRET,
    Running,
    big_job,
    drained,
    failure,
    has_detail,
    reason,
    running,
    said,
)

from jobwire.v1 import admin_service_pb2, job_pb2, job_service_pb2
from jobwire.v1.admin_service_pb2_grpc import AdminServiceStub
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.domain.job import Job
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.ports import CannotListen
from jobwire_server.rpc.server import SERVICES, Server
from jobwire_server.store.base import StoreUnavailable


@pytest.fixture
async def wire() -> AsyncIterator[Running]:
    async with running() as run:
        yield run


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
        assert error.details() == "this server works on 2 calls at once, and that many are under way"
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
    assert {field.name for field, _ in here.store.ListFields()} == set(here.store.DESCRIPTOR.fields_by_name)
    assert {field.name for field, _ in here.limits.ListFields()} == set(here.limits.DESCRIPTOR.fields_by_name)
    wire.services.store_is_away = True
    away = await admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest())
    assert not away.store.connected
    assert not away.store.HasField("round_trip")
    assert (away.store.engine, away.instance_id) == (here.store.engine, here.instance_id)
