"""Changes of jobs on their way from the engine to those who watch here.

Each change has a number and a message. One that does not follow the last was preceded by what nobody heard, and what
was lost at the end shows at the next mark: a script that leaves a message with the number of the last change.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

from jobwire_server.store.base import StoreUnavailable
from jobwire_server.store.changes import Born, Changes, Gone
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis.ear import Ear
from jobwire_server.store.redis.link import DEADLINE, new_call_id
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.scripts import Call, Jobs, Unreadable, script

T = TypeVar("T")

_MARK_AGAIN: Final = 0.5
"""Seconds in which a mark comes back, unless the connection was just lost."""

_log = logging.getLogger(__name__)


class Send(Protocol):
    """Sends a call and answers what it read."""

    def __call__(self, call: Call[T], /) -> Awaitable[T]: ...


class Telling:
    """Tells `hear` of each change, whichever server made it, and of each gap."""

    def __init__(self, route: Route, channel: str, *, send: Send, hear: Callable[[Changes], None]) -> None:
        self._ear = Ear(route, channel, heard=self._heard, again=self._miss, what="changes")
        self._send = send
        self._hear = hear
        self._last: int | None = None
        """The number of the last change that was heard; None = any may come next."""
        self._marks: dict[str, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """From its return on, nothing is missed without a word."""
        try:
            await self._ear.open()
            await self.caught_up()
        except BaseException:
            await self._ear.close()
            raise

    async def close(self) -> None:
        await self._ear.close()

    async def caught_up(self) -> int:
        """As `Store.caught_up`. Asks the engine to go on telling, too."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE
        while True:
            mark = new_call_id()
            heard = self._marks[mark] = loop.create_future()
            try:
                now = await self._send(_watch(mark))
                async with asyncio.timeout(_MARK_AGAIN):
                    await heard
                return now
            except TimeoutError:
                if loop.time() > deadline:
                    raise StoreUnavailable("changes are not heard") from None
            finally:
                del self._marks[mark]

    def _heard(self, message: bytes) -> None:
        try:
            number, told, blob = message.split(b"\n", 2)
            change, content = int(number), json.loads(told)
            if isinstance(content, str):
                self._heard_mark(change, content)
                return
            changes = _changes(content, blob)
        except (ValueError, TypeError):
            _log.warning("a message among the changes is none of ours")
            self._miss()
            return
        if self._last not in (None, change - 1):
            self._miss()
        self._last = change
        self._hear(changes)

    def _heard_mark(self, change: int, mark: str) -> None:
        if self._last not in (None, change):
            self._miss()
        self._last = change
        if mark in self._marks:  # other servers leave theirs, too
            self._marks[mark].set_result(None)

    def _miss(self) -> None:
        self._last = None
        self._hear(Changes(is_gap=True))


def _watch(mark: str) -> Call[int]:
    return Call(script("watch"), to_json(mark), lambda answer: answer.now)


def _changes(content: Any, blob: bytes) -> Changes:
    changed, born, rewritten, gone, last = content
    jobs = Jobs(blob)
    try:
        ended = [*jobs.every(last)]
    except Unreadable as error:
        _log.error("how job %r ended cannot be told: its record cannot be read", error.job_id)
        ended = []
    return Changes(changed, [Born(*each) for each in born], rewritten, [_gone(*each) for each in gone], ended)


def _gone(id: str, queue: str, kind: str, user_id: str, create_time: str) -> Gone:
    return Gone(id, queue, kind, user_id, int(create_time))
