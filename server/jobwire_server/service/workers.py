"""Signs of life, the registry, and what operators want of workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from jobwire_server.domain.errors import worker_not_found
from jobwire_server.domain.worker import Directive, WorkerInfo, WorkerRecord
from jobwire_server.service.coalescer import Coalescer, waits
from jobwire_server.service.jobs import TOGETHER, Acknowledged
from jobwire_server.store.base import Renewal, Renewed, Store, Workers
from jobwire_server.telemetry.logs import fields
from jobwire_server.telemetry.metrics import Registry

log = logging.getLogger("jobwire.workers")

HELD_TOLD: Final = 100
"""Of the jobs that a worker holds, so many are told by their ids."""


class WorkerService:
    """What workers say of themselves and of the leases they hold."""

    def __init__(
        self, store: Store, *, acknowledged: Acknowledged = lambda _: None, metrics: Registry | None = None
    ) -> None:
        self._store = store
        self._acknowledged = acknowledged
        self._renew: Final = Coalescer(
            partial(store.renew, brief=True), batch=TOGETHER, waits=waits(metrics or Registry(), "renew")
        ).call

    async def heartbeat(self, worker: WorkerInfo, renewals: Sequence[Renewal]) -> tuple[list[Renewed], Directive]:
        """Records the worker and renews the leases whose tokens are listed, and only those; an answer for each, without
        its standing, and what an operator wants of the worker."""
        if not renewals:
            directive = await self._store.beat(worker)
            return [], directive or Directive.NONE
        directive, renewed = await asyncio.gather(self._store.beat(worker), self._renew(renewals))
        self._acknowledged(renewal.token for renewal in renewals)
        return [*renewed], directive or Directive.NONE

    async def page(self, *, after: str, limit: int) -> Workers:
        """Workers behind that id, with some of what they hold."""
        return await self._store.workers(after=after, limit=limit, jobs=HELD_TOLD)

    async def drain(self, worker_id: str, directive: Directive) -> tuple[WorkerRecord, int]:
        """Tells a worker what is wanted of it; answers the worker after it, and when that was."""
        if await self._store.direct(worker_id, directive):
            found = await self._store.workers(ids=[worker_id], jobs=HELD_TOLD)
            log.info("worker %s is told: %s", worker_id, directive, extra=fields(worker=worker_id, directive=directive))
            if found.workers:
                return found.workers[0], found.now
        raise worker_not_found(worker_id)
