"""One caller's watch: what it has still to be told.

It keeps states and no events: of each job the latest only. So a caller that reads slowly costs a bounded memory and
gets what it missed merged; when even that is too much it gets a new snapshot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import islice
from typing import Final

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import Job
from jobwire_server.domain.limits import KIB, MIB
from jobwire_server.service.watch_events import (
    Event,
    JobsChanged,
    JobsRemoved,
    KeepAlive,
    SnapshotDone,
    SnapshotStarted,
)
from jobwire_server.store.base import Snapshot, Store

KEEPALIVE: Final = 12.0
"""Seconds without another event after which a watch hears from us; the contract says at most 15."""
AT_ONCE: Final = 100
"""Jobs of one event."""
READ_AT_ONCE: Final = 32
"""Jobs read by their ids for one event: each watch that is not read from holds as many of the largest."""
MAX_PENDING: Final = 10_000
"""Jobs that wait to be told; beyond them there is a new snapshot."""
PENDING_BYTES: Final = 256 * KIB
"""What the jobs that wait may weigh; of more only the ids are kept, and they are read again when they are told."""
LAST_BYTES: Final = 4 * MIB
"""What the last states of jobs that have gone may weigh: nobody can read them again."""
JOB_BYTES: Final = 2 * KIB
"""About what a job weighs beside its submission and its result."""

Read = Callable[[Sequence[str]], Awaitable[Snapshot]]


class Watch:
    """Of these ids, or of a filter. Its handler calls `next` until it raises, and the hub's `close` in any case."""

    def __init__(
        self,
        store: Store,
        read: Read,
        principal: str = "",
        *,
        job_ids: Sequence[str] = (),
        wanted: JobFilter | None = None,
    ) -> None:
        self.principal: Final = principal
        self.job_ids: Final = tuple(dict.fromkeys(job_ids))
        self.wanted: Final = wanted
        """None: the ids are."""
        self.closed: Final = asyncio.Event()
        self._store = store
        self._read = read
        self._changed: dict[str, Job | None] = {}
        """None: read it when it is told. No id stands here and among those removed."""
        self._bytes = 0
        self._removed: dict[str, None] = {}
        self._last: dict[str, Job] = {}
        self._last_bytes = 0
        self._snapshot: AsyncIterator[Event] | None = None
        self._needs_snapshot = True
        self._calm_at: int | None = None
        self._end: Exception | None = None
        self._bell = asyncio.Event()
        self._told_at = time.monotonic()

    # --- for the hub ----------------------------------------------------------------------------------------

    def changed(self, job: Job) -> None:
        """It is so now."""
        self._forget(job.id)
        weight = _weight(job)
        if self._bytes + weight <= PENDING_BYTES:
            self._bytes += weight
            self._changed[job.id] = job
        else:
            self._changed[job.id] = None
        self._ring()

    def removed(self, job_id: str) -> None:
        self._forget(job_id)
        self._removed[job_id] = None
        self._ring()

    def ended(self, job: Job) -> None:
        """It ended so, and went."""
        self._last_bytes += _weight(job)
        if self._last_bytes <= LAST_BYTES:
            self._last[job.id] = job
            self.removed(job.id)
        else:  # all that can get lost: jobs that nobody keeps, for one who does not read
            self.miss()

    def miss(self) -> None:
        """Nobody knows what it has missed: it gets a new snapshot."""
        self._needs_snapshot = True
        self._changed.clear()
        self._removed.clear()
        self._bytes = 0
        self._bell.set()

    def calm(self, now: int) -> None:
        """All that changed before `now` is known here."""
        if not self._changed and not self._removed and time.monotonic() >= self._told_at + KEEPALIVE:
            self._calm_at = now
            self._bell.set()

    def end(self, error: Exception) -> None:
        self._end = error
        self._bell.set()

    def _ring(self) -> None:
        if len(self._changed) + len(self._removed) > MAX_PENDING:
            self.miss()
        self._bell.set()

    def _forget(self, job_id: str) -> None:
        """It is told otherwise."""
        job = self._changed.pop(job_id, None)
        if job is not None:
            self._bytes -= _weight(job)
        self._removed.pop(job_id, None)

    # --- for the handler ------------------------------------------------------------------------------------

    async def next(self) -> Event:
        """The next thing to tell. Raises why the watch has ended."""
        while True:
            if self._end is not None:
                raise self._end
            event = await self._next()
            if event is None:
                self._bell.clear()
                await self._bell.wait()
            elif event != JobsChanged([]):  # of jobs that have gone since
                self._calm_at = None
                self._told_at = time.monotonic()
                return event

    async def _next(self) -> Event | None:
        if self._last:
            self._last, last, self._last_bytes = {}, self._last, 0
            return JobsChanged([*last.values()])
        if self._snapshot is not None:
            # To its end, also when a further one is needed: of very many jobs none would ever be whole otherwise.
            event = await anext(self._snapshot)
            if isinstance(event, SnapshotDone):
                self._snapshot = None
            return event
        if self._needs_snapshot:
            self._needs_snapshot = False
            self._snapshot = self._take_snapshot()
            return SnapshotStarted()
        if self._changed:
            return await self._take_changed()
        if self._removed:
            self._removed, removed = {}, self._removed
            return JobsRemoved([*removed])
        if self._calm_at is not None:
            return KeepAlive(self._calm_at)
        return None

    async def _take_changed(self) -> Event:
        """The oldest of those that changed. What changes meanwhile is told after them."""
        at_hand: list[Job] = []
        unread: list[str] = []
        for job_id, job in [*islice(self._changed.items(), AT_ONCE)]:
            if job is not None:
                at_hand.append(job)
            elif len(unread) < READ_AT_ONCE:
                unread.append(job_id)
            else:
                continue
            self._forget(job_id)
        read = (await self._read(unread)).jobs if unread else []
        return JobsChanged([*at_hand, *(job for job in read if job is not None)])

    async def _take_snapshot(self) -> AsyncIterator[Event]:
        """What changes meanwhile is told after it."""
        now = None
        for at in range(0, len(self.job_ids), READ_AT_ONCE):
            ids = self.job_ids[at : at + READ_AT_ONCE]
            read = await self._read(ids)
            now = now or read.now
            if jobs := [job for job in read.jobs if job is not None]:
                yield JobsChanged(jobs)
            if missing := [id for id, job in zip(ids, read.jobs, strict=True) if job is None]:
                yield JobsRemoved(missing)
        after: Position | None = None
        while self.wanted is not None:
            found = await self._store.find(self.wanted, after=after, limit=AT_ONCE)
            now = now or found.now
            if jobs := [job for job in found.jobs if self.wanted.matches(job)]:
                yield JobsChanged(jobs)
            after = found.end
            if after is None:
                break
        yield SnapshotDone(now or 0)


def _weight(job: Job) -> int:
    return JOB_BYTES + len(job.submission) + len(job.result or b"")
