"""Signs of life."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from jobwire_server.service.coalescer import Coalescer
from jobwire_server.service.jobs import TOGETHER, Acknowledged
from jobwire_server.store.base import Renewal, Renewed, Store, WorkerInfo


class WorkerService:
    """What workers say of themselves and of the leases they hold."""

    def __init__(self, store: Store, *, acknowledged: Acknowledged = lambda _: None) -> None:
        self._store = store
        self._acknowledged = acknowledged
        self._renew: Final = Coalescer(store.renew, batch=TOGETHER).call

    async def heartbeat(self, worker: WorkerInfo, renewals: Sequence[Renewal]) -> list[Renewed]:
        """Records the worker and renews the leases whose tokens are listed, and only those; an answer for each."""
        if not renewals:
            await self._store.beat(worker)
            return []
        _, renewed = await asyncio.gather(self._store.beat(worker), self._renew(renewals))
        self._acknowledged(renewal.token for renewal in renewals)
        return [*renewed]
