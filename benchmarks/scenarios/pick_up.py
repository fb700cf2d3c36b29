"""How soon an idle worker has a new job: from the call of CreateJob to its stream, and to the handler of a `Worker`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from benchmarks import calls, lives
from benchmarks.figures import Figure, at_most, percentile
from benchmarks.scenario import Outcome, Scenario, Setup
from benchmarks.servers import Server, server
from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import worker_pb2

IDLE: Final = 0.005
"""Seconds without anything before each job, so that nobody is still busy with the one before."""
ON_STREAM: Final = "on-stream"
IN_HANDLER: Final = "in-handler"

Way = Callable[[], Awaitable[float]]
"""Sets something off and answers when it had arrived, by the monotonic clock, which processes of a machine share."""


async def measure(setup: Setup) -> Outcome:
    size = setup.size
    taken: dict[str, list[list[float]]] = {"empty": [], ON_STREAM: [], IN_HANDLER: []}
    with server(setup.store) as running, calls.empty_server() as empty:
        async with calls.answering(empty) as call, _stream(running) as on_stream, _worker(running) as in_handler:
            ways: dict[str, Way] = {
                "empty": lambda: _answered(call),
                ON_STREAM: on_stream,
                IN_HANDLER: in_handler,
            }
            for way in ways.values():
                await way()
            for _ in setup.rounds():
                for times in taken.values():
                    times.append([])
                for _ in range(size.pick_ups):
                    for name, way in ways.items():
                        taken[name][-1].append(await _milliseconds(way))
        done = 2 * (1 + size.runs * size.pick_ups)
        counted = await lives.counted(running, created=done, completed=done)
    p50 = {name: [percentile(each, 50) for each in rounds] for name, rounds in taken.items()}
    p99 = {name: [percentile(each, 99) for each in rounds] for name, rounds in taken.items()}
    trips = [ours / bare for ours, bare in zip(p50[IN_HANDLER], p50["empty"], strict=True)]
    return Outcome(
        counted,
        [
            Figure("create to an idle worker's handler, p50", "ms", p50[IN_HANDLER], must=at_most(3)),
            Figure("create to an idle worker's handler, p99", "ms", p99[IN_HANDLER], must=at_most(15)),
            Figure("the same p50 beside the round trip of an empty call", "×", trips, aim=at_most(1.5)),
            Figure("create to an idle worker's stream, p50", "ms", p50[ON_STREAM]),
            Figure("create to an idle worker's stream, p99", "ms", p99[ON_STREAM]),
            Figure("round trip of an empty call, p50", "ms", p50["empty"]),
            Figure("round trip of an empty call, p99", "ms", p99["empty"]),
        ],
    )


async def _milliseconds(way: Way) -> float:
    await asyncio.sleep(IDLE)
    start = time.monotonic()
    return 1e3 * (await way() - start)


async def _answered(call: Callable[[], Awaitable[object]]) -> float:
    await call()
    return time.monotonic()


@asynccontextmanager
async def _stream(running: Server) -> AsyncIterator[Way]:
    """Creates a job; when it was on the stream of a worker made of plain stubs."""
    async with lives.stubs([running, running]) as [producer, taker]:
        identity = worker_pb2.WorkerIdentity(id=ON_STREAM)
        stream = taker.ClaimJob(api.ClaimJobRequest(worker=identity, max_in_flight=10, queues=[ON_STREAM]))
        await stream.initial_metadata()

        async def way() -> float:
            create = asyncio.ensure_future(producer.CreateJob(lives.new_job(ON_STREAM)))
            message = await stream.read()
            arrived = time.monotonic()
            await create
            [assignment] = message.jobs.assignments
            await taker.UpdateJob(lives.complete(assignment))
            return arrived

        yield way
        stream.cancel()


@asynccontextmanager
async def _worker(running: Server) -> AsyncIterator[Way]:
    """Creates a job; when its handler had begun, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.idle_worker", running.address, IN_HANDLER]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told = process.stdout
    assert told is not None

    async with lives.stubs([running]) as [producer]:

        async def way() -> float:
            _, begun = await asyncio.gather(producer.CreateJob(lives.new_job(IN_HANDLER)), told.readline())
            return float(begun)

        try:
            yield way
            process.terminate()  # it drains: all is settled
        except BaseException:
            process.kill()
            raise
        finally:
            await process.wait()


SCENARIO = Scenario(
    name="pick-up",
    what="one job at a time on an idle system: to the stream of plain stubs, and to the handler of a Python `Worker`",
    promises="p50 of 3 ms and p99 of 15 ms to the handler; a p50 of 1.5 empty calls is the aim",
    measure=measure,
    weight=30,
)
