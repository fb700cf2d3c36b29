"""A producer: python producer.py [HOST:PORT]. Creates jobs for the worker beside it, and waits for one of them."""

import asyncio
import sys

from jobwire_client import AsyncClient, Job, JobState, new_job


async def main() -> None:
    async with AsyncClient(*sys.argv[1:2]) as client:
        job = await client.create("hello", "world", priority=1)
        for outcome in await client.create_many(new_job("hello", f"number {n}") for n in range(10)):
            print(outcome.id if isinstance(outcome, Job) else f"refused: {outcome}")
        while job.state != JobState.JOB_STATE_COMPLETED:
            await asyncio.sleep(0.1)
            job = await client.get(job.id)
        print(job.result.text)


asyncio.run(main())
