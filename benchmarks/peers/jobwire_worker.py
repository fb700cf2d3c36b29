"""Whole lives of jobs in jobwire with its own client and worker, as a user would write them.

python -m benchmarks.peers.jobwire_worker HOST:PORT JOBS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

from jobwire_client import AsyncClient, JobContext, Worker, new_job

CONCURRENCY: Final = 2_000
PAYLOAD: Final = b"x" * 200


async def main(address: str, jobs: int) -> None:
    left = jobs + 1
    finished = asyncio.Event()
    worker = Worker(address, concurrency=CONCURRENCY)

    @worker.handler("bench")
    async def bench(_: JobContext) -> bytes:
        nonlocal left
        left -= 1
        if left == 0:
            finished.set()
        return b"ok"

    working = asyncio.create_task(worker.run())
    async with AsyncClient(address) as client:
        first = await client.create("bench", PAYLOAD)
        await client.wait(first.id)  # the worker has started
        start = time.perf_counter()
        outcomes = await client.create_many(new_job("bench", PAYLOAD) for _ in range(jobs))
        if refused := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
            raise refused[0]
        await finished.wait()
        worker.stop()
        await working  # all is settled
        seconds = time.perf_counter() - start
        counts = await client.count()
    told = {"jobs": jobs, "seconds": seconds, "completed": counts.get("COMPLETED", 0) - 1}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
