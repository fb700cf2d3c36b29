"""A thousand callers who watch what is theirs while others' jobs run: what that costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from benchmarks import lives
from benchmarks.figures import Figure, at_most
from benchmarks.lives import Timing
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import Server, resident, server
from jobwire.v1 import job_pb2
from jobwire.v1 import job_service_pb2 as api

CONNECTIONS: Final = 10
"""Over which the watches are spread."""


async def measure(setup: Setup) -> Outcome:
    size, batch = setup.size, setup.size.batches[-1]
    jobs = size.jobs_by(batch)
    alone: list[Timing] = []
    watched: list[Timing] = []
    # Two servers, since one goes on listening for a while after the last watch has ended.
    with server(setup.store) as quiet, server(setup.store) as busy:
        for each in (quiet, busy):
            await lives.whole_lives(each, jobs=jobs, batch=batch)  # loads what is loaded once
        before = resident(busy.pid)
        async with _watches(busy, size.streams):
            watch_kib = (resident(busy.pid) - before) / 1024 / size.streams
            for number in setup.rounds():
                for each, taken in ((quiet, alone), (busy, watched))[:: -1 if number % 2 else 1]:
                    taken.append(await lives.whole_lives(each, jobs=jobs, batch=batch))
        done = jobs * (size.runs + 1)
        for each in (quiet, busy):
            counted = await lives.counted(each, created=done, completed=done)
    watches = f"{size.streams:,} watches of others"
    return Outcome(
        {name: 2 * number for name, number in counted.items()},
        [
            Figure(
                f"CPU of a life beside {watches}, and without",
                "×",
                [_micros(beside) / _micros(without) for beside, without in zip(watched, alone, strict=True)],
                at_most(1.1),
                at_most(1.05),
                batch,
            ),
            Figure(
                f"CPU of the server, beside {watches}", "µs", [timing.server_micros for timing in watched], batch=batch
            ),
            Figure("CPU of the server without", "µs", [timing.server_micros for timing in alone], batch=batch),
            Figure(f"server memory for each of {watches}", "KiB", [watch_kib]),
        ],
    )


def _micros(timing: Timing) -> float:
    return timing.server_micros + timing.engine_micros


@asynccontextmanager
async def _watches(running: Server, number: int) -> AsyncIterator[None]:
    """Half of them of a job each, half of a user's jobs; their snapshots have been told."""
    async with lives.stubs([running] * CONNECTIONS) as stubs:

        async def watch(index: int) -> None:
            if index % 2:
                request = api.WatchJobsRequest(job_ids=[f"theirs-{index}"])
            else:
                request = api.WatchJobsRequest(filter=job_pb2.JobFilter(user_id=f"user-{index}"))
            async for event in stubs[index % len(stubs)].WatchJobs(request):
                if event.HasField("snapshot_done"):
                    told.release()

        told = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(watch(index)) for index in range(number)]
            for _ in watching:
                await told.acquire()
            yield
            for each in watching:
                each.cancel()


SCENARIO = Scenario(
    name="watched-lives",
    what="whole lives beside 1,000 watches of other jobs and other users, and without any, in turns",
    promises="a tenth more CPU of server and engine at most; a twentieth is the aim",
    measure=measure,
    weight=30,
)
