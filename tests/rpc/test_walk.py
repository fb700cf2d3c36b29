"""Every RPC of the contract against a running server: what is built, and what says that it is not."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # the package ships no types
from grpc import StatusCode, aio
from grpc_status import rpc_status

from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.admin_service import AdminServicer
from jobwire_server.rpc.convert import Reader
from jobwire_server.rpc.job_service import JobServicer
from jobwire_server.rpc.queue_service import QueueServicer
from jobwire_server.rpc.server import SERVICES, Server, Servicer, snake_case
from jobwire_server.rpc.worker_service import WorkerServicer
from jobwire_server.service.load import Load
from jobwire_server.telemetry.metrics import Registry

BUILT: Final = {
    "jobwire.v1.JobService": {
        "CreateJob",
        "BatchCreateJobs",
        "GetJob",
        "BatchGetJobs",
        "ListJobs",
        "CountJobs",
        "UpdateJob",
        "BatchUpdateJobs",
        "ClaimJob",
        "RecoverStuckJobs",
        "CancelJob",
        "RetryJob",
        "CancelJobs",
        "RetryJobs",
        "DeleteJobs",
        "DeleteJob",
        "WaitJob",
        "WatchJobs",
    },
    "jobwire.v1.WorkerService": {"Heartbeat", "ListWorkers", "DrainWorker"},
    "jobwire.v1.QueueService": {"ListQueues", "GetQueue", "UpdateQueue", "PurgeQueue"},
    "jobwire.v1.AdminService": {"GetStats", "WatchStats", "GetServerInfo", "Backup"},
}
"""Whoever builds an RPC says so here."""

METHODS = [method for service in SERVICES.values() for method in service.methods]


class Reached(Exception):
    """The call has arrived at a service."""


class AnyService:
    """Stands for every service: whatever is asked of it, the question has arrived."""

    def __getattr__(self, name: str) -> Any:
        async def reached(*_: object, **__: object) -> None:
            raise Reached(name)

        return reached


def servicers() -> list[Servicer]:
    service = cast("Any", AnyService())
    reader = Reader(Limits(), now=lambda: 0)
    return [
        JobServicer(service, service, service, service, service, reader),
        WorkerServicer(service, reader),
        QueueServicer(service, service, Limits()),
        AdminServicer(service, service, service, Load(Registry(), advice=""), Limits()),
    ]


@pytest.fixture
async def channel() -> AsyncIterator[Any]:
    """Untyped: the stubs know no channel that carries plain bytes."""
    server = Server(servicers(), limits=Limits())
    port = await server.start("127.0.0.1:0")
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(grace=1)


async def ask(channel: Any, method: MethodDescriptor) -> aio.AioRpcError | None:
    """The error that an empty request is answered with; None when the call is OK."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = GetMessageClass(method.output_type).FromString
    request = GetMessageClass(method.input_type)().SerializeToString()
    try:
        if method.server_streaming:
            stream = channel.unary_stream(path, response_deserializer=answer)(request, timeout=10)
            async for _ in stream:
                pass
        else:
            await channel.unary_unary(path, response_deserializer=answer)(request, timeout=10)
    except aio.AioRpcError as error:
        return error
    return None


def test_the_contract_is_the_four_services_that_are_walked() -> None:
    assert set(BUILT) == set(SERVICES) == {servicer.SERVICE for servicer in servicers()}
    for service, built in BUILT.items():
        assert built <= {method.name for method in SERVICES[service].methods}


@pytest.mark.parametrize("method", METHODS, ids=[method.full_name.removeprefix("jobwire.v1.") for method in METHODS])
async def test_an_rpc_is_built_or_says_that_it_is_not(channel: Any, method: MethodDescriptor) -> None:
    error = await ask(channel, method)
    if method.name in BUILT[method.containing_service.full_name]:
        # INVALID_ARGUMENT: an empty request is none. INTERNAL: it reached the service, which is none here.
        assert error is None or error.code() in (StatusCode.INVALID_ARGUMENT, StatusCode.INTERNAL)
        return
    assert error is not None
    assert error.code() is StatusCode.UNIMPLEMENTED
    assert method.name in (error.details() or "")
    assert dict(error.trailing_metadata() or ())["jobwire-reason"] == "NOT_BUILT"
    status = rpc_status.from_call(cast("grpc.Call", error))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("jobwire", "NOT_BUILT")


@pytest.mark.parametrize("servicer", servicers(), ids=lambda servicer: servicer.SERVICE)
def test_a_servicer_has_the_rpcs_that_are_built_and_nothing_else(servicer: Servicer) -> None:
    public = {name for name, _ in inspect.getmembers(servicer, inspect.ismethod) if not name.startswith("_")}
    assert public == {snake_case(name) for name in BUILT[servicer.SERVICE]}


async def test_a_method_outside_the_contract_is_unimplemented(channel: Any) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await channel.unary_unary("/jobwire.v1.JobService/Explode")(b"")
    assert caught.value.code() is StatusCode.UNIMPLEMENTED
