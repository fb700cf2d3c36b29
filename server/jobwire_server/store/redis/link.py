"""Sends calls to the engine, and sends them again while nobody knows whether they were done.

Each script repeats harmlessly: what it did is found in the rows, or under the id of its call. That is why the retrying
is here and redis-py's own is off: a script that is sent again says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  # its name in redis-py
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004  # its name in redis-py
    TryAgainError,
)

from jobwire_server.store.base import StoreFull, StoreUnavailable
from jobwire_server.store.redis.connection import Word
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.scripts import Answer, Call
from jobwire_server.store.redis.topology import ANSWER_WITHIN
from jobwire_server.store.redis.wire import Wire
from jobwire_server.telemetry.metrics import Timed, unmeasured

DEADLINE: Final = 6.0
"""Seconds after which a call that nobody answered is given up."""

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.2

_REPLICATED_WITHIN: Final = 1.0
"""Seconds for replicas to say that they have it, in which nothing else is done on the connection."""

_LOST: Final = (ConnectionError, TimeoutError, OSError)
"""After these nobody knows whether the script ran."""

_REFUSED: Final = (AskError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
_REFUSALS: Final = ("MISCONF", "NOREPLICAS", "BUSY", "LOADING", "UNBLOCKED", "Script attempted to")
"""First words of an engine that cannot write now, or that has no longer, or not yet, all keys; nothing happened."""

_log = logging.getLogger(__name__)


def new_call_id() -> str:
    """Random: two alike within the time for which calls are remembered would take one for the other's repeat."""
    return os.urandom(8).hex()


class Link:
    """The way to the engine. `keys`, `clock` and `outage_gap` go with every call; see RedisStore. So many `replicas`
    must have a change before it counts as made."""

    def __init__(
        self,
        route: Route,
        keys: Sequence[str],
        *,
        clock: Callable[[], int] | None,
        outage_gap: int | None,
        name: str,
        replicas: int = 0,
        timed: Timed = unmeasured,
    ) -> None:
        self._wire = Wire(route, answer_within=ANSWER_WITHIN)
        self._keys: tuple[Word, ...] = (len(keys), *keys)
        self._clock = clock
        self._gap = "" if outage_gap is None else str(outage_gap)
        self._name = name
        self._replicas = replicas
        self._timed = timed
        self._is_lost = False
        self._refuses_writes = False

    async def run(self, call: Call[Any], call_id: str, *, is_repeat: bool = False) -> Answer:
        """What the script answered. Raises StoreUnavailable or StoreFull as store.base has it.

        `is_repeat`: a call of this id was answered before, or has failed.
        """
        arguments = call.arguments.encode()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE
        pause = _FIRST_PAUSE
        may_be_done = False
        while True:
            try:
                answer = await self._evaluate(call, call_id, arguments, is_repeat or may_be_done)
            except (AuthenticationError, AuthorizationError) as error:
                raise StoreUnavailable(f"{self._name}: {error}") from error
            except OutOfMemoryError as error:
                if may_be_done:
                    raise StoreUnavailable(f"{self._name}: {error}") from error
                raise StoreFull(f"{self._name} has reached its maxmemory") from error
            except _LOST as error:
                may_be_done = True
                reason: Exception = error
            except ResponseError as error:
                if not isinstance(error, _REFUSED) and not str(error).startswith(_REFUSALS):
                    raise
                reason = error
            else:
                self._found(call)
                return answer
            self._missed(reason, call)
            if loop.time() + pause > deadline:
                raise StoreUnavailable(f"{self._name}: {type(reason).__name__}: {reason}") from reason
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _evaluate(self, call: Call[Any], call_id: str, arguments: bytes, is_repeat: bool) -> Answer:
        now = "" if self._clock is None else str(self._clock())
        repeated = "1" if is_repeat else ""
        given: tuple[Word, ...] = (*self._keys, now, self._gap, call_id, repeated, arguments, call.blob)
        ask = self._wire.call
        if self._replicas and call.script.writes:
            given, ask = (*given, "1"), self._call_replicated
        began = time.perf_counter()
        try:
            answer = await ask("EVALSHA", call.script.sha, *given)
        except NoScriptError:  # never seen, or flushed: nothing happened
            answer = await ask("EVAL", call.script.source, *given)
        self._timed(call.script.name, time.perf_counter() - began)
        now_text, change, hints, json, blob = answer
        return Answer(int(now_text), int(change or 0), hints, json, blob)

    async def _call_replicated(self, *words: Word) -> Any:
        answer, replicas = await self._wire.call_replicated(*words, replicas=self._replicas, within=_REPLICATED_WITHIN)
        if replicas < self._replicas:  # sent again it changes nothing, and waits for what it had changed
            raise TimeoutError(f"{replicas} of {self._replicas} replicas have it")
        return answer

    async def close(self) -> None:
        await self._wire.close()

    async def ping(self) -> None:
        """Raises StoreUnavailable at once when there is no answer."""
        await self._ask("PING")

    async def field(self, key: str, name: str) -> bytes | None:
        """One field of a hash; raises StoreUnavailable at once when there is no answer."""
        value: bytes | None = await self._ask("HGET", key, name)
        return value

    async def engine_info(self) -> dict[str, str]:
        """What the engine says of itself; raises StoreUnavailable at once when there is no answer."""
        said: bytes = await self._ask("INFO")
        lines = said.decode(errors="replace").splitlines()
        return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}

    async def setting(self, name: str) -> str | None:
        """One setting of the engine; None when it does not tell."""
        try:
            said: list[bytes] = await self._wire.call("CONFIG", "GET", name)
        except ResponseError:  # CONFIG is forbidden, as with many hosts
            return None
        return said[1].decode() if said else None

    async def _ask(self, *words: str) -> Any:
        try:
            return await self._wire.call(*words)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{self._name}: {type(error).__name__}: {error}") from error

    def _missed(self, reason: Exception, call: Call[Any]) -> None:
        if not self._is_lost:
            _log.warning("%s does not answer: %s: %s", self._name, type(reason).__name__, reason)
        self._is_lost = True
        self._refuses_writes |= call.script.writes

    def _found(self, call: Call[Any]) -> None:
        """Who refuses writes alone, as without its replicas, still answers what only reads."""
        if self._is_lost and (call.script.writes or not self._refuses_writes):
            _log.info("%s answers again", self._name)
            self._is_lost = self._refuses_writes = False
