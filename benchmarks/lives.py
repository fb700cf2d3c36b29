"""Whole lives of jobs through the wire: created in batches, claimed over streams, completed in batches.

Plain stubs, no client of ours: this measures the server. A payload of 200 bytes, a result of 2. A job counts when the
server has answered its completion with OK, and the counts of the store are asked in the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
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

# A connection for each channel, also where several lead to the same server.
_OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20)]


class Miscounted(Exception):
    """The server does not count what was done; no figure of this run can be trusted."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one run took."""

    jobs: int
    seconds: float
    server_cpu: float
    """Of all servers that took part."""

    engine_cpu: float

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds

    @property
    def server_micros(self) -> float:
        """CPU of the servers for each job, in microseconds."""
        return 1e6 * self.server_cpu / self.jobs

    @property
    def engine_micros(self) -> float:
        return 1e6 * self.engine_cpu / self.jobs


@dataclass(slots=True)
class Tally:
    """Jobs that workers have yet to complete, together."""

    left: int
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, completed: int) -> None:
        self.left -= completed
        if self.left <= 0:
            self.finished.set()


async def whole_lives(*servers: Server, jobs: int, batch: int) -> Timing:
    """Creates and completes at the same time; spread over the servers, which have one store."""
    tally = Tally(jobs)
    async with stubs(servers) as producers, stubs(servers) as takers, workers(takers, tally, batch=batch):
        return await timed(servers, jobs, lives_of(producers, tally, batch=batch))


async def lives_of(producers: Sequence[Any], tally: Tally, *, batch: int) -> None:
    """Creates as many jobs as the tally wants completed, and returns when its workers have completed them."""
    await asyncio.gather(create(producers, tally.left, batch), tally.finished.wait())


async def creates(server: Server, *, jobs: int, batch: int) -> Timing:
    async with stubs([server]) as producers:
        return await timed([server], jobs, create(producers, jobs, batch))


async def claims_and_settlements(server: Server, *, jobs: int, batch: int) -> Timing:
    """Of jobs that `creates` has left in the queue."""
    async with stubs([server]) as takers:
        return await timed([server], jobs, _complete(takers, Tally(jobs), batch))


async def counted(server: Server, *, created: int, completed: int) -> dict[str, int]:
    """What was done, as the store counts it. Raises Miscounted when it is anything else."""
    found = await _states(server)
    done, queued = found.pop("COMPLETED", 0), found.pop("QUEUED", 0)
    if found or done != completed or done + queued != created:
        raise Miscounted(
            f"{created:,} jobs were created and {completed:,} of them completed; the store counts {done:,} COMPLETED,"
            f" {queued:,} QUEUED and {found or 'no others'}"
        )
    return {"created": created, "completed": completed}


async def completed(server: Server) -> int:
    """How many jobs the store counts as COMPLETED, all others being none."""
    found = await _states(server)
    done = found.pop("COMPLETED", 0)
    assert not found, f"jobs are left over: {found}"
    return done


async def _states(server: Server) -> dict[str, int]:
    async with stubs([server]) as [asked]:
        counts = (await asked.CountJobs(api.CountJobsRequest())).counts
    return {
        job_pb2.JobState.Name(each.state).removeprefix("JOB_STATE_"): int(each.count) for each in counts if each.count
    }


async def timed(servers: Sequence[Server], jobs: int, work: Coroutine[Any, Any, None]) -> Timing:
    """What that work took, of which these servers, on one store, do the most."""
    server_cpu, engine_cpu = _cpu(servers), cpu_seconds(servers[0].engine_pid)
    start = time.perf_counter()
    await work
    seconds = time.perf_counter() - start
    return Timing(jobs, seconds, _cpu(servers) - server_cpu, cpu_seconds(servers[0].engine_pid) - engine_cpu)


async def _complete(takers: Sequence[Any], tally: Tally, batch: int) -> None:
    async with workers(takers, tally, batch=batch):
        await tally.finished.wait()


def _cpu(servers: Sequence[Server]) -> float:
    return sum(cpu_seconds(server.pid) for server in servers)


async def create(stubs: Sequence[Any], jobs: int, batch: int) -> None:
    """In turns at each of the servers."""
    turns = asyncio.Semaphore(CREATES_AT_ONCE)

    async def create_some(index: int, number: int) -> None:
        async with turns:
            answer = await stubs[index % len(stubs)].BatchCreateJobs(
                api.BatchCreateJobsRequest(requests=[new_job() for _ in range(number)], brief=True)
            )
            assert all(result.response.created for result in answer.results)

    sizes = (min(batch, jobs - first) for first in range(0, jobs, batch))
    await asyncio.gather(*(create_some(index, size) for index, size in enumerate(sizes)))


def new_job(queue: str = "") -> api.CreateJobRequest:
    return api.CreateJobRequest(job=job_pb2.Job(queue=queue, payload=job_pb2.Payload(data=PAYLOAD)))


def complete(assignment: Any) -> api.UpdateJobRequest:
    return api.UpdateJobRequest(
        job_id=assignment.job.id, token=assignment.token, complete=api.CompleteJob(result=RESULT)
    )


@asynccontextmanager
async def workers(
    stubs: Sequence[Any], tally: Tally, *, batch: int, number: int = 0, max_in_flight: int = 0
) -> AsyncIterator[None]:
    """Workers that complete what comes, one at each stub unless there is a number of them. Open when it begins."""
    async with asyncio.TaskGroup() as tasks:
        working = []
        for index in range(number or len(stubs)):
            identity = worker_pb2.WorkerIdentity(id=f"bench-{index}")
            request = api.ClaimJobRequest(worker=identity, max_in_flight=max_in_flight or max(4 * batch, 100))
            opened = asyncio.Event()
            working.append(
                tasks.create_task(_work(stubs[index % len(stubs)], request, tally, batch=batch, opened=opened))
            )
            await opened.wait()
        yield
        for worker in working:
            worker.cancel()


async def _work(stub: Any, request: api.ClaimJobRequest, tally: Tally, *, batch: int, opened: asyncio.Event) -> None:
    turns = asyncio.Semaphore(SETTLEMENTS_AT_ONCE)

    async def settle(requests: list[api.UpdateJobRequest]) -> None:
        async with turns:
            answer = await stub.BatchUpdateJobs(api.BatchUpdateJobsRequest(requests=requests, brief=True))
        assert all(result.HasField("response") for result in answer.results)
        tally.count(len(requests))

    stream = stub.ClaimJob(request)
    await stream.initial_metadata()
    opened.set()
    async with asyncio.TaskGroup() as settlements:
        async for message in stream:
            gathered = [complete(each) for each in message.jobs.assignments]
            for first in range(0, len(gathered), batch):
                settlements.create_task(settle(gathered[first : first + batch]))


@asynccontextmanager
async def stubs(servers: Sequence[Server]) -> AsyncIterator[list[Any]]:
    """One for each, on a connection of its own."""
    async with channels(servers) as opened:
        yield [JobServiceStub(channel) for channel in opened]


@asynccontextmanager
async def channels(servers: Sequence[Server]) -> AsyncIterator[list[grpc.aio.Channel]]:
    """One for each: the same server twice has two connections."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=_OPTIONS))
            for server in servers
        ]
