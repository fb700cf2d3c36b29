"""Hints on their way from the engine to those who wait in this process.

What this process changes, it tells by itself as soon as it has the answer; what others change comes by pub/sub, which
may lose messages and falls silent without a word. So it is asked for a sign of life, and whoever waits for hints looks
for himself from time to time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final
from weakref import WeakSet

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from jobwire_server.domain.worker import Directive
from jobwire_server.store.base import Hints, WorkerNotice
from jobwire_server.store.listener import Listener

_SILENCE: Final = 1.0
"""Seconds without a message after which the connection is asked for a sign of life, and again until it is given up."""

_RECONNECT_AFTER: Final = 0.2

_KEPT: Final = 10_000
"""Numbers of changes that were told; a message is late by a few."""

_log = logging.getLogger(__name__)


class Bell:
    """Tells each change once to every listener of this process."""

    def __init__(self, client: Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._listeners: WeakSet[Listener] = WeakSet()  # weakly: one that nobody iterates any more is gone by itself
        self._told: set[int] = set()
        self._order: deque[int] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Returns once changes of others are heard."""
        self._task = asyncio.create_task(self._hear(await self._subscribe()))

    async def close(self) -> None:
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._client.aclose()
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

    # --- what others change ---------------------------------------------------------------------------------

    async def _subscribe(self) -> PubSub:
        subscription = self._client.pubsub()
        try:
            await subscription.subscribe(self._channel)
            await subscription.get_message(timeout=_SILENCE)
        except BaseException:
            await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            raise
        return subscription

    async def _hear(self, subscription: PubSub | None) -> None:
        # redis-py may swallow a cancellation that comes together with its timeout; without the looks at `_is_closed`
        # closing would wait for ever.
        try:
            while not self._is_closed:
                try:
                    if subscription is None:
                        subscription = await self._subscribe()
                        # The engine may have lost its last changes, and would use their numbers again.
                        self._told.clear()
                        self._order.clear()
                        _log.info("hints are heard again")
                    await self._listen_to(subscription)
                except (RedisError, OSError, TimeoutError) as error:
                    if subscription is not None:
                        _log.warning("hints are not heard: %s: %s", type(error).__name__, error)
                        await _let_go(subscription)
                    subscription = None
                    await asyncio.sleep(_RECONNECT_AFTER)
        finally:
            if subscription is not None:
                await _let_go(subscription)

    async def _listen_to(self, subscription: PubSub) -> None:
        is_asked = False
        while not self._is_closed:
            message = await subscription.get_message(timeout=_SILENCE)
            if message is None:
                if is_asked:
                    raise TimeoutError("no sign of life")
                await subscription.ping()
                is_asked = True
                continue
            is_asked = False
            if message["type"] == "message":
                self._hear_one(message["data"])

    def _hear_one(self, message: bytes) -> None:
        try:
            change, told = message.split(b" ", 1)
            number = int(change)
        except ValueError:
            _log.warning("a message on %s is none of ours", self._channel)
        else:
            self.ring(number, told)


async def _let_go(subscription: PubSub) -> None:
    try:
        await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    except (RedisError, OSError):
        return  # it is broken already


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
