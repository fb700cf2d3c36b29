"""What the server says, again and again; faults wait for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from examples.python.demo.kinds import Queues
from jobwire_client import AsyncClient, Job

ENDED = ("COMPLETED", "FAILED", "CANCELED", "EXPIRED")
INTERVAL = 0.2
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One look."""

    counts: Counter[str]
    """Jobs by state: CountJobs."""
    running: tuple[Job, ...]
    """Those that are IN_PROGRESS: ListJobs."""

    @property
    def ended(self) -> int:
        return sum(self.counts[state] for state in ENDED)

    @property
    def unfinished(self) -> int:
        return self.counts.total() - self.ended

    def held_by(self, worker_id: str) -> list[Job]:
        """Those on their way to it are with them."""
        return [job for job in self.running if job.lease.worker_id == worker_id]


def _differs(before: Sight, now: Sight) -> bool:
    return before.counts != now.counts


class Watch:
    """Looks at the server, and tells those who wait for something to be so."""

    def __init__(self, client: AsyncClient, queues: Queues) -> None:
        self._client = client
        self._queues = queues
        self._looked = asyncio.Condition()
        self.latest = Sight(Counter(), ())

    async def look(self) -> Sight:
        """Now."""
        counts = await self._client.count(queues=[self._queues.main, self._queues.nobody])
        running = [job async for job in self._client.list(queues=[self._queues.main], states=["IN_PROGRESS"])]
        return Sight(Counter(counts), tuple(running))

    async def keep_looking(self, show: Callable[[Sight], None]) -> None:
        """Until it is cancelled."""
        while True:
            self.latest = await self.look()
            show(self.latest)
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(INTERVAL)

    async def until(self, is_so: Callable[[Sight], bool]) -> Sight:
        """The first look, from the next one on, at which it is so."""
        async with self._looked:
            await self._looked.wait()
            await self._looked.wait_for(lambda: is_so(self.latest))
            return self.latest

    async def until_none_is_left(self, *, standstill: float) -> None:
        """Returns when every job that the server knows has ended, or nothing has changed for that many seconds."""
        try:
            while (seen := await self.look()).unfinished:
                async with asyncio.timeout(standstill):
                    await self.until(partial(_differs, seen))
        except TimeoutError:
            pass

    async def all_jobs(self) -> list[Job]:
        """Every job of the demo, whole, as ListJobs has it."""
        found = []
        for queue in (self._queues.main, self._queues.nobody):
            found += [job async for job in self._client.list(queues=[queue], page_size=500)]
        return found
