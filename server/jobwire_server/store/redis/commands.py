"""The engine by plain commands, for programs that read or fill a whole store and are no server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, cast

from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from jobwire_server.domain.job import SECOND
from jobwire_server.store.base import CannotOpen, StoreUnavailable
from jobwire_server.store.copying import half_filled
from jobwire_server.store.redis import keys, topology
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.store import OUTAGE_GAP, SCHEMA_VERSION
from jobwire_server.store.redis.topology import Address

BITE: Final = 1_000
"""Keys or entries that are read at once."""

_RETRIES: Final = 3
"""Of a command that only reads and got no answer."""

_LOOK_AGAIN: Final = 0.1
"""Seconds."""


def client_of(address: Address, *, writes: bool = False) -> Redis:
    """A client of redis-py, to be closed. What it only reads it may ask for again."""
    with ThreadPoolExecutor(1) as thread:  # whoever asks may have an event loop of its own
        node = thread.submit(asyncio.run, Route(address).find()).result()
    return Redis.from_url(
        address.url_of(node),
        retry=Retry(NoBackoff(), 0) if writes else Retry(ExponentialBackoff(base=0.1), _RETRIES),
        socket_timeout=topology.ANSWER_WITHIN,
        socket_connect_timeout=topology.ANSWER_WITHIN,
        protocol=2,
    )


@contextmanager
def named(address: Address, *, writes: bool = False) -> Iterator[None]:
    """Within it errors of redis-py become StoreUnavailable, which names the store."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"cannot {'write' if writes else 'read'} {address.masked}: {error}") from error


def check_schema(client: Redis, address: Address) -> None:
    """Raises CannotOpen where there is no whole store of this version."""
    found = client.hmget(Keys(address.prefix).meta, ["schema", "partitions", "filled_from"])
    schema, partitions, origin = (None if value is None else text(value) for value in cast("list[Any]", found))
    if schema is None:
        raise CannotOpen(f"there is no store at {address.masked}")
    if (schema, partitions) != (str(SCHEMA_VERSION), str(keys.PARTITIONS)):
        raise CannotOpen(
            f"{address.masked} has schema {schema} in {partitions} partition(s), and this version of jobwire knows"
            f" schema {SCHEMA_VERSION} in {keys.PARTITIONS} only"
        )
    if origin is not None:
        raise CannotOpen(half_filled(address.masked, origin.partition(" ")[2]))


def check_at_rest(client: Redis, address: Address) -> int:
    """Answers when a server last swept the store. Raises CannotOpen when one is at work on it: it sweeps every second,
    so that a store which nobody sweeps for longer than an outage lasts has none."""
    while True:
        swept_at, now = last_sweep(client, address), clock(client)
        if not 0 <= now - swept_at <= OUTAGE_GAP:
            return swept_at
        time.sleep(_LOOK_AGAIN)  # thread: a command of its own, which waits for nothing else
        if last_sweep(client, address) != swept_at:
            raise CannotOpen(
                f"a server is at work on {address.masked}, and what it does meanwhile would be lost: stop all servers"
                " (`jobwire workers` and CLIENT LIST show who is connected), then run this again"
            )


def last_sweep(client: Redis, address: Address) -> int:
    return int(cast("bytes | None", client.hget(Keys(address.prefix).swept, "swept_at")) or 0)


def clock(client: Redis) -> int:
    """The engine's, in microseconds since 1970."""
    seconds, microseconds = client.time()
    return seconds * SECOND + microseconds


def keys_of(client: Redis, prefix: str, name: str = "") -> Iterator[list[bytes]]:
    """All keys of that name in keys.py, or of the whole store, bite by bite; one that moves in the engine's own table
    meanwhile may come twice."""
    start = key_of(prefix, name) if name else Keys(prefix).tag.encode()
    cursor = 0
    while True:
        scanned = client.scan(cursor, match=start + b"*", count=BITE)
        cursor, found = cast("tuple[int, list[bytes]]", scanned)
        if found:
            yield found
        if cursor == 0:
            return


def key_of(prefix: str, name: str, rest: str = "") -> bytes:
    """A key by its name in keys.py, and what follows it."""
    return (Keys(prefix).tag + keys._NAMES[name] + rest).encode()


def names_in(client: Redis, key: bytes) -> list[bytes]:
    """The members of a set, ascending."""
    return sorted(set(client.sscan_iter(text(key), count=BITE)))


def is_content(prefix: str, key: bytes) -> bool:
    """A key that says something of jobs, queues or workers, and not only of servers."""
    return _SERVERS.match(key, len(Keys(prefix).tag)) is None


_SERVERS: Final = re.compile(
    "|".join(
        re.escape(keys._NAMES[name]) for name in ("META", "AWAITED", "CALL", "CHANGE", "SWEPT", "WATCHED")
    ).encode()
)


def text(raw: bytes) -> str:
    """What may be damaged, as text."""
    return raw.decode(errors="backslashreplace")


def answers(pipeline: Pipeline) -> list[Any]:
    """None where a key is of another type than it should be."""
    found = pipeline.execute(raise_on_error=False)
    for answer in found:
        if isinstance(answer, Exception) and not is_of_another_type(answer):
            raise answer
    return [None if isinstance(answer, Exception) else answer for answer in found]


def is_of_another_type(error: Exception) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
