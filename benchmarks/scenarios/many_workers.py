"""A thousand workers that take one job each: what it costs that nobody can be given many at a time."""

from __future__ import annotations

from typing import Final

from benchmarks import lives
from benchmarks.engine_calls import engine_calls
from benchmarks.figures import Figure
from benchmarks.lives import Tally, Timing
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import server

CONNECTIONS: Final = 10
"""Over which the workers are spread."""
CREATED_AT_ONCE: Final = 100
LIVES: Final = 2
"""Of each worker in one round."""


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    jobs = LIVES * size.streams
    taken: list[Timing] = []
    store_calls: list[float] = []
    with server(setup.store) as running:
        async with lives.stubs([running]) as producers, lives.stubs([running] * CONNECTIONS) as takers:
            for _ in setup.rounds():
                tally = Tally(jobs)
                async with lives.workers(takers, tally, batch=1, number=size.streams, max_in_flight=1):
                    with engine_calls(running) as asked:
                        work = lives.lives_of(producers, tally, batch=CREATED_AT_ONCE)
                        taken.append(await lives.timed([running], jobs, work))
                    store_calls.append(asked.total() / jobs)
        done = jobs * size.runs
        counted = await lives.counted(running, created=done, completed=done)
    workers = f"{size.streams:,} workers of one job each"
    return Outcome(
        counted,
        [
            Figure(f"whole lives by {workers}", "/s", [timing.rate for timing in taken]),
            Figure(f"{workers}, CPU of the server", "µs", [timing.server_micros for timing in taken]),
            *([Figure(f"store calls of a life by {workers}", "calls", store_calls)] if setup.has_engine else []),
        ],
    )


SCENARIO = Scenario(
    name="many-workers",
    what="whole lives by 1,000 workers that hold one job at a time, each completed by a call of its own",
    promises="nothing by itself: one call of the store serves many waiting workers",
    measure=measure,
    weight=25,
)
