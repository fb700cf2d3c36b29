"""How the queues and workers are, in numbers: asked once, or watched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from jobwire_server.domain.activity import NOTHING, WINDOWS, Lately, Tally, minutes_since, window_lengths
from jobwire_server.domain.job import SECOND, JobState
from jobwire_server.domain.worker import WorkerRecord, WorkerState
from jobwire_server.service.admission import Streams, draining
from jobwire_server.store.base import QueueRecord, Queues, Store

_PAGE: Final = 1_000
"""Queues, or workers, that one call of the store is asked for."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The numbers of one queue, or of several together."""

    name: str
    """Empty for several."""
    counts: dict[JobState, int]
    oldest_waiting_age: int | None
    """None: nobody waits."""
    paused: bool
    tally: Tally
    lately: Lately
    worker_count: int
    """Workers, not LOST, whose latest claim names it."""


@dataclass(frozen=True, slots=True)
class Stats:
    """One reading."""

    now: int
    windows: tuple[int, ...]
    """The lengths of what `QueueStats.lately` tells of."""
    queues: list[QueueStats]
    """By name."""
    totals: QueueStats
    workers: dict[WorkerState, int]
    """All of them, whatever queues were asked for."""
    minutes: list[Tally]
    """What happened in each minute of the last hour, oldest first, in these queues together; empty unless asked for."""


class StatsService:
    """Reads for whoever asks; those who watch the same queues at the same time share a reading."""

    def __init__(self, store: Store, *, streams: Streams) -> None:
        self._store = store
        self._streams = streams
        self._watches: Counter[_Names] = Counter()
        self._readings: dict[_Names, _Reading] = {}
        self._draining = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def read(self, names: Sequence[str] = (), *, minutes: bool = False) -> Stats:
        """Of these queues, those that exist; of all when none is named."""
        page = found = await self._store.queues(names=names, limit=_PAGE, lately=True, minutes=minutes)
        records = [*found.queues]
        while not names and len(page.queues) == _PAGE:
            last = records[-1].settings.name
            page = await self._store.queues(after=last, limit=_PAGE, lately=True, minutes=minutes)
            records += page.queues
        return _stats(found, records, await self._workers())

    async def _workers(self) -> list[WorkerRecord]:
        workers: list[WorkerRecord] = []
        while True:
            page = (await self._store.workers(after=workers[-1].info.id if workers else "", limit=_PAGE)).workers
            workers += page
            if len(page) < _PAGE:
                return workers

    async def open(self, names: Sequence[str], *, interval: int) -> StatsWatch:
        """A reading at once, then one every `interval` microseconds. Close it."""
        if self._draining.is_set():
            raise draining()
        principal = self._streams.enter()
        self._idle.clear()
        watched = tuple(sorted({*names}))
        self._watches[watched] += 1
        return StatsWatch(self, principal, watched, interval / SECOND)

    async def drain(self) -> None:
        """Refuses new watches, ends the open ones, and returns when all have ended."""
        self._draining.set()
        await self._idle.wait()

    async def drained(self, *, before: float) -> bool:
        """Whether this server is going away, as soon as that is known, or at that time of the loop."""
        try:
            async with asyncio.timeout_at(before):
                return await self._draining.wait()
        except TimeoutError:
            return False

    async def shared(self, names: tuple[str, ...], max_age: float) -> Stats:
        """A reading that began at most so many seconds ago."""
        now = asyncio.get_running_loop().time()
        reading = self._readings.get(names)
        if reading is None or reading.has_failed or now - reading.began > max_age:
            reading = self._readings[names] = _Reading(now, asyncio.create_task(self.read(names)))
        return await asyncio.shield(reading.task)

    def forget(self, principal: str, names: tuple[str, ...]) -> None:
        """One who watched these has gone."""
        self._streams.leave(principal)
        self._watches[names] -= 1
        if not self._watches[names]:
            del self._watches[names]
            self._readings.pop(names, None)
        if not self._watches:
            self._idle.set()


_Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    began: float
    task: asyncio.Task[Stats]

    @property
    def has_failed(self) -> bool:
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)


class StatsWatch:
    """One who watches. Whoever asks late gets what is true then: nothing heaps up meanwhile."""

    def __init__(self, service: StatsService, principal: str, names: tuple[str, ...], interval: float) -> None:
        self._service = service
        self._principal = principal
        self._names = names
        self._interval = interval
        self._due = 0.0

    async def next(self) -> Stats:
        """The next reading, when it is due. SERVER_DRAINING when the server goes away."""
        if await self._service.drained(before=self._due):
            raise draining()
        now = asyncio.get_running_loop().time()
        self._due = max(self._due + self._interval, now) if self._due else now + self._interval
        return await self._service.shared(self._names, self._interval / 2)

    def close(self) -> None:
        self._service.forget(self._principal, self._names)


def _stats(found: Queues, records: Sequence[QueueRecord], workers: Iterable[WorkerRecord]) -> Stats:
    now = found.now
    states: Counter[WorkerState] = Counter()
    by_queue: Counter[str] = Counter()
    names = {record.settings.name for record in records}
    at_work = 0
    for worker in workers:
        state = worker.state(now)
        states[state] += 1
        if state is not WorkerState.LOST:
            served = names.intersection(worker.info.queues)
            by_queue.update(served)
            at_work += bool(served)
    queues = [_queue_stats(record, now, by_queue[record.settings.name]) for record in records]
    windows = window_lengths(now=now, since=found.since)
    minutes = [_sum(each) for each in zip(*(record.minutes or () for record in records), strict=True)]
    began = minutes_since(now=now, since=found.since)
    return Stats(now, windows, queues, _totals(queues, at_work), dict(states), minutes[len(minutes) - began :])


def _queue_stats(record: QueueRecord, now: int, worker_count: int) -> QueueStats:
    head = record.head_queue_time
    return QueueStats(
        name=record.settings.name,
        counts=record.counts,
        oldest_waiting_age=None if head is None else max(now - head, 0),
        paused=record.settings.paused,
        tally=record.tally,
        lately=record.lately or (NOTHING,) * len(WINDOWS),
        worker_count=worker_count,
    )


def _totals(queues: Sequence[QueueStats], worker_count: int) -> QueueStats:
    counts: Counter[JobState] = Counter()
    for queue in queues:
        counts.update(queue.counts)
    return QueueStats(
        name="",
        counts=dict(counts),
        oldest_waiting_age=max(
            (q.oldest_waiting_age for q in queues if q.oldest_waiting_age is not None), default=None
        ),
        paused=bool(queues) and all(queue.paused for queue in queues),
        tally=_sum(queue.tally for queue in queues),
        lately=tuple(_sum(queue.lately[at] for queue in queues) for at in range(len(WINDOWS))),
        worker_count=worker_count,
    )


def _sum(tallies: Iterable[Tally]) -> Tally:
    """The sums field by field; of none it is NOTHING."""
    return Tally._make(map(sum, zip(NOTHING, *tallies, strict=True)))
