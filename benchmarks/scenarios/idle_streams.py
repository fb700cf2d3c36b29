"""A thousand workers that wait: memory of each stream beside that of a bare one, and what one job a second costs.

Streams on connections of their own are those of workers that are processes, streams on shared ones those of a program
with many workers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from benchmarks import calls, lives
from benchmarks.engine_calls import TIMED, engine_calls
from benchmarks.figures import Figure, Limit, at_most
from benchmarks.lives import Tally
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import Server, cpu_seconds, resident, server

SHARED: Final = 10
"""Connections that all streams share."""
WARM_UP: Final = 10
"""Jobs before the first look at the memory."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How streams are spread over connections."""

    name: str
    must: Limit
    """KiB for each."""

    def connections(self, streams: int) -> int:
        return streams if self.name == "own" else min(SHARED, streams)


KINDS: Final = (Kind("own", at_most(60)), Kind("shared", at_most(30)))


@dataclass(frozen=True, slots=True)
class Watched:
    """What a server did while streams were open."""

    stream_kib: float
    timed_calls: float
    """Of the store, a second."""
    calls_per_job: float
    """Of the store, those of timers aside, which are made without jobs as well."""
    cpu_percent: float
    """Of one core, with a job a second."""
    counted: dict[str, int]


async def measure(setup: Setup) -> Outcome:
    figures: list[Figure] = []
    counted = {"created": 0, "completed": 0}
    for kind in KINDS:
        setup.tell(f"{setup.size.streams:,} bare streams, {kind.name} connections")
        with calls.empty_server() as empty:
            bare = await _bare_stream_kib(empty, kind, setup.size.streams)
        with server(setup.store) as running:
            watched = await _watch(setup, running, kind)
        counted = {name: number + watched.counted[name] for name, number in counted.items()}
        on = f"{setup.size.streams:,} idle streams on {kind.name} connections"
        figures += [
            Figure(f"server memory for each of {on}", "KiB", [watched.stream_kib], kind.must),
            Figure(f"memory for each of {on}, beside a bare one", "×", [watched.stream_kib / bare], aim=at_most(1.2)),
            Figure(f"bare server memory for each of {on}", "KiB", [bare]),
            Figure(f"CPU of the server, {on}, one job a second", "%", [watched.cpu_percent], at_most(10)),
        ]
        if setup.has_engine:
            figures += [
                Figure(f"store calls per job, {on}, one job a second", "calls", [watched.calls_per_job], at_most(3)),
                Figure(f"store calls of timers a second, {on}", "calls", [watched.timed_calls]),
            ]
    return Outcome(counted, figures)


async def _bare_stream_kib(empty: Server, kind: Kind, streams: int) -> float:
    async with lives.channels([empty]) as [channel]:
        await calls.bare_stream(channel).initial_metadata()  # loads what is loaded once
    async with lives.channels([empty] * kind.connections(streams)) as channels:
        before = resident(empty.pid)
        opened = [calls.bare_stream(channels[index % len(channels)]) for index in range(streams)]
        for stream in opened:
            await stream.initial_metadata()
        return (resident(empty.pid) - before) / 1024 / streams


async def _watch(setup: Setup, running: Server, kind: Kind) -> Watched:
    streams, seconds = setup.size.streams, setup.size.seconds
    who = f"{streams:,} streams on {kind.name} connections"
    await lives.whole_lives(running, jobs=WARM_UP, batch=1)  # loads what is loaded once
    before = resident(running.pid)
    setup.tell(f"opening {who}")
    tally = Tally(seconds)
    async with (
        lives.stubs([running]) as [producer],
        lives.stubs([running] * kind.connections(streams)) as takers,
        lives.workers(takers, tally, batch=1, number=streams, max_in_flight=1),
    ):
        setup.tell(f"{who}: no jobs for {seconds} s")
        with engine_calls(running) as idle:
            await asyncio.sleep(seconds)
        stream_kib = (resident(running.pid) - before) / 1024 / streams
        setup.tell(f"{who}: one job a second for {seconds} s")
        cpu = cpu_seconds(running.pid)
        with engine_calls(running) as busy:
            for _ in range(seconds):
                await asyncio.gather(producer.CreateJob(lives.new_job()), asyncio.sleep(1))
            await tally.finished.wait()
        cpu = cpu_seconds(running.pid) - cpu
    done = WARM_UP + seconds
    return Watched(
        stream_kib=stream_kib,
        timed_calls=sum(idle[script] for script in TIMED) / seconds,
        calls_per_job=(busy.total() - sum(busy[script] for script in TIMED)) / seconds,
        cpu_percent=100 * cpu / seconds,
        counted=await lives.counted(running, created=done, completed=done),
    )


SCENARIO = Scenario(
    name="idle-streams",
    what="1,000 workers that wait, on connections of their own and on shared ones: memory, then one job a second",
    promises="60 KiB for each stream on a connection of its own, 30 KiB on a shared one; 3 store calls for each job"
    " and a tenth of a core; 1.2 times the memory of bare streams is the aim",
    measure=measure,
    weight=55,
)
