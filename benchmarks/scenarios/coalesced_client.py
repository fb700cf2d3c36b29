"""Concurrent creates of the Python client, which share calls, beside the same number of single calls in flight."""

from __future__ import annotations

from typing import Final

from benchmarks import calls, lives
from benchmarks.figures import Figure, at_least
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import server
from jobwire_client import AsyncClient

MORE: Final = 4
"""Times as many creates as single calls, so that both sides take about as long."""


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    together, alone = [], []
    created = 0
    with server(setup.store) as running:
        async with AsyncClient(running.address) as client:
            for _ in setup.rounds():
                alone.append(await calls.creates(running, calls=size.calls))
                work = calls.in_flight(lambda: client.create("bench", lives.PAYLOAD), MORE * size.calls)
                together.append(await lives.timed([running], MORE * size.calls, work))
                created += size.calls + MORE * size.calls
        counted = await lives.counted(running, created=created, completed=0)
    ratios = [ours.rate / single.rate for ours, single in zip(together, alone, strict=True)]
    return Outcome(
        counted,
        [
            Figure("64 concurrent client.create() beside single calls", "×", ratios, at_least(5), at_least(10)),
            Figure("client.create(), 64 at a time", "/s", [timing.rate for timing in together]),
            Figure("CreateJob by plain stubs, 64 at a time", "/s", [timing.rate for timing in alone]),
        ],
    )


SCENARIO = Scenario(
    name="coalesced-client",
    what="64 concurrent `await client.create()` in Python, in turns with 64 single calls in flight",
    promises="5 times the rate of single calls; 10 times is the aim",
    measure=measure,
    weight=15,
)
