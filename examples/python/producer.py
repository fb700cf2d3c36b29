"""A producer: python producer.py [HOST:PORT]. Makes a job for the worker beside it, and says how to see its result."""

import asyncio
import sys

from jobwire_client import AsyncClient

target = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7272"


async def main() -> None:
    async with AsyncClient(target) as client:
        job = await client.create("hello", "world", queue="default")
    print(f"Job {job.id} waits in queue {job.queue} for a worker. What has come of it (result, state, attempts):")
    print(f"""  grpcurl -plaintext -d '{{"job_id": "{job.id}"}}' {target} jobwire.v1.JobService/GetJob""")


asyncio.run(main())
