"""One connection to the engine, from its opening to its end: words go out, replies come in.

redis-py's own way of a call, a connection out of a pool and back, a stream reader and its timeouts, takes three times
the CPU (measured with hiredis on both sides, 60 to 90 µs more) and an idle server waits 0.3 ms longer for the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import hiredis
import redis.asyncio
from redis.asyncio import SSLConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  # its name in redis-py
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from jobwire_server.store.redis.topology import ANSWER_WITHIN

_REFUSALS: Final = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "WRONGPASS": AuthenticationError,
}
"""First words of a refusal, and what it is called where somebody tells it from others."""

Word = str | bytes | int

_NAME: Final = ("CLIENT", "SETNAME", "jobwire")
"""For whoever looks at the engine's CLIENT LIST; a user that may not say so goes without."""


class Connection(asyncio.Protocol):
    """Tells `on_reply` each reply, a refusal as an exception, and `on_end` why it has ended, once; both in the loop."""

    def __init__(self, on_reply: Callable[[Any], None], on_end: Callable[[Exception], None]) -> None:
        self._on_reply = on_reply
        self._on_end = on_end
        self._reader = hiredis.Reader(replyError=_refusal)
        self._transport: asyncio.Transport
        self.has_ended = False

    async def open(self, told: redis.asyncio.Connection, *question: Word) -> Any:
        """To where `told` leads; answers what the engine says to the question. Raises RedisError or OSError; then
        nothing is told."""
        tls = told.ssl_context.get() if isinstance(told, SSLConnection) else None
        on_reply, on_end = self._on_reply, self._on_end
        replies: asyncio.Queue[Any] = asyncio.Queue()
        self._on_reply = self._on_end = replies.put_nowait
        async with asyncio.timeout(ANSWER_WITHIN):
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_connection(lambda: self, told.host, told.port, ssl=tls)
            try:
                reply: Any = None
                for words in filter(None, (*_greeting(told), question)):
                    self.send(*words)
                    reply = await replies.get()
                    if isinstance(reply, Exception) and words is not _NAME:
                        raise reply
            except BaseException:
                self.end(ConnectionError("closed"))
                raise
        self._on_reply, self._on_end = on_reply, on_end
        return reply

    def send(self, *words: Word, then: Sequence[Word] = ()) -> None:
        """Never waits; what the network does not take is kept until it does. ConnectionError once it has ended.
        `then`: another call, right behind it."""
        if self._transport.is_closing():  # `on_end` is on its way, or nobody was there to be told of it
            self.end(ConnectionError("the engine has closed the connection"))
            raise ConnectionError("the engine has closed the connection")
        self._transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stubs know of one word only
        if then:
            self._transport.write(hiredis.pack_command(tuple(then)))  # type: ignore[arg-type]  # the same

    def end(self, reason: Exception) -> None:
        """At once; nothing is told after `on_end`."""
        if not self.has_ended:
            self.has_ended = True
            self._transport.abort()
            self._on_end(reason)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while not self.has_ended and (reply := self._reader.gets()) is not False:
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self.end(ConnectionError(f"the engine says what nobody understands: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.end(ConnectionError(str(error or "the engine has closed the connection")))


async def ask(told: redis.asyncio.Connection, *question: Word) -> Any:
    """What whoever is there says to this one question. Raises RedisError or OSError."""
    connection = Connection(_unheard, _unheard)
    answer = await connection.open(told, *question)
    connection.end(ConnectionError("closed"))
    return answer


def _unheard(_: Any) -> None:
    """Nobody asked."""


def _greeting(told: redis.asyncio.Connection) -> Iterator[tuple[Word, ...]]:
    if told.username:
        yield "AUTH", told.username, told.password or ""
    elif told.password:
        yield "AUTH", told.password
    if told.db:
        yield "SELECT", told.db
    yield _NAME


def _refusal(text: str) -> RedisError:
    """As redis-py has it: what is called by its first word does not say it again."""
    word, _, rest = text.partition(" ")
    kind = _REFUSALS.get(word)
    return ResponseError(text.removeprefix("ERR ")) if kind is None else kind(rest)
