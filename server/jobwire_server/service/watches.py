"""All watches of this server: one listens to the store for all of them.

What changes is told by the store as ids. Each job is read once, however many watch it, and handed to those who do; what
they have not been told yet they keep as a set (watch_stream.py), never as a queue.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from jobwire_server.domain.errors import job_not_found
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.job import SECOND, Job
from jobwire_server.service.admission import Streams, draining
from jobwire_server.service.coalescer import Coalescer
from jobwire_server.service.rereading import Rereading
from jobwire_server.service.watch_events import JobsChanged, JobsRemoved
from jobwire_server.service.watch_stream import Watch
from jobwire_server.store.base import Snapshot, Store, StoreFull, StoreUnavailable
from jobwire_server.store.changes import Changes, Gone

RECHECK: Final = 1.0
"""About how often, in seconds, the store is asked whether all that changed was heard."""
GIVE_UP_AFTER: Final = 10.0
"""Seconds without an answer of the store after which watches end. Most outages are shorter, and a watch that outlives
one misses nothing, or knows it; its client would begin anew."""
LINGER: Final = 5
"""Rechecks without any watch after which the store need not tell changes any more: callers that wait for one job after
the other should not have it begin anew each time."""
MERGED: Final = 0.05
"""Seconds in which changes of a job become one for those who watch by a filter: a shorter life is read once."""
READ_TOGETHER: Final = 100
"""Jobs that callers who ask at the same time are read in one call."""
STRANGERS: Final = 100_000
"""Jobs known to be nobody's; of more the oldest are forgotten, and read once more when they change."""


