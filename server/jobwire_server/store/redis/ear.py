"""Hears a channel for as long as it is open, however often the connection breaks.

Pub/sub may lose messages and falls silent without a word. So it is asked for a sign of life, and whoever needs more
than a doorbell has to be able to tell that something is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import (
    ConnectionError,  # noqa: A004  # its name in redis-py
    RedisError,
)

from jobwire_server.store.redis.connection import Connection
from jobwire_server.store.redis.route import Route

_SILENCE: Final = 1.0
"""Seconds without a message after which the connection is asked for a sign of life, and again until it is given up."""

_RECONNECT_AFTER: Final = 0.2

_log = logging.getLogger(__name__)


class Ear:
    """Tells `heard` each message of a channel, in order, and `again` when it hears once more after a break."""

    def __init__(
        self,
        route: Route,
        channel: str,
        *,
        heard: Callable[[bytes], None],
        again: Callable[[], None],
        what: str,
    ) -> None:
        self._route = route
        self._channel = channel
        self._heard = heard
        self._again = again
        self._what = what
        self._subscription: _Subscription
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns once the channel is heard. Raises RedisError or OSError."""
        self._subscription = await self._subscribe()
        self._task = asyncio.create_task(self._hear())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._subscription.close()  # here: a task that is cancelled before its first step closes nothing

    async def _subscribe(self) -> _Subscription:
        subscription = _Subscription(self._heard)
        await subscription.open(self._route, self._channel)
        return subscription

    async def _hear(self) -> None:
        while True:
            reason = await self._subscription.ended()
            self._subscription.close()
            _log.warning("%s are not heard: %s: %s", self._what, type(reason).__name__, reason)
            self._subscription = await self._subscribe_again()
            _log.info("%s are heard again", self._what)
            self._again()

    async def _subscribe_again(self) -> _Subscription:
        while True:
            await asyncio.sleep(_RECONNECT_AFTER)
            try:
                return await self._subscribe()
            except (RedisError, OSError):
                continue  # that they are not heard has been said


class _Subscription:
    """To one channel, on one connection."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard
        self._connection = Connection(self._replied, self._lost)
        self._replies = 0
        self._began = asyncio.Event()
        self._ended = asyncio.Event()
        self._reason: Exception = ConnectionError("closed")

    async def open(self, route: Route, channel: str) -> None:
        """Returns once the channel is heard. Raises RedisError or OSError."""
        await route.open(self._connection)
        try:
            self._connection.send("SUBSCRIBE", channel)
            async with asyncio.timeout(_SILENCE):
                await self._began.wait()
        except BaseException:
            self.close()
            raise
        if self._ended.is_set():
            raise self._reason

    async def ended(self) -> Exception:
        """Why, once it has."""
        is_asked = False
        while not self._ended.is_set():
            before = self._replies
            try:
                async with asyncio.timeout(_SILENCE):
                    await self._ended.wait()
            except TimeoutError:
                if self._replies == before and is_asked:
                    return TimeoutError("no sign of life")
                is_asked = self._replies == before
                if is_asked:
                    self._ask()
        return self._reason

    def close(self) -> None:
        self._connection.end(ConnectionError("closed"))

    def _ask(self) -> None:
        try:
            self._connection.send("PING")
        except ConnectionError:
            return  # it has been told why

    def _replied(self, reply: Any) -> None:
        self._replies += 1
        self._began.set()
        if isinstance(reply, Exception):
            self._connection.end(reply)
        elif reply[0] == b"message":
            self._heard(reply[2])

    def _lost(self, reason: Exception) -> None:
        self._reason = reason
        self._began.set()
        self._ended.set()
