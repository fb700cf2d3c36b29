"""All claim streams of this server: opened, told what the store hints at, drained.

Hints may get lost, and another server may have a newer stream of a worker: about once a second the store is asked how
things stand, in few calls however many streams there are.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from jobwire_server.domain.job import SECOND, JobState
from jobwire_server.service.admission import Streams, draining
from jobwire_server.service.claim_events import Cancel, ClaimSpec, Lost, superseded
from jobwire_server.service.claim_stream import ClaimStream, Lines
from jobwire_server.service.deliveries import Deliveries
from jobwire_server.service.words import Bring, no_words
from jobwire_server.store.base import Hints, Store, StoreFull, StoreUnavailable
from jobwire_server.telemetry.metrics import Registry

RECHECK: Final = 1.0
"""About how often, in seconds, the store is asked what no hint has told."""
SEEN_EVERY: Final = 20 * SECOND
"""A worker that holds nothing need not beat; as long as its stream is open, a server says so often that it is there."""
ASKED_AT_ONCE: Final = 1_000
"""Queues, or workers, that one call of the store is asked about."""


class ClaimService:
    """All claim streams of this server. `run` must be running for hints to arrive."""

    def __init__(
        self,
        store: Store,
        *,
        streams: Streams,
        expired_seen: Callable[[], None] = lambda: None,
        bring: Bring = no_words,
        metrics: Registry | None = None,
    ) -> None:
        self._store = store
        self._expired_seen = expired_seen
        self._lines = Lines(store, metrics or Registry())
        self._deliveries = Deliveries(store, bring=bring)
        self.acknowledged = self._deliveries.acknowledged
        self._streams: dict[str, set[ClaimStream]] = {}
        self._admission = streams
        self._draining = False
        self._empty = asyncio.Event()
        """No stream is left. Looked at while draining only."""

    async def open(self, spec: ClaimSpec) -> ClaimStream:
        """Opens a stream and ends older ones of the same worker id; SUPERSEDED when this one is the older."""
        if self._draining:
            raise draining()
        # Counted and known before the store is asked, so that neither the limit nor a drain overlooks it.
        principal = self._admission.enter()
        session = spec.worker.session or time.time_ns() // 1000
        stream = ClaimStream(spec, session, self._lines, self._deliveries, partial(self._closed, principal))
        siblings = self._streams.setdefault(spec.worker.id, set())
        siblings.add(stream)
        try:
            directive = await self._store.beat(stream.worker)
            if directive is None:
                raise superseded(spec.worker.id)
            stream.direct(directive)
        except BaseException:
            await stream.close(peer_gone=False)
            raise
        for other in siblings - {stream}:
            if other.session <= session:  # of equals the later arrival is the newer
                other.end(superseded(spec.worker.id))
        return stream

    async def run(self) -> None:
        """Passes the store's hints on to those who wait, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            recheck = tasks.create_task(self._recheck())
            async for hints in self._store.hints():
                self._hear(hints)
            recheck.cancel()

    async def drain(self) -> None:
        """Refuses new streams, tells the open ones, and returns when all have ended."""
        self._draining = True
        self._empty.clear()
        for siblings in self._streams.values():
            for stream in siblings:
                stream.drain()
        if self._streams:
            await self._empty.wait()

    async def finish(self) -> None:
        """Returns when every delivery that is on its way back has arrived. Before the store closes."""
        await self._deliveries.finish()

    def _closed(self, principal: str, stream: ClaimStream) -> None:
        siblings = self._streams.get(stream.worker.id)
        if siblings is not None and stream in siblings:
            siblings.discard(stream)
            self._admission.leave(principal)
            if not siblings:
                del self._streams[stream.worker.id]
                if not self._streams:
                    self._empty.set()

    def _hear(self, hints: Hints) -> None:
        if hints.expired_seen:
            self._expired_seen()
        for queue, jobs in hints.queued.items():
            self._lines.ring(queue, jobs)
        for worker_id, leases in hints.freed.items():
            for stream in self._streams.get(worker_id, ()):
                stream.freed(leases)
        for worker_id in hints.heard:
            for stream in self._streams.get(worker_id, ()):
                stream.look_everywhere()
        for worker_id, directive in hints.directives.items():
            for stream in self._streams.get(worker_id, ()):
                stream.direct(directive)
        for notice in hints.cancels:
            for stream in self._streams.get(notice.worker_id, ()):
                stream.notify(Cancel(notice))
        for notice in hints.lost:
            for stream in self._streams.get(notice.worker_id, ()):
                stream.notify(Lost(notice))

    async def _recheck(self) -> None:
        while True:
            await asyncio.sleep(RECHECK * random.uniform(0.8, 1.2))
            try:
                await self._look_for_jobs()
                await self._look_for_workers()
            except (StoreUnavailable, StoreFull):
                continue  # those who claim say so

    async def _look_for_jobs(self) -> None:
        """One stream of each line that has jobs tries to claim; its answer rings for the others."""
        for names in _bites(self._lines.waited_for()):
            for queue in (await self._store.queues(names=names)).queues:
                if queue.counts.get(JobState.QUEUED) and not queue.settings.paused:
                    self._lines.ring(queue.settings.name, 1)

    async def _look_for_workers(self) -> None:
        for ids in _bites(list(self._streams)):
            found = await self._store.workers(ids=ids)
            for worker in found.workers:
                for stream in self._streams.get(worker.info.id, ()):
                    stream.recheck(worker)
            unheard = [each.info.id for each in found.workers if each.last_heard + SEEN_EVERY <= found.now]
            if unheard:
                await self._store.seen(unheard)


def _bites(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + ASKED_AT_ONCE] for start in range(0, len(names), ASKED_AT_ONCE))