class WatchService:
    """All watches of this server. `run` must be running."""

    def __init__(self, store: Store, *, streams: Streams) -> None:
        self._store = store
        self._streams = streams
        self._watches: set[Watch] = set()
        self._by_id: defaultdict[str, set[Watch]] = defaultdict(set)
        self._by_filter = _Filters()
        self._named = Rereading(store, deliver=self._named_changed, give_up=self._miss, pause=0)
        self._others = Rereading(store, deliver=self._any_changed, give_up=self._by_filter.miss, pause=MERGED)
        self._rewritten: set[str] = set()
        self._strangers: dict[str, None] = {}
        """Jobs that no watch by filter asks for, whatever becomes of them, and that need not be read therefore. Oldest
        first."""
        self._reads = Coalescer(self._read_together, batch=READ_TOGETHER)
        self._is_heard = False
        self._switching = asyncio.Lock()
        self._draining = False

    # --- for callers ----------------------------------------------------------------------------------------

    async def open(self, *, job_ids: Sequence[str] = (), wanted: JobFilter | None = None) -> Watch:
        """A watch of these ids, or of what a filter wants; its states choose the snapshot alone."""
        principal = self._streams.enter()
        try:
            return await self._open(Watch(self._store, self._read, principal, job_ids=job_ids, wanted=wanted))
        except BaseException:
            self._streams.leave(principal)
            raise

    def close(self, watch: Watch) -> None:
        self._forget(watch)
        self._streams.leave(watch.principal)

    async def wait(self, job_id: str, *, timeout: int) -> tuple[Job, bool]:
        """The job once it has ended, and True; or as it is when so many microseconds have passed."""
        job = await self._get(job_id)
        if job.state.is_ended or not timeout:
            return job, job.state.is_ended
        watch = await self.open(job_ids=[job_id])
        try:
            async with asyncio.timeout(timeout / SECOND):
                while True:
                    event = await watch.next()
                    if isinstance(event, JobsChanged) and event.jobs[-1].state.is_ended:
                        return event.jobs[-1], True
                    if isinstance(event, JobsRemoved):
                        raise job_not_found(job_id)
        except TimeoutError:
            job = await self._get(job_id)
            return job, job.state.is_ended
        finally:
            self.close(watch)

    async def run(self) -> None:
        """Hears and reads for all watches, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._named.run())
            tasks.create_task(self._others.run())
            tasks.create_task(self._recheck())

    async def drain(self) -> None:
        """Refuses new watches, ends the open ones, and returns when all have ended."""
        self._draining = True
        watches = [*self._watches]
        for watch in watches:
            watch.end(draining())
        await asyncio.gather(*(watch.closed.wait() for watch in watches))

    async def _get(self, job_id: str) -> Job:
        [job] = (await self._read([job_id])).jobs
        if job is None:
            raise job_not_found(job_id)
        return job

    # --- watches --------------------------------------------------------------------------------------------

    async def _open(self, watch: Watch) -> Watch:
        if self._draining:
            raise draining()
        # Known before the store is asked, so that neither a drain nor the end of hearing overlooks it.
        self._watches.add(watch)
        for job_id in watch.job_ids:
            self._by_id[job_id].add(watch)
        if watch.wanted is not None:
            self._by_filter.add(watch, watch.wanted)
            self._strangers.clear()
        try:
            async with self._switching:
                if not self._is_heard:
                    await self._store.watch(self._hear)
                    self._is_heard = True
        except BaseException:
            self._forget(watch)
            raise
        return watch

    def _forget(self, watch: Watch) -> None:
        self._watches.discard(watch)
        for job_id in watch.job_ids:
            self._by_id[job_id].discard(watch)
            if not self._by_id[job_id]:
                del self._by_id[job_id]
        if watch.wanted is not None:
            self._by_filter.discard(watch, watch.wanted)
        watch.closed.set()

    async def _recheck(self) -> None:
        idle, answered = 0, time.monotonic()
        while True:
            await asyncio.sleep(RECHECK * random.uniform(0.8, 1.2))
            if not self._is_heard:
                answered = time.monotonic()
                continue
            idle = 0 if self._watches else idle + 1
            if idle > LINGER:
                await self._hear_no_more()
                continue
            try:
                now = await self._store.caught_up()
                await asyncio.gather(self._named.settled(), self._others.settled())
            except (StoreUnavailable, StoreFull) as error:
                # Nobody knows what changes now. Whoever comes again is answered when the store does.
                if time.monotonic() >= answered + GIVE_UP_AFTER:
                    await self._hear_no_more(error)
                continue
            answered = time.monotonic()
            for watch in self._watches:
                watch.calm(now)

    async def _hear_no_more(self, error: Exception | None = None) -> None:
        """Because nobody watches, or because of an error that ends those who do."""
        async with self._switching:
            if error is None and self._watches:
                return  # somebody has come meanwhile
            if error is not None:
                for watch in self._watches:
                    watch.end(error)
            self._is_heard = False
            self._rewritten.clear()
            self._strangers.clear()
            await self._store.unwatch()

    # --- what the store tells -------------------------------------------------------------------------------

    def _hear(self, changes: Changes) -> None:
        if changes.is_gap:
            self._miss()
        for job in changes.last:
            for watch in self._watching(job):
                watch.ended(job)
        for gone in changes.gone:
            self._named.gone(gone.id)
            self._others.gone(gone.id)
            self._rewritten.discard(gone.id)
            self._strangers.pop(gone.id, None)
            for watch in self._by_id.get(gone.id, ()):
                watch.removed(gone.id)
            for watch in self._by_filter.that_had(gone):
                watch.removed(gone.id)
        if self._by_filter:
            for born in changes.born:
                if not self._by_filter.may_ask(born.queue, born.user_id):
                    self._know_as_strangers(born.job_ids)
            self._rewritten.update(changes.rewritten)
            for job_id in changes.changed:
                if job_id not in self._strangers:
                    self._others.changed(job_id)
        for job_id in changes.changed:
            if job_id in self._by_id:
                self._named.changed(job_id)

    def _watching(self, job: Job) -> Iterator[Watch]:
        yield from self._by_id.get(job.id, ())
        yield from (watch for watch, matches in self._by_filter.asked(job) if matches)

    def _named_changed(self, job: Job) -> None:
        for watch in self._by_id.get(job.id, ()):
            watch.changed(job)

    def _any_changed(self, job: Job) -> None:
        is_rewritten = job.id in self._rewritten
        self._rewritten.discard(job.id)
        if not self._by_filter.may_ask(job.queue, job.user_id):
            self._know_as_strangers([job.id])
        for watch, matches in self._by_filter.asked(job):
            if matches:
                watch.changed(job)
            elif is_rewritten:  # it may have been told before
                watch.removed(job.id)

    def _know_as_strangers(self, job_ids: Sequence[str]) -> None:
        self._strangers |= dict.fromkeys(job_ids)
        for job_id in [*islice(self._strangers, max(len(self._strangers) - STRANGERS, 0))]:
            del self._strangers[job_id]

    def _miss(self) -> None:
        for watch in self._watches:
            watch.miss()

    # --- reading --------------------------------------------------------------------------------------------

    async def _read(self, job_ids: Sequence[str]) -> Snapshot:
        """Those that are asked for at one time are read once, whoever asks."""
        read = await self._reads.call(job_ids)
        return Snapshot(min(now for now, _ in read), [job for _, job in read])

    async def _read_together(self, job_ids: Sequence[str]) -> list[tuple[int, Job | None]]:
        ids = [*dict.fromkeys(job_ids)]
        read = await self._store.get(ids)
        jobs = dict(zip(ids, read.jobs, strict=True))
        return [(read.now, jobs[job_id]) for job_id in job_ids]


class _Filters:
    """The watches by filter, found by what nearly every filter names: a user, or queues."""

    def __init__(self) -> None:
        self._by_key: defaultdict[_Key, dict[JobFilter, set[Watch]]] = defaultdict(dict)

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def add(self, watch: Watch, wanted: JobFilter) -> None:
        wanted = _any_state(wanted)
        for key in _keys(wanted):
            self._by_key[key].setdefault(wanted, set()).add(watch)

    def discard(self, watch: Watch, wanted: JobFilter) -> None:
        wanted = _any_state(wanted)
        for key in _keys(wanted):
            alike = self._by_key.get(key, {})
            watches = alike.get(wanted, set())
            watches.discard(watch)
            if not watches:
                alike.pop(wanted, None)
            if not alike:
                self._by_key.pop(key, None)

    def may_ask(self, queue: str, user_id: str) -> bool:
        """Whether any of them may want a job of that queue and that user."""
        return any(key in self._by_key for key in _keys_of(queue, user_id))

    def asked(self, job: Job) -> Iterator[tuple[Watch, bool]]:
        """The watches that the job may concern, and whether it does. Those that want the same are asked once."""
        for wanted, watches in self._near(job.queue, job.user_id):
            if wanted.may_match(job.queue, job.type, job.user_id, job.create_time):
                matches = wanted.matches(job)
                yield from ((watch, matches) for watch in watches)

    def that_had(self, gone: Gone) -> Iterator[Watch]:
        """The watches that may have been told of that job: nobody knows its labels any more."""
        for wanted, watches in self._near(gone.queue, gone.user_id):
            if wanted.may_match(gone.queue, gone.type, gone.user_id, gone.create_time):
                yield from watches

    def miss(self) -> None:
        for alike in self._by_key.values():
            for watches in alike.values():
                for watch in watches:
                    watch.miss()

    def _near(self, queue: str, user_id: str) -> Iterator[tuple[JobFilter, set[Watch]]]:
        for key in _keys_of(queue, user_id):
            yield from self._by_key.get(key, {}).items()


_Key = tuple[str, str]


def _keys(wanted: JobFilter) -> list[_Key]:
    if wanted.user_id:
        return [("user", wanted.user_id)]
    return [("queue", queue) for queue in wanted.queues] or [("all", "")]


def _keys_of(queue: str, user_id: str) -> tuple[_Key, ...]:
    return ("user", user_id), ("queue", queue), ("all", "")


def _any_state(wanted: JobFilter) -> JobFilter:
    return replace(wanted, states=frozenset())
