"""A worker process of the demo: python -m examples.python.demo.worker TARGET ID LEDGER QUEUE

Runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from pathlib import Path

from examples.python.demo.ledger import Ledger
from jobwire_client import JobContext, JobwireError, PermanentError, Release, Settled, Worker

CONCURRENCY = 8
LEASE = 5.0
"""Seconds after which the jobs of a killed worker run elsewhere."""


def make_worker(target: str, id: str, ledger: Ledger, queue: str) -> Worker:
    """With a handler for each kind of job."""

    def settled(one: Settled) -> None:
        if one.verb == "complete" and not isinstance(one.answer, JobwireError):
            ledger.note("accepted", one.job.id, one.fence)

    worker = Worker(
        target, queues=[queue], concurrency=CONCURRENCY, lease_duration=LEASE, grace=3, id=id, on_settled=settled
    )

    def done(context: JobContext) -> str:
        """What a real handler would write somewhere; with the fence, that place can refuse a late one."""
        ledger.note("ran", context.job.id, context.fence)
        return f"done by {id}"

    @worker.handler("resize")
    def resize(context: JobContext) -> str:
        """A plain function runs in a thread."""
        time.sleep(random.uniform(0.1, 0.4))  # stands for the work
        return done(context)

    @worker.handler("email")
    @worker.handler("later")
    async def email(context: JobContext) -> str:
        await asyncio.sleep(random.uniform(0.1, 0.4))
        return done(context)

    @worker.handler("report")
    async def report(context: JobContext) -> str:
        for page in range(1, 4):
            await asyncio.sleep(0.1)
            await context.report(page / 3, f"page {page} of 3")
        return done(context)

    @worker.handler("flaky")
    async def flaky(context: JobContext) -> str:
        await asyncio.sleep(0.1)
        # Failures, not attempts: one that was interrupted is no failure.
        if context.job.retry_count + 1 < context.json()["succeeds_at"]:
            raise ConnectionError("the other side hung up")
        return done(context)

    @worker.handler("busy")
    async def busy(context: JobContext) -> str:
        if context.job.attempt == 1:
            raise Release(delay=0.5)
        await asyncio.sleep(0.1)
        return done(context)

    @worker.handler("broken")
    async def broken(context: JobContext) -> str:
        raise PermanentError("no such address", code="NO_SUCH_ADDRESS")

    @worker.handler("hopeless")
    async def hopeless(context: JobContext) -> str:
        raise TimeoutError("and it will be no better next time")

    @worker.handler("endless")
    async def endless(context: JobContext) -> str:
        await asyncio.Event().wait()
        return done(context)

    @worker.default_handler
    async def unexpected(context: JobContext) -> str:
        """Those that are cancelled or expire before they start: whoever runs one completes it, which shows."""
        return done(context)

    return worker


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {sys.argv[2]} %(levelname)s %(message)s")
    make_worker(sys.argv[1], sys.argv[2], Ledger(Path(sys.argv[3])), sys.argv[4]).run_forever()
