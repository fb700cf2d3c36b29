"""Hints on their way from the engine to those who wait in this process.

What this process changes, it tells by itself as soon as it has the answer; what others change comes by pub/sub, which
may lose messages: whoever waits for hints looks for himself from time to time.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final
from weakref import WeakSet

from jobwire_server.domain.worker import Directive
from jobwire_server.store.base import Hints, WorkerNotice
from jobwire_server.store.listener import Listener
from jobwire_server.store.redis.ear import Ear
from jobwire_server.store.redis.route import Route

_KEPT: Final = 10_000
"""Numbers of changes that were told; a message is late by a few."""

_log = logging.getLogger(__name__)


class Bell:
    """Tells each change once to every listener of this process."""

    def __init__(self, route: Route, channel: str) -> None:
        self._ear = Ear(route, channel, heard=self._hear, again=self._forget, what="hints")
        self._listeners: WeakSet[Listener] = WeakSet()  # weakly: one that nobody iterates any more is gone by itself
        self._told: set[int] = set()
        self._order: deque[int] = deque()
        self._is_closed = False

    async def open(self) -> None:
        """Returns once changes of others are heard."""
        await self._ear.open()

    async def close(self) -> None:
        self._is_closed = True
        await self._ear.close()
        for listener in self._listeners:
            listener.close()

    def listen(self) -> AsyncIterator[Hints]:
        listener = Listener()
        self._listeners.add(listener)
        if self._is_closed:
            listener.close()
        return listener

    def ring(self, change: int, told: bytes) -> None:
        """Tells this change, unless it was told: it comes with the answer, and by pub/sub."""
        if change in self._told:
            return
        self._told.add(change)
        self._order.append(change)
        if len(self._order) > _KEPT:
            self._told.discard(self._order.popleft())
        try:
            hints = _hints_of(json.loads(told))
        except (ValueError, KeyError, TypeError):
            _log.warning("what change %d means cannot be read", change)
            return
        for listener in list(self._listeners):
            listener.ring(hints)

    def _hear(self, message: bytes) -> None:
        try:
            change, told = message.split(b" ", 1)
            number = int(change)
        except ValueError:
            _log.warning("a message among the hints is none of ours")
        else:
            self.ring(number, told)

    def _forget(self) -> None:
        """The engine may have lost its last changes, and would use their numbers again."""
        self._told.clear()
        self._order.clear()


def _hints_of(told: dict[str, Any]) -> Hints:
    return Hints(
        queued=told.get("queued", {}),
        freed=told.get("freed", {}),
        heard=tuple(told.get("heard", ())),
        directives={worker: Directive(each) for worker, each in told.get("directives", {}).items()},
        cancels=tuple(_notice(*parts) for parts in told.get("cancels", ())),
        lost=tuple(_notice(*parts) for parts in told.get("lost", ())),
        expired_seen="expired_seen" in told,
    )


def _notice(worker_id: str, job_id: str, fence: str, reason: str) -> WorkerNotice:
    return WorkerNotice(worker_id, job_id, int(fence), reason)
