"""`jobwire bench`: a load test of the user's own server, with its own worker."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.exits import Exit
from jobwire_client.cli.values import duration

if TYPE_CHECKING:
    from datetime import timedelta

    from jobwire_client import AsyncClient, JobContext

KEPT: Final = 600
"""Seconds that a job stays after its end, should nobody be there to delete it."""

_PERCENTILES: Final = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the server."""

    jobs: int
    batch: int
    in_flight: int
    concurrency: int
    size: int
    rate: float | None
    work: float


@dataclass(slots=True)
class Taken:
    """What was seen: seconds, one of each job or call."""

    created: int = 0
    completed: int = 0
    seconds: float = 0.0
    create_calls: list[float] = field(default_factory=list)
    to_handler: list[float] = field(default_factory=list)
    """From the begin of its create to the start of its handler."""


@click.command("bench")
@click.option("--jobs", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True, help="Jobs in all.")
@click.option("--batch", type=click.IntRange(1, 1000), default=100, show_default=True, help="Jobs in one create call.")
@click.option("--in-flight", type=click.IntRange(1, 1000), default=4, show_default=True, help="Create calls at a time.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=500,
    show_default=True,
    help="Jobs run at a time.",
)
@click.option(
    "--size", type=click.IntRange(0, 200_000), default=200, show_default=True, metavar="BYTES", help="Of a payload."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="JOBS",
    help="Create so many a second, which tells how soon they start.  [default: as fast as they go]",
)
@click.option(
    "--work", type=duration, default="0s", show_default=True, metavar="DURATION", help="How long each job runs."
)
@calls_server
def bench_command(call: Call, *, rate: float | None, work: timedelta, **numbers: int) -> None:
    """Put a server under load, and tell what it can do.

    Creates jobs in a queue of its own, runs them with a worker of its own, and deletes them. Where server, producer and
    worker are on one machine they share its cores. Only figures of one machine are comparable, taken while nothing else
    runs: repeat it.

    \b
    jobwire bench                                   whole lives a second
    jobwire bench --batch 1 --in-flight 64          with single creates
    jobwire bench --rate 200 --jobs 2000 --batch 1  how soon a job starts
    """
    load = Load(rate=rate, work=work.total_seconds(), **numbers)
    queue = f"bench-{os.urandom(4).hex()}"
    with call.client() as client:
        client.server_info()  # a worker waits for its server for ever, which would hide a mistake
        try:
            with _progress(load.jobs) as told:
                taken = asyncio.run(_bench(call, load, queue, told))
            counts = client.count(queues=[queue])
        finally:
            for states in (["QUEUED", "SCHEDULED"], ["COMPLETED"]):
                client.purge_queue(queue, states=states)
    _tell(call, load, taken, counts)
    if counts != {"COMPLETED": load.jobs}:
        click.echo(f"jobwire: the server counts {counts}, not {load.jobs} COMPLETED", err=True)
        raise click.exceptions.Exit(Exit.FAILED)


async def _bench(call: Call, load: Load, queue: str, told: Callable[[Taken], None]) -> Taken:
    from jobwire_client import AsyncClient

    taken = Taken()
    begun: dict[str, float] = {}
    async with (
        AsyncClient(call.address, timeout=call.timeout, **call.connect) as client,
        _working(client, call, load, queue, taken, begun) as finished,
    ):
        start = time.perf_counter()
        showing = asyncio.create_task(_show(taken, told))
        try:
            await _create(client, load, queue, taken, begun)
            await finished.wait()
        finally:
            showing.cancel()
        taken.seconds = time.perf_counter() - start
    told(taken)
    return taken


