"""Tells whoever asked that a job has ended: claims deliveries, posts them, settles them.

A delivery is a job in the queue of the server's own (`domain.webhook`), so all that jobs are promised holds for it too:
a server that dies with one under way loses its lease, and another server posts it again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from jobwire_server.domain import policy
from jobwire_server.domain.change import Fail, new_tokens, token_digest
from jobwire_server.domain.job import SECOND, Job, JobError, JobState
from jobwire_server.domain.move import Move
from jobwire_server.domain.noise import noise_bytes
from jobwire_server.domain.webhook import DELIVERIES, RESERVED
from jobwire_server.service.jobs import JobService
from jobwire_server.service.receivers import AddressRefused, Receivers, Unanswered
from jobwire_server.service.signing import Secrets, signed
from jobwire_server.store.base import ClaimRequest, Hints, Store, StoreFull, StoreUnavailable

AT_ONCE: Final = 64
"""Deliveries that one server has under way."""
ANSWER_WITHIN: Final = 15.0
"""Seconds from the look-up of the receiver's name to the head of its answer."""
LEASE: Final = 60 * SECOND
"""So long a delivery is under way at most, its settlement included; nobody renews it."""
SETTLE_WITHIN: Final = 30.0
"""Seconds for which a settlement is repeated while the store is away."""
RECHECK: Final = 5.0
"""About how often, in seconds, the store is asked what no hint has told."""

_GONE: Final = 410
_OK: Final = range(200, 300)

log = logging.getLogger("jobwire.webhooks")


@dataclass(frozen=True, slots=True)
class Word:
    """What a delivery says, and to whom."""

    job_id: str
    url: str
    secret_ref: str
    body: bytes


class Unreadable(Exception):
    """What is stored of a delivery makes no sense."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """A delivery that was not taken, and why."""

    code: str
    message: str
    is_final: bool = False
    """No repetition will help."""


class Webhooks:
    """The deliveries of one server. `run` must be running; costs a call of the store every RECHECK when idle."""

    def __init__(
        self,
        store: Store,
        jobs: JobService,
        *,
        read: Callable[[Job], Word],
        secrets: Secrets,
        receivers: Receivers,
    ) -> None:
        """`read` tells what a delivery says. Raises Unreadable."""
        self._store = store
        self._jobs = jobs
        self._read = read
        self._secrets = secrets
        self._receivers = receivers
        self._worker_id = RESERVED + noise_bytes(8).hex()
        self._bell = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_draining = False

    async def run(self) -> None:
        """Delivers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._work())
            async for hints in self._store.hints():
                self._hear(hints)

    async def drain(self) -> None:
        """Claims no more, and returns when nothing is under way."""
        self._is_draining = True
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def finish(self) -> None:
        """Gives up what is still under way: it will be delivered again when its lease has run out. After `run`."""
        for task in self._under_way:
            task.cancel()
        await self.drain()

    def _hear(self, hints: Hints) -> None:
        if DELIVERIES in hints.queued:
            self._bell.set()

    async def _work(self) -> None:
        while not self._is_draining:
            self._bell.clear()
            try:
                while await self._claim():
                    pass
            except (StoreUnavailable, StoreFull) as error:
                log.warning("deliveries wait, the store cannot claim: %s", error)
            try:
                async with asyncio.timeout(RECHECK * random.uniform(0.8, 1.2)):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def _claim(self) -> bool:
        """Takes what there is and fits; whether there may be more."""
        free = 0 if self._is_draining else AT_ONCE - len(self._under_way)
        if free == 0 or not await self._has_deliveries():
            return False
        tokens = [token_digest(token) for token in new_tokens(free)]
        request = ClaimRequest(
            worker_id=self._worker_id,
            session=0,
            max_in_flight=AT_ONCE,
            tokens=tokens,
            lease_duration=LEASE,
            delivery_timeout=0,
        )
        claimed = (await self._store.claim(DELIVERIES, [request])).claimed[0]
        for job in claimed.jobs:
            task = asyncio.create_task(self._deliver(job))
            self._under_way.add(task)
            task.add_done_callback(self._done)
        return len(claimed.jobs) == free

    async def _has_deliveries(self) -> bool:
        """Whether a claim is worth it: it would register a worker on each server that has nothing to tell."""
        return any(queue.counts.get(JobState.QUEUED) for queue in (await self._store.queues(names=[DELIVERIES])).queues)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._bell.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a bug: a delivery was left to its lease", exc_info=error)

    async def _deliver(self, job: Job) -> None:
        try:
            word = self._read(job)
        except Unreadable as error:
            await self._settle(job, _Failed("UNREADABLE", str(error), is_final=True), "?", "?")
            return
        await self._settle(job, await self._post(job, word), word.job_id, urlsplit(word.url).hostname or "")

    async def _post(self, job: Job, word: Word) -> _Failed | None:
        keys = self._secrets.keys(word.secret_ref) if word.secret_ref else ()
        if word.secret_ref and not keys:
            return _Failed("SECRET_MISSING", f"this server has no signing secret {word.secret_ref!r}")
        headers = signed(job.id, int(time.time()), word.body, keys)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                status = await self._receivers.post(word.url, headers, word.body)
        except TimeoutError:
            return _Failed("TIMEOUT", f"no answer within {ANSWER_WITHIN:g} s")
        except AddressRefused as error:
            return _Failed("ADDRESS_REFUSED", str(error), is_final=True)
        except Unanswered as error:
            return _Failed("UNANSWERED", str(error))
        if status in _OK:
            return None
        return _Failed(f"HTTP_{status}", f"it answered {status}", is_final=status == _GONE)

    async def _settle(self, job: Job, failed: _Failed | None, job_id: str, host: str) -> None:
        assert job.token is not None, "it was claimed"
        until = time.monotonic() + SETTLE_WITHIN
        while True:
            try:
                if failed is None:
                    log.debug("the end of job %s was told to %s", job_id, host)
                    await self._store.move([_told(job, job.token)])
                else:
                    log.info("the end of job %s was not told to %s: %s", job_id, host, failed.message)
                    error = JobError(failed.code, failed.message)
                    change = Fail(
                        job_id=job.id, token=job.token, error=error, permanent=failed.is_final, retry_delay=None
                    )
                    await self._jobs.update([change])
                return
            except (StoreUnavailable, StoreFull):
                if time.monotonic() > until:
                    return  # its lease runs out, and it is delivered again
                await asyncio.sleep(1)


def _told(job: Job, token: bytes) -> Move:
    """It goes: what has been told is of no use to anybody."""
    move = policy.complete(job.id, token, None).as_move()
    return replace(move, changes={**move.changes, "retention": 0})
