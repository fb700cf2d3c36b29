"""Memory of the engine for each queued job, without a user and without a request id."""

from __future__ import annotations

from typing import Final

from redis import Redis

from benchmarks import lives
from benchmarks.figures import Figure, at_most
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import Server, server

BATCH: Final = 500


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    taken = []
    created = 0
    with server(setup.store) as running:
        empty = used_memory(running)
        for _ in setup.rounds():
            await lives.creates(running, jobs=size.jobs, batch=BATCH)
            created += size.jobs
            # Of all so far: tables double their size now and then, so that single rounds differ.
            taken.append((used_memory(running) - empty) / created)
        counted = await lives.counted(running, created=created, completed=0)
    return Outcome(counted, [Figure("memory in the engine per queued job", "B", taken, at_most(900), at_most(600))])


def used_memory(running: Server) -> int:
    """Bytes, without what the engine holds for its clients and its log for the moment."""
    with Redis.from_url(running.engine_url) as client:
        told = client.info("memory")
    used: int = told["used_memory"] - told["mem_aof_buffer"] - told["mem_clients_normal"]
    return used


SCENARIO = Scenario(
    name="memory-of-a-job",
    what="memory that Redis uses for each queued job with a payload of 200 bytes",
    promises="900 bytes; 600 is the aim",
    measure=measure,
    weight=12,
    needs_engine=True,
)
