"""Whole lives of jobs through the wire: created in batches, claimed over one stream, completed in batches.

Plain stubs, no client of ours: this measures the server. A payload of 200 bytes, a result of 2. A job counts when the
server has answered its completion with OK, and the counts of the store are asked in the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from benchmarks.servers import Server, cpu_seconds
from jobwire.v1 import job_pb2, worker_pb2
from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub

PAYLOAD: Final = b"x" * 200
RESULT: Final = job_pb2.Payload(data=b"ok")
CREATES_AT_ONCE: Final = 4
SETTLEMENTS_AT_ONCE: Final = 8

_OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20)]


@dataclass(frozen=True, slots=True)
class Timing:
    """What one run took."""

    jobs: int
    seconds: float
    server_cpu: float
    engine_cpu: float

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds

    @property
    def server_micros(self) -> float:
        """CPU of the server for each job, in microseconds."""
        return 1e6 * self.server_cpu / self.jobs

    @property
    def engine_micros(self) -> float:
        return 1e6 * self.engine_cpu / self.jobs


async def whole_lives(server: Server, *, jobs: int, batch: int) -> Timing:
    """Creates and completes at the same time."""
    async with _stub(server) as producer, _stub(server) as worker:
        return await _timed(server, jobs, _together(_create(producer, jobs, batch), _complete(worker, jobs, batch)))


async def creates(server: Server, *, jobs: int, batch: int) -> Timing:
    async with _stub(server) as producer:
        return await _timed(server, jobs, _create(producer, jobs, batch))


async def claims_and_settlements(server: Server, *, jobs: int, batch: int) -> Timing:
    """Of jobs that `creates` has left in the queue."""
    async with _stub(server) as worker:
        return await _timed(server, jobs, _complete(worker, jobs, batch))


async def completed(server: Server) -> int:
    """How many jobs the store counts as COMPLETED, all others being none."""
    async with _stub(server) as stub:
        counts = (await stub.CountJobs(api.CountJobsRequest())).counts
        states = {count.state: count.count for count in counts}
        done = states.pop(job_pb2.JOB_STATE_COMPLETED, 0)
        assert not states, f"jobs are left over: {states}"
        return int(done)


async def _timed(server: Server, jobs: int, work: Coroutine[Any, Any, None]) -> Timing:
    server_cpu, engine_cpu = cpu_seconds(server.pid), cpu_seconds(server.engine_pid or 0)
    start = time.perf_counter()
    await work
    seconds = time.perf_counter() - start
    return Timing(jobs, seconds, cpu_seconds(server.pid) - server_cpu, cpu_seconds(server.engine_pid or 0) - engine_cpu)


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*work)


async def _create(stub: Any, jobs: int, batch: int) -> None:
    turns = asyncio.Semaphore(CREATES_AT_ONCE)

    async def create(number: int) -> None:
        async with turns:
            requests = [
                api.CreateJobRequest(job=job_pb2.Job(payload=job_pb2.Payload(data=PAYLOAD))) for _ in range(number)
            ]
            answer = await stub.BatchCreateJobs(api.BatchCreateJobsRequest(requests=requests))
            assert all(result.response.created for result in answer.results)

    await asyncio.gather(*(create(min(batch, jobs - first)) for first in range(0, jobs, batch)))


async def _complete(stub: Any, jobs: int, batch: int) -> None:
    turns = asyncio.Semaphore(SETTLEMENTS_AT_ONCE)
    done = 0
    finished = asyncio.Event()
    under_way: set[asyncio.Task[None]] = set()

    async def settle(requests: list[api.UpdateJobRequest]) -> None:
        nonlocal done
        async with turns:
            answer = await stub.BatchUpdateJobs(api.BatchUpdateJobsRequest(requests=requests))
        assert all(result.HasField("response") for result in answer.results)
        done += len(requests)
        if done == jobs:
            finished.set()

    async def work() -> None:
        worker = worker_pb2.WorkerIdentity(id="bench")
        stream = stub.ClaimJob(api.ClaimJobRequest(worker=worker, max_in_flight=max(4 * batch, 100)))
        gathered: list[api.UpdateJobRequest] = []
        async for message in stream:
            gathered += [
                api.UpdateJobRequest(job_id=each.job.id, token=each.token, complete=api.CompleteJob(result=RESULT))
                for each in message.jobs.assignments
            ]
            while gathered:
                task = asyncio.create_task(settle(gathered[:batch]))
                del gathered[:batch]
                under_way.add(task)
                task.add_done_callback(under_way.discard)

    stream = asyncio.create_task(work())
    await finished.wait()
    stream.cancel()


@asynccontextmanager
async def _stub(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address, options=_OPTIONS) as channel:
        yield JobServiceStub(channel)