@asynccontextmanager
async def _working(
    client: AsyncClient, call: Call, load: Load, queue: str, taken: Taken, begun: dict[str, float]
) -> AsyncIterator[asyncio.Event]:
    """A worker on that queue, which has begun to work; the event tells that all jobs are settled."""
    from jobwire_client import Worker
    from jobwire_client.hooks import Settled

    has_begun, finished = asyncio.Event(), asyncio.Event()

    def settled(_: Settled) -> None:
        if not has_begun.is_set():
            has_begun.set()
            return
        taken.completed += 1
        if taken.completed == load.jobs:
            finished.set()

    async def run(context: JobContext) -> bytes:
        if (began := begun.pop(context.job.id, None)) is not None:
            taken.to_handler.append(time.perf_counter() - began)
        if load.work:
            await asyncio.sleep(load.work)
        return b"ok"

    worker = Worker(call.address, queues=[queue], concurrency=load.concurrency, on_settled=settled, **call.connect)
    worker.default_handler(run)
    working = asyncio.create_task(worker.run())
    try:
        await client.create("bench", queue=queue, retention=0)
        await has_begun.wait()
        yield finished
    finally:
        worker.stop()
        await working


async def _create(client: AsyncClient, load: Load, queue: str, taken: Taken, begun: dict[str, float]) -> None:
    from jobwire_client import new_job

    body = b"x" * load.size
    batches = iter(range(0, load.jobs, load.batch))
    start = time.perf_counter()

    async def create_some(first: int) -> None:
        ids = [f"{queue}-{number}" for number in range(first, min(first + load.batch, load.jobs))]
        jobs = [new_job("bench", body, queue=queue, id=job_id, retention=KEPT) for job_id in ids]
        began = time.perf_counter()
        begun.update(dict.fromkeys(ids, began))
        outcomes = await client.create_many(jobs)
        taken.create_calls.append(time.perf_counter() - began)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        taken.created += len(ids)

    async def create_one_after_another() -> None:
        for first in batches:
            if load.rate is not None:
                await asyncio.sleep(start + first / load.rate - time.perf_counter())
            await create_some(first)

    creating = [asyncio.create_task(create_one_after_another()) for _ in range(load.in_flight)]
    try:
        await asyncio.gather(*creating)
    finally:
        for task in creating:
            task.cancel()


async def _show(taken: Taken, told: Callable[[Taken], None]) -> None:
    while True:
        told(taken)
        await asyncio.sleep(0.1)


@contextmanager
def _progress(jobs: int) -> Iterator[Callable[[Taken], None]]:
    """Two bars on the terminal; nothing where stderr is none."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        created, completed = (progress.add_task(name, total=jobs) for name in ("created", "completed"))

        def told(taken: Taken) -> None:
            progress.update(created, completed=taken.created)
            progress.update(completed, completed=taken.completed)

        yield told


def _tell(call: Call, load: Load, taken: Taken, counts: dict[str, int]) -> None:
    rate = taken.completed / taken.seconds
    latencies = {"create call": taken.create_calls, "create to handler": taken.to_handler}
    if call.is_json:
        document: dict[str, Any] = {
            "jobs": load.jobs,
            "completed": counts.get("COMPLETED", 0),
            "seconds": round(taken.seconds, 6),
            "lives_per_second": round(rate, 1),
        }
        for name, seconds in latencies.items():
            document[f"{name.replace(' ', '_')}_ms"] = {
                f"p{share}": round(_percentile(seconds, share) * 1000, 3) for share in _PERCENTILES
            }
        show.line(document)
        return
    how = f"{load.jobs:,} jobs of {load.size} bytes, {load.batch} to a call, {load.concurrency} at a time"
    show.facts([("load", how), ("took", f"{taken.seconds:.2f} s"), ("lives", f"{rate:,.0f} /s")])
    click.echo()
    rows = [
        (name, *(f"{_percentile(seconds, share) * 1000:.1f} ms" for share in _PERCENTILES))
        for name, seconds in latencies.items()
    ]
    heads = [f"P{share}" for share in _PERCENTILES]
    show.table(("LATENCY", *heads), rows, numbers=heads)


def _percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that so many percent do not exceed."""
    return sorted(values)[max(0, -(-len(values) * share // 100) - 1)]
