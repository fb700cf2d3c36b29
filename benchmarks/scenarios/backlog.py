"""Claims from a queue with few jobs beside claims from one with very many, and what a backlog does to memory.

Both servers run at the same time and take turns claim by claim, so that what disturbs one disturbs the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import lives
from benchmarks.figures import Figure, at_most, percentile
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.scenarios.memory_of_a_job import used_memory
from benchmarks.servers import Server, resident, server
from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_pb2

BATCH: Final = 500
TOLD_EVERY: Final = 10_000
"""Jobs between two words about how far the filling is."""
FLAT: Final = 1.1
"""Times the memory that still counts as the same, for twice the jobs: a heap breathes. With half of them queued what
has a bound is full, such as SQLite's page cache of 64 MiB; what has none shows."""
MIB: Final = 1 << 20
_WORKER: Final = worker_pb2.WorkerIdentity(id="bench")


@dataclass(frozen=True, slots=True)
class Backlog:
    """A server with a queue that is kept at its length."""

    running: Server
    stub: Any
    times: list[float]
    """Milliseconds of its claims in the round under way."""

    async def claim(self) -> None:
        """One job, timed; it is completed, and another takes its place."""
        start = time.perf_counter()
        stream = self.stub.ClaimJob(api.ClaimJobRequest(worker=_WORKER, max_jobs=1))
        message = await stream.read()
        self.times.append(1e3 * (time.perf_counter() - start))
        await stream.read()  # its end
        [assignment] = message.jobs.assignments
        await self.stub.UpdateJob(lives.complete(assignment))
        await self.stub.CreateJob(lives.new_job())


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    p50: list[tuple[float, float]] = []
    p99: list[tuple[float, float]] = []
    with server(setup.store) as few, server(setup.store) as many:
        async with lives.stubs([few, many]) as [short_stub, long_stub]:
            short, long = Backlog(few, short_stub, []), Backlog(many, long_stub, [])
            empty = used_memory(many) if setup.has_engine else 0
            await _fill(setup, short, size.backlogs[0])
            memory = [resident(many.pid)]
            for half in (size.backlogs[1] // 2, size.backlogs[1] - size.backlogs[1] // 2):
                await _fill(setup, long, half)
                memory.append(resident(many.pid))
            per_job = (used_memory(many) - empty) / size.backlogs[1] if setup.has_engine else 0
            for _ in setup.rounds("claims"):
                for _ in range(size.claims):
                    await short.claim()
                    await long.claim()
                p50.append((percentile(short.times, 50), percentile(long.times, 50)))
                p99.append((percentile(short.times, 99), percentile(long.times, 99)))
                short.times.clear()
                long.times.clear()
        done = size.runs * size.claims
        counts = [
            await lives.counted(running, created=jobs + done, completed=done)
            for running, jobs in zip((few, many), size.backlogs, strict=True)
        ]
    least, most = (f"{jobs:,}" for jobs in size.backlogs)
    return Outcome(
        {name: sum(counted[name] for counted in counts) for name in counts[0]},
        [
            Figure(
                f"claim p99, {most} jobs queued beside {least}",
                "×",
                [long / short for short, long in p99],
                at_most(2),
                at_most(1.2),
            ),
            Figure(f"claim p50, {most} jobs queued beside {least}", "×", [long / short for short, long in p50]),
            Figure(f"claim p99, {least} jobs queued", "ms", [short for short, _ in p99]),
            Figure(f"claim p99, {most} jobs queued", "ms", [long for _, long in p99]),
            Figure(f"server memory, {most} jobs queued beside half", "×", [memory[2] / memory[1]], at_most(FLAT)),
            Figure("server memory, nothing queued", "MiB", [memory[0] / MIB]),
            Figure(f"server memory, {most} jobs queued", "MiB", [memory[2] / MIB]),
            *([Figure(f"memory in the engine per queued job, {most} jobs", "B", [per_job])] if per_job else []),
        ],
    )


async def _fill(setup: Setup, backlog: Backlog, jobs: int) -> None:
    for first in range(0, jobs, TOLD_EVERY):
        setup.tell(f"filling a queue: {first:,} of {jobs:,} jobs")
        await lives.create([backlog.stub], min(TOLD_EVERY, jobs - first), BATCH)


SCENARIO = Scenario(
    name="backlog",
    what="single claims from a queue of 1,000 jobs and from one of 1,000,000, in turns; memory of server and engine",
    promises="a p99 of twice that of the short queue, and memory of the server that does not follow the backlog;"
    " 1.2 times the p99 is the aim",
    measure=measure,
    weight=90,
)
