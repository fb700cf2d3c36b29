"""Single CreateJob calls beside calls of a handler that does nothing: how much of gRPC's own rate is left."""

from __future__ import annotations

from benchmarks import calls, lives
from benchmarks.engine_calls import engine_calls
from benchmarks.figures import Figure, at_least
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import server


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    ours, nothing = [], []
    with server(setup.store) as running, calls.empty_server() as empty:
        await calls.creates(running, calls=calls.IN_FLIGHT)
        await calls.empty_calls(empty, calls=calls.IN_FLIGHT)
        for _ in setup.rounds():
            nothing.append(await calls.empty_calls(empty, calls=size.calls))
            ours.append(await calls.creates(running, calls=size.calls))
        with engine_calls(running) as asked:  # not in a round that is timed: to count takes time
            await calls.creates(running, calls=size.calls)
        created = calls.IN_FLIGHT + (size.runs + 1) * size.calls
        counted = await lives.counted(running, created=created, completed=0)
    ratios = [our.rate / empty.rate for our, empty in zip(ours, nothing, strict=True)]
    return Outcome(
        counted,
        [
            Figure("single CreateJob calls beside an empty handler", "×", ratios, at_least(0.75), at_least(0.9)),
            Figure("single CreateJob calls, 64 in flight", "/s", [timing.rate for timing in ours]),
            Figure("single CreateJob calls, CPU of the server", "µs", [timing.server_micros for timing in ours]),
            *(
                [Figure("single CreateJob calls, store calls for each", "calls", [asked["create"] / size.calls])]
                if setup.has_engine
                else []
            ),
            Figure("calls of an empty handler, 64 in flight", "/s", [timing.rate for timing in nothing]),
            Figure("calls of an empty handler, CPU of the server", "µs", [timing.server_micros for timing in nothing]),
        ],
    )


SCENARIO = Scenario(
    name="single-creates",
    what="CreateJob calls with 64 in flight, in turns with an empty grpc.aio handler",
    promises="0.75 of the empty handler's rate; 0.9 is the aim",
    measure=measure,
    weight=12,
)
