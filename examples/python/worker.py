"""A worker: python worker.py [HOST:PORT]. Ctrl-C lets it finish what it holds."""

import logging
import sys

from jobwire_client import JobContext, Worker

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
worker = Worker(*sys.argv[1:2], queues=["default"], concurrency=4)


@worker.handler("hello")
async def hello(job: JobContext) -> str:
    print(f"hello, {job.text}")
    return f"hello, {job.text}"


worker.run_forever()
