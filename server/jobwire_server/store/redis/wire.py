"""Calls of the engine: each is sent at once, and the answers come in the order of the calls."""

from __future__ import annotations

import asyncio
from collections import deque
from copy import copy
from typing import Any, Final

from redis.exceptions import (
    ClusterDownError,
    ConnectionError,  # noqa: A004  # its name in redis-py
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
)

from jobwire_server.store.redis.connection import Connection, Word
from jobwire_server.store.redis.route import Route

_ELSEWHERE: Final = (ClusterDownError, MasterDownError, MovedError, ReadOnlyError)
"""Who refuses like this is no primary, or not of these keys, or not any more: the next call looks for it anew."""


class Wire:
    """Any number of calls at a time over one connection, which is opened when it is needed and there is none."""

    def __init__(self, route: Route, *, answer_within: float) -> None:
        """`answer_within`: seconds."""
        self._route = route
        self._answer_within = answer_within
        self._opening: asyncio.Task[Connection] | None = None
        self._connection: Connection | None = None
        self._calls: deque[tuple[asyncio.Future[Any], float]] = deque()
        """Those without an answer, and when they were sent."""
        self._watch: asyncio.TimerHandle | None = None

    async def call(self, *words: Word) -> Any:
        """What the engine answers. Raises ResponseError where it refuses; ConnectionError or OSError when there was no
        answer: then nobody knows whether it was done."""
        connection = self._connection or await self._open()
        connection.send(*words)
        return await self._next_answer()

    async def call_replicated(self, *words: Word, replicas: int, within: float) -> tuple[Any, int]:
        """The same, and how many replicas had it: as soon as that are so many, or after `within` seconds."""
        connection = self._connection or await self._open()
        # WAIT is about what its own connection wrote, so both are sent before anybody else may send something.
        connection.send(*words, then=("WAIT", replicas, round(within * 1000)))
        answers: list[Any] = await asyncio.gather(*(self._next_answer() for _ in range(2)), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        said, count = answers
        return said, count

    def _next_answer(self) -> asyncio.Future[Any]:
        """To what has just been sent."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._calls.append((answer, loop.time()))
        if self._watch is None:
            self._watch = loop.call_later(self._answer_within, self._look)
        return answer

    async def close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._connection is not None:
            self._connection.end(ConnectionError("closed"))

    async def _open(self) -> Connection:
        """Whoever asks while it is being opened waits for the same, and hears the same when that fails."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except (RedisError, OSError) as error:
            raise copy(error) from None

    async def _connect(self) -> Connection:
        connection = Connection(self._answered, self._ended)
        await self._route.open(connection)
        return connection

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None and not opening.result().has_ended:
            self._connection = opening.result()

    def _answered(self, said: Any) -> None:
        if not self._calls:
            return  # the engine says by itself that it lets us go
        answer, _ = self._calls.popleft()
        if not isinstance(said, Exception):
            if not answer.done():  # its caller has gone
                answer.set_result(said)
            return
        if not answer.done():
            answer.set_exception(said)
        if isinstance(said, _ELSEWHERE) and self._connection is not None:
            self._connection.end(ConnectionError(f"the engine refuses what the primary does: {said}"))

    def _ended(self, reason: Exception) -> None:
        self._connection = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._calls:
            answer, _ = self._calls.popleft()
            if not answer.done():
                answer.set_exception(copy(reason))  # raised by all of them, one would gather the traceback of each

    def _look(self) -> None:
        """One timer for all calls."""
        self._watch = None
        if not self._calls or self._connection is None:
            return
        loop = asyncio.get_running_loop()
        left = self._calls[0][1] + self._answer_within - loop.time()
        if left > 0:
            self._watch = loop.call_later(left, self._look)
        else:
            self._connection.end(TimeoutError("no answer"))
