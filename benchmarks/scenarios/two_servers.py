"""Two server processes on one Redis beside one: what a second process adds.

On two cores client, servers and engine share what one server alone nearly fills, so that the clock cannot show it. The
CPU that a life costs its servers can: while it stays the same, each further process carries as much as the first.
"""

from __future__ import annotations

from typing import Final

from benchmarks import calls, lives
from benchmarks.figures import Figure, at_least
from benchmarks.lives import Timing
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import servers

BATCH: Final = 10
"""Small enough for the servers to be what holds up a life, not the engine."""


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    jobs = size.jobs_by(BATCH)
    alone: list[Timing] = []
    together: list[Timing] = []
    single: list[tuple[Timing, Timing]] = []
    with servers(setup.store, 2) as two:
        one = two[:1]
        for _ in setup.rounds():
            alone.append(await lives.whole_lives(*one, jobs=jobs, batch=BATCH))
            together.append(await lives.whole_lives(*two, jobs=jobs, batch=BATCH))
        done = 2 * size.runs * jobs
        await lives.counted(one[0], created=done, completed=done)
        for _ in setup.rounds("single creates"):
            single.append((await calls.creates(*one, calls=size.calls), await calls.creates(*two, calls=size.calls)))
        created = done + 2 * size.runs * size.calls
        counted = await lives.counted(one[0], created=created, completed=done)
    pairs = list(zip(alone, together, strict=True))
    lives_ratio = [two.rate / one.rate for one, two in pairs]
    single_ratio = [two.rate / one.rate for one, two in single]
    return Outcome(
        counted,
        [
            Figure("whole lives of two servers beside one, by the clock", "×", lives_ratio, at_least(1.5)),
            Figure(
                "whole lives of two servers beside one, by the CPU of a life",
                "×",
                [2 * one.server_cpu / max(two.server_cpu, 0.01) for one, two in pairs],
            ),
            Figure("single creates of two servers beside one, by the clock", "×", single_ratio, aim=at_least(1.8)),
            Figure(
                "whole lives of two servers, CPU of the engine",
                "%",
                [100 * timing.engine_cpu / timing.seconds for timing in together],
            ),
            Figure(f"whole lives of one server, batches of {BATCH}", "/s", [timing.rate for timing in alone]),
            Figure(f"whole lives of two servers, batches of {BATCH}", "/s", [timing.rate for timing in together]),
        ],
    )


SCENARIO = Scenario(
    name="two-servers",
    what="whole lives and single creates by two server processes on one engine, in turns with one of them",
    promises="1.5 times the lives of one, until the engine is full; nearly twice the single creates is the aim",
    measure=measure,
    weight=25,
    needs_engine=True,
)
