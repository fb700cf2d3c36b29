"""Creates alone, then claims with settlements of what they have left, by the number of jobs in a call."""

from __future__ import annotations

from benchmarks import lives
from benchmarks.figures import Figure
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.scenarios.whole_lives import of_timings
from benchmarks.servers import server


async def measure(setup: Setup) -> Outcome:
    figures: list[Figure] = []
    done = 0
    with server(setup.store) as running:
        for batch in setup.size.batches:
            created, settled = [], []
            jobs = setup.size.jobs_by(batch)
            for _ in setup.rounds(f"batches of {batch}"):
                created.append(await lives.creates(running, jobs=jobs, batch=batch))
                settled.append(await lives.claims_and_settlements(running, jobs=jobs, batch=batch))
                done += jobs
            figures += of_timings("creates", created, batch) + of_timings("claims and settlements", settled, batch)
        return Outcome(await lives.counted(running, created=done, completed=done), figures)


SCENARIO = Scenario(
    name="creates-and-claims",
    what="jobs created in batches by themselves, then claimed and completed in batches",
    promises="nothing by itself: where a life's time goes",
    measure=measure,
    weight=40,
)
