"""A worker of its own process, for tests that signal and kill it: TARGET QUEUE GRACE.

It says on its standard output what it does, a line each, and its handlers wait for a line on its standard input.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from jobwire_client import JobContext, Worker

target, queue, grace = sys.argv[1:]
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
log = logging.getLogger("program")
worker = Worker(target, queues=[queue], concurrency=2, grace=float(grace), lease_duration=1)


@worker.handler("finishing")
async def finishing(context: JobContext) -> str:
    log.info("started %s", context.job.id)
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


@worker.handler("endless")
async def endless(context: JobContext) -> None:
    log.info("started %s", context.job.id)
    await asyncio.Event().wait()


@worker.handler("blocking")
async def blocking(context: JobContext) -> None:
    log.info("started %s", context.job.id)
    time.sleep(60)  # noqa: ASYNC251 - the mistake that this handler is for


worker.run_forever()
