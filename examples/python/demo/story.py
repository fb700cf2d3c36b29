"""What happens: servers, a crew, a producer, faults, and the end."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from examples.python.demo import verdict
from examples.python.demo.crew import Crew, Fault
from examples.python.demo.kinds import ENDLESS, Queues, make_job, mixed_types
from examples.python.demo.ledger import read
from examples.python.demo.processes import Children
from examples.python.demo.screen import Screen
from examples.python.demo.store import OwnStore
from examples.python.demo.watch import Sight, Watch
from jobwire_client import AsyncClient, Job, JobwireError

WORKERS = 4
ENDLESS_JOBS = 6
WAVE = 250
"""Jobs that are created at a time; the next ones when fewer than so many wait."""
STANDSTILL = 40.0
"""Seconds without any change after which what has not ended counts as lost. A lease and a backoff are far shorter."""

KILL, REDEPLOY = Crew.kill_one, Crew.redeploy_one
FAULTS = ((0.1, KILL), (0.25, REDEPLOY), (0.4, KILL), (0.5, REDEPLOY))
"""Each happens when that share of the jobs has ended and the worker that it is for holds jobs."""


@dataclass(slots=True)
class Told:
    """How the story ended."""

    seconds: float
    found: list[Job] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What must not be; empty when all is well."""


class NotStarted(Exception):
    """A server did not start; the log says why."""


async def tell(store: OwnStore, count: int, folder: Path, screen: Screen, servers: Children, workers: Children) -> Told:
    """Runs it all; every child has ended when it returns."""
    began = time.monotonic()
    queues = Queues("main", "nobody")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(servers)
        targets = [await _serve(servers, store, screen.say) for _ in range(store.servers)]
        producing = await stack.enter_async_context(AsyncClient(targets[0]))
        watching = await stack.enter_async_context(AsyncClient(targets[-1]))
        watch = Watch(watching, queues)
        # Entered last: workers end before the servers do.
        await stack.enter_async_context(workers)
        crew = Crew(workers, targets, queues, folder / "ledger", watch, screen.say)
        for _ in range(WORKERS):
            await crew.hire()
        screen.say(f"{WORKERS} workers; jobs arrive {WAVE} at a time, {count} in all")
        created: dict[str, str] = {}
        refused: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(
                watch.keep_looking(lambda sight: screen.show(sight, count, [member.id for member in crew.members]))
            )
            endless = tasks.create_task(_cancel_the_endless(producing, watch))
            faults = tasks.create_task(_disturb(crew, watch, count))
            await _produce(producing, watch, queues, count, created, refused)
            unwanted = await producing.cancel_where(
                queues=[queues.main], types=["unwanted"], reason="not wanted any more"
            )
            screen.say(
                f"All {len(created)} jobs are created; {unwanted} that wait for their time are cancelled in one call"
            )
            await watch.until_none_is_left(standstill=STANDSTILL)
            # The last fault may still be draining; one that still waits for its moment will not have it.
            await asyncio.wait([faults], timeout=5)
            for task in (looking, endless, faults):
                task.cancel()
        told = Told(time.monotonic() - began, await watch.all_jobs(), crew.faults)
        counted = (await watch.look()).counts
    # Only now: what a worker notes of a settlement may be behind what the server has.
    told.wrong = refused + verdict.complaints(created, told.found, counted, read(folder / "ledger"), told.faults)
    if len(told.faults) < len(FAULTS):
        told.wrong.append(f"only {len(told.faults)} of {len(FAULTS)} faults happened: no worker held jobs at the time")
    return told


async def _serve(servers: Children, store: OwnStore, say: Callable[[str], None]) -> str:
    """A server; its address."""
    # By the environment, since a password may be in it.
    process = await servers.start(
        "jobwire_server",
        *("serve", "--listen", "127.0.0.1:0", "--log-level", "warning"),
        settings={"JOBWIRE_STORE": store.url},
    )
    first, second = await _line(process), await _line(process)
    if not first.startswith("listening on "):
        raise NotStarted
    target = first.removeprefix("listening on ")
    say(f"A server at {target}, {' '.join(second.split())}")
    return target


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def _produce(
    client: AsyncClient, watch: Watch, queues: Queues, count: int, created: dict[str, str], refused: list[str]
) -> None:
    types = mixed_types(count, ENDLESS_JOBS)
    for first in range(0, count, WAVE):
        await watch.until(lambda sight: sight.counts["QUEUED"] < WAVE)
        wave = types[first : first + WAVE]
        for type, answer in zip(wave, await client.create_many(make_job(type, queues) for type in wave), strict=True):
            if isinstance(answer, JobwireError):
                refused.append(f"a job of type {type} was refused: {answer}")
            else:
                created[answer.id] = type


async def _cancel_the_endless(client: AsyncClient, watch: Watch) -> None:
    """Each as soon as it is seen to run. Until it is cancelled itself."""

    def running(sight: Sight) -> list[Job]:
        return [job for job in sight.running if job.type == ENDLESS.type and not job.cancel_requested]

    while True:
        for job in running(await watch.until(lambda sight: bool(running(sight)))):
            await client.cancel(job.id, reason="not wanted any more", grace=5)


async def _disturb(crew: Crew, watch: Watch, count: int) -> None:
    for share, fault in FAULTS:
        await watch.until(partial(_have_ended, share * count))
        await fault(crew)


def _have_ended(count: float, sight: Sight) -> bool:
    return sight.ended >= count
