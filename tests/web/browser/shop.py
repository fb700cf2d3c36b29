"""A store that looks like a shop at work: for pictures, and for whoever wants to look around.

python -m tests.web.browser.shop HOST:PORT   until Ctrl-C
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from jobwire.v1.job_pb2 import Job, RetryPolicy
from jobwire_client import AsyncClient, JobContext, PermanentError, Worker
from jobwire_client.models import new_job

RENDERING = "render-2026-0042"
"""The id of a job that runs, with progress, for as long as the shop is open."""
UNDELIVERABLE = "letter-4711"
"""The id of a dead letter with a history of four attempts."""


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[None]:
    """Producers and three workers are at it until the block is left; what they need to be seen at is there."""
    async with AsyncClient(address) as client:
        workers = [_mailer(address), _printer(address), _renderer(address)]
        await client.create_many(_stock())
        await client.pause_queue("imports")
        working = [asyncio.create_task(worker.run()) for worker in workers]
        producing = asyncio.create_task(_produce(client))
        try:
            while (await client.get(UNDELIVERABLE)).attempt < 4:  # noqa: ASYNC110  # what it waits for is elsewhere
                await asyncio.sleep(0.1)
            yield
        finally:
            producing.cancel()
            for worker in workers:
                worker.stop()
            await asyncio.gather(producing, *working, return_exceptions=True)


def _stock() -> list[Job]:
    """What is there when it opens."""
    at_once = RetryPolicy(max_retries=3, initial_delay=Duration(nanos=200_000_000))
    tomorrow = datetime.now(UTC) + timedelta(hours=9)
    return [
        new_job("render.film", {"film": "2026-0042", "frames": 1440}, id=RENDERING, queue="render", user_id="studio-7"),
        *(new_job("render.film", {"film": f"2026-{n:04}"}, queue="render", user_id="studio-7") for n in range(43, 55)),
        new_job(
            "mail.letter",
            {"to": "nobody@example.org", "template": "welcome", "order": 9007199254740993},
            id=UNDELIVERABLE,
            queue="mail",
            user_id="customer-208",
            labels={"region": "eu", "campaign": "spring"},
            retry_policy=at_once,
        ),
        *(
            new_job("mail.letter", {"to": "", "n": n}, queue="mail", user_id=f"customer-{n}", labels={"region": "us"})
            for n in range(7)
        ),
        *(new_job("import.catalog", {"page": n}, queue="imports", labels={"supplier": "acme"}) for n in range(380)),
        *(
            new_job("report.monthly", {"region": region}, queue="reports", schedule_time=tomorrow, priority=2)
            for region in ("eu", "us", "apac")
        ),
    ]


async def _produce(client: AsyncClient) -> None:
    chance = random.Random(7)
    for number in range(1_000_000):
        jobs = [
            new_job("mail.letter", {"to": f"c{number}@example.org"}, queue="mail", labels={"region": "eu"})
            for _ in range(chance.randint(1, 6))
        ]
        if number % 3 == 0:
            jobs.append(new_job("print.label", {"parcel": number}, queue="labels", priority=3))
        await client.create_many(jobs)
        await asyncio.sleep(chance.uniform(0.05, 0.25))


def _mailer(address: str) -> Worker:
    worker = Worker(address, queues=["mail"], concurrency=8, id="mailer-1", version="2.4.1")

    @worker.handler("mail.letter")
    async def letter(job: JobContext) -> str:
        to = json.loads(job.text)["to"]
        await asyncio.sleep(random.uniform(0.01, 0.2))
        if not to:
            raise PermanentError("the letter has no address", code="NO_ADDRESS")
        if to.startswith("nobody"):
            raise ConnectionError("550 5.1.1 <nobody@example.org>: no such mailbox")
        return f"250 queued for {to}"

    return worker


def _printer(address: str) -> Worker:
    worker = Worker(address, queues=["labels", "reports"], concurrency=4, id="printer-1", version="2.4.1")

    @worker.handler("print.label")
    async def label(job: JobContext) -> str:
        await asyncio.sleep(0.05)
        return "printed"

    return worker


def _renderer(address: str) -> Worker:
    worker = Worker(address, queues=["render"], concurrency=3, id="renderer-gpu-3", version="0.9.0", grace=0)

    @worker.handler("render.film")
    async def film(job: JobContext) -> str:
        for frame in range(518, 1440):
            await job.report(frame / 1440, f"frame {frame} of 1440")
            await asyncio.sleep(2)
        return "rendered"

    return worker


async def _keep_open(address: str) -> None:
    async with opened(address):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_keep_open(sys.argv[1]))
