"""Reads jobs that have changed: each once for all who watch it, and the latest however often it changed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from jobwire_server.domain.job import Job
from jobwire_server.store.base import Store, StoreUnavailable

AT_ONCE: Final = 100
"""Jobs in one read."""
MAX_DIRTY: Final = 50_000
"""Ids that wait to be read; beyond them nobody can keep up, and a new snapshot is the shorter way."""
RETRY_AFTER: Final = 0.5
"""Seconds after which a store that did not answer is asked again."""

log = logging.getLogger("jobwire.watches")


class Rereading:
    """Hands what it has read to `deliver`, in order: what it hands over last of a job is the latest.

    `pause`: seconds between two rounds, in which changes of a job become one. `give_up`: some will never be delivered.
    """

    def __init__(
        self, store: Store, *, deliver: Callable[[Job], None], give_up: Callable[[], None], pause: float
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._give_up = give_up
        self._pause = pause
        self._dirty: dict[str, None] = {}
        self._gone: set[str] = set()
        """While it reads: what has gone meanwhile, so that a reading from before must not be delivered."""
        self._settling: list[asyncio.Future[None]] = []
        self._bell = asyncio.Event()

    def changed(self, job_id: str) -> None:
        self._dirty[job_id] = None
        if len(self._dirty) > MAX_DIRTY:
            self.forget()
            self._give_up()
        self._bell.set()

    def gone(self, job_id: str) -> None:
        self._dirty.pop(job_id, None)
        self._gone.add(job_id)

    def forget(self) -> None:
        self._dirty.clear()

    async def settled(self) -> None:
        """Returns when all that had changed before has been delivered, or given up. StoreUnavailable: not yet."""
        done = asyncio.get_running_loop().create_future()
        self._settling.append(done)
        self._bell.set()
        await done

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            settling, self._settling = self._settling, []
            had_any = bool(self._dirty)
            try:
                await self._round()
            except StoreUnavailable as error:
                log.warning("watches wait, the store cannot read: %s", error)
                _settle(settling, error)
                self._bell.set()
                await asyncio.sleep(RETRY_AFTER)
                continue
            _settle(settling)
            if had_any:
                await asyncio.sleep(self._pause)

    async def _round(self) -> None:
        """Reads what is dirty now, and leaves what gets dirty meanwhile to the next."""
        dirty, self._dirty = self._dirty, {}
        while dirty:
            ids = [*islice(dirty, AT_ONCE)]
            self._gone.clear()
            try:
                jobs = (await self._store.get(ids)).jobs
            except StoreUnavailable:
                self._dirty = {job_id: None for job_id in dirty if job_id not in self._gone} | self._dirty
                raise
            for job_id, job in zip(ids, jobs, strict=True):
                del dirty[job_id]
                if job is not None and job_id not in self._gone:
                    self._deliver(job)


def _settle(waiting: Sequence[asyncio.Future[None]], error: Exception | None = None) -> None:
    for done in waiting:
        if done.done():  # whoever waited may have gone
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
