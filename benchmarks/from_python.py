"""What a client in Python gets out of a server: python -m benchmarks.from_python HOST:PORT SECONDS.

The same figures as benchmarks/go has, with plain stubs and, for what is settled, our Worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from benchmarks.lives import PAYLOAD
from jobwire.v1 import job_pb2
from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_client import JobContext, Worker
from jobwire_client.hooks import Settled

QUEUE = "benchmark-python"


async def main(address: str, seconds: float) -> None:
    created = 0
    async with grpc.aio.insecure_channel(address) as channel:
        jobs: Any = JobServiceStub(channel)
        for in_flight in (1, 16, 64):
            count = await repeat(in_flight, seconds, lambda: jobs.CreateJob(new_job()), jobs=1)
            tell(f"CreateJob, {in_flight} in flight", count / seconds)
            created += count
        for size in (100, 1000):
            batch = api.BatchCreateJobsRequest(requests=[new_job() for _ in range(size)], brief=True)
            count = await repeat(2, seconds, partial(jobs.BatchCreateJobs, batch), jobs=size)
            tell(f"BatchCreateJobs of {size}, 2 in flight", count / seconds)
            created += count
    tell("claim and settle, 500 at a time", await settle(address, created))


def tell(figure: str, rate: float) -> None:
    sys.stdout.write(json.dumps({"figure": figure, "rate": round(rate, 1)}) + "\n")


def new_job() -> api.CreateJobRequest:
    payload = job_pb2.Payload(text=PAYLOAD.decode())
    return api.CreateJobRequest(job=job_pb2.Job(queue=QUEUE, type="nothing", payload=payload))


async def repeat(in_flight: int, seconds: float, call: Callable[[], Awaitable[object]], *, jobs: int) -> int:
    """Makes calls for so long, and counts the jobs of all that were answered."""
    end = time.monotonic() + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while time.monotonic() < end:
            await call()
            count += jobs

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return count


async def settle(address: str, jobs: int) -> float:
    """Works off so many jobs, and answers the rate."""
    left = jobs

    def settled(_: Settled) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            worker.stop()

    worker = Worker(address, queues=[QUEUE], concurrency=500, id=f"benchmark-{os.getpid()}", on_settled=settled)

    @worker.handler("nothing")
    async def nothing(_: JobContext) -> bytes:
        return b"ok"

    began = time.perf_counter()
    await worker.run()
    return jobs / (time.perf_counter() - began)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
