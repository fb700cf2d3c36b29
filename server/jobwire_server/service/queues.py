"""Queues as operators see them: their settings, what is in them, and emptying them."""

from __future__ import annotations

import logging

from jobwire_server.domain.errors import JobwireError, Reason, queue_not_found
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.queue import Queue, QueueChanges
from jobwire_server.store.base import QueueRecord, Queues, Store
from jobwire_server.telemetry.logs import fields

log = logging.getLogger("jobwire.queues")


class QueueService:
    """Reads and changes settings. They hold at once on every server, since claims read them in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, *, after: str, limit: int) -> Queues:
        """Queues behind that name."""
        return await self._store.queues(after=after, limit=limit)

    async def get(self, name: str) -> tuple[QueueRecord, int]:
        """The queue, and when it was read."""
        found = await self._store.queues(names=[name])
        if not found.queues:
            raise queue_not_found(name)
        return found.queues[0], found.now

    async def update(
        self, name: str, changes: QueueChanges, *, etag: str | None, allow_missing: bool
    ) -> tuple[QueueRecord, int]:
        """Changes settings; answers the queue after it, and when that was.

        With an etag the queue must be there, whatever `allow_missing` says.
        """
        revision = None
        if etag is not None:
            settings = (await self.get(name))[0].settings
            if settings.etag != etag:
                raise _etag_mismatch(settings, etag)
            revision = settings.revision
        put = await self._store.put_queue(name, changes, revision=revision, create=allow_missing)
        if put.queue is None:
            raise queue_not_found(name)
        if put.outcome is not Outcome.OK:
            raise _etag_mismatch(put.queue.settings, etag or "")
        log.info("settings of queue %s: %s", name, dict(changes), extra=fields(queue=name, **changes))
        return put.queue, put.now


def _etag_mismatch(queue: Queue, etag: str) -> JobwireError:
    return JobwireError(
        Reason.ETAG_MISMATCH,
        f"queue {queue.name!r} has changed since it was read: its etag is {queue.etag!r}, not {etag!r}",
        metadata={"queue": queue.name, "etag": queue.etag},
    )
