"""A worker: python worker.py [HOST:PORT]. Ctrl-C lets it finish what it holds."""

import sys

from jobwire_client import JobContext, Worker

worker = Worker(*sys.argv[1:2], queues=["default"], concurrency=4)


@worker.handler("hello")
async def hello(job: JobContext) -> str:
    print(f"hello, {job.text}")
    return f"hello, {job.text}"


worker.run_forever()
