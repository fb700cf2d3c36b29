"""The clock's part in a job's life: what is due is promoted, what is overdue taken back, what has ended purged."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.service.words import Bring, no_words
from jobwire_server.store.base import Store, StoreFull, StoreUnavailable
from jobwire_server.telemetry.logs import fields

_TICK: Final = 0.2
"""Seconds between two sweeps: what a due job waits at most, and a good part of what a dead worker's job does."""
_PURGE_EVERY: Final = 10
"""Ticks between two purges: nobody waits for those."""
_BITE: Final = 500
"""Jobs handled by one store call, so that claims and settlements get their turn in between."""

log = logging.getLogger("jobwire.maintenance")


class Maintenance:
    """Sweeps until cancelled. Every server runs it; the guards make two at a time harmless."""

    def __init__(self, store: Store, *, bring: Bring = no_words) -> None:
        self._store = store
        self._bring = bring
        self._bell = asyncio.Event()

    def ring(self) -> None:
        """Sweeps soon instead of at the next tick."""
        self._bell.set()

    async def run(self) -> None:
        tick = 0
        while True:
            try:
                await self._sweep(purge=tick % _PURGE_EVERY == 0)
            except (StoreUnavailable, StoreFull) as error:
                log.warning("the sweep waits: %s", error)
            tick += 1
            self._bell.clear()
            try:
                async with asyncio.timeout(_TICK * random.uniform(0.8, 1.2)):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def _sweep(self, *, purge: bool) -> None:
        while await self._store.promote(limit=_BITE) == _BITE:
            pass
        while await self._reap() == _BITE:
            pass
        while purge and await self._store.purge(limit=_BITE) == _BITE:
            pass

    async def _reap(self) -> int:
        """Ends what has expired and takes back what is overdue, up to a bite; answers how many it could."""
        found = await self._store.overdue(limit=_BITE)
        moves = [
            self._bring(
                job,
                policy.reap(job, now=found.now, random=random.random())
                if job.state is JobState.IN_PROGRESS
                else policy.expire(job),
            )
            for job in found.jobs
            if job is not None
        ]
        if not moves:
            return 0
        moved = await self._store.move(moves)
        applied = [move for move, result in zip(moves, moved, strict=True) if result.outcome is Outcome.OK]
        for move in applied:
            told = fields(verb=move.verb, job_id=move.job_id, state=move.to)
            log.info("%s: job %s is %s now", move.verb, move.job_id, move.to, extra=told)
        return len(applied)
