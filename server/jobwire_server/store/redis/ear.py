"""Hears a channel for as long as it is open, however often the connection breaks.

Pub/sub may lose messages and falls silent without a word. So it is asked for a sign of life, and whoever needs more
than a doorbell has to be able to tell that something is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

_SILENCE: Final = 1.0
"""Seconds without a message after which the connection is asked for a sign of life, and again until it is given up."""

_RECONNECT_AFTER: Final = 0.2

_log = logging.getLogger(__name__)


class Ear:
    """Tells `heard` each message of a channel, in order, and `again` when it hears once more after a break."""

    def __init__(
        self, client: Redis, channel: str, *, heard: Callable[[bytes], None], again: Callable[[], None], what: str
    ) -> None:
        self._client = client
        self._channel = channel
        self._heard = heard
        self._again = again
        self._what = what
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Returns once the channel is heard."""
        self._task = asyncio.create_task(self._hear(await self._subscribe()))

    async def close(self) -> None:
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._client.aclose()

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
                        _log.info("%s are heard again", self._what)
                        self._again()
                    await self._listen_to(subscription)
                except (RedisError, OSError, TimeoutError) as error:
                    if subscription is not None:
                        _log.warning("%s are not heard: %s: %s", self._what, type(error).__name__, error)
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
                self._heard(message["data"])


async def _let_go(subscription: PubSub) -> None:
    try:
        await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    except (RedisError, OSError):
        return  # it is broken already
