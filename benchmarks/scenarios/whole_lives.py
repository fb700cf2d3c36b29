"""Whole lives a second, by the number of jobs in a call."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import lives
from benchmarks.figures import Figure
from benchmarks.lives import Timing
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import server


async def measure(setup: Setup) -> Outcome:
    figures: list[Figure] = []
    done = 0
    with server(setup.store) as running:
        await lives.whole_lives(running, jobs=(done := setup.size.batches[-1]), batch=done)  # loads what is loaded once
        for batch in setup.size.batches:
            taken = []
            jobs = setup.size.jobs_by(batch)
            for _ in setup.rounds(f"batches of {batch}"):
                taken.append(await lives.whole_lives(running, jobs=jobs, batch=batch))
                done += jobs
            figures += of_timings("whole lives", taken, batch)
        return Outcome(await lives.counted(running, created=done, completed=done), figures)


def of_timings(name: str, taken: Sequence[Timing], batch: int) -> list[Figure]:
    """Rate, and what each job cost."""
    return [
        Figure(name, "/s", [timing.rate for timing in taken], batch=batch),
        Figure(f"{name}, CPU of the server", "µs", [timing.server_micros for timing in taken], batch=batch),
        *(
            [Figure(f"{name}, CPU of the engine", "µs", [timing.engine_micros for timing in taken], batch=batch)]
            if any(timing.engine_cpu for timing in taken)
            else []
        ),
    ]


SCENARIO = Scenario(
    name="whole-lives",
    what="jobs created, claimed over a stream and completed at the same time, in batches",
    promises="twice BullMQ, four times beanstalkd -f 0, 1.2 times River: `make bench-peers` compares",
    measure=measure,
    weight=35,
)
