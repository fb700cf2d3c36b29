"""Single calls: creates with 64 in flight beside an empty handler, and how soon an idle worker has a new job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from benchmarks.lives import PAYLOAD
from benchmarks.servers import Server
from jobwire.v1 import job_pb2, worker_pb2
from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub

IN_FLIGHT: Final = 64


async def unary_creates(server: Server, *, calls: int) -> float:
    """CreateJob calls a second, 64 in flight."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = JobServiceStub(channel)
        request = api.CreateJobRequest(job=job_pb2.Job(payload=job_pb2.Payload(data=PAYLOAD)))
        return await _rate(lambda: stub.CreateJob(request), calls)


async def empty_calls(address: str, *, calls: int) -> float:
    """Calls a second of a handler that does nothing, served by `serve_nothing`: what gRPC itself costs here."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/benchmarks.Nothing/Do")
        return await _rate(lambda: call(PAYLOAD), calls)


async def serve_nothing(listen: str) -> None:
    """Serves it until cancelled, in a process of its own."""

    async def nothing(_: bytes, __: Any) -> bytes:
        return b""

    handler = grpc.method_handlers_generic_handler(
        "benchmarks.Nothing", {"Do": grpc.unary_unary_rpc_method_handler(nothing)}
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


async def pick_up(server: Server, *, jobs: int) -> list[float]:
    """Milliseconds from the call of CreateJob to the arrival of the job on an idle worker's stream, one by one."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = JobServiceStub(channel)
        worker = worker_pb2.WorkerIdentity(id="idle")
        stream = stub.ClaimJob(api.ClaimJobRequest(worker=worker, max_in_flight=10, queues=["pickup"]))
        await stream.initial_metadata()
        times = []
        request = api.CreateJobRequest(job=job_pb2.Job(queue="pickup", payload=job_pb2.Payload(data=PAYLOAD)))
        for _ in range(jobs):
            await asyncio.sleep(0.005)  # idle again
            start = time.perf_counter()
            create = asyncio.ensure_future(stub.CreateJob(request))
            message = await stream.read()
            times.append(1e3 * (time.perf_counter() - start))
            await create
            [each] = message.jobs.assignments
            await stub.UpdateJob(api.UpdateJobRequest(job_id=each.job.id, token=each.token, complete=api.CompleteJob()))
        stream.cancel()
        return times


async def _rate(call: Callable[[], Awaitable[object]], calls: int) -> float:
    left = calls

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return calls / (time.perf_counter() - start)
