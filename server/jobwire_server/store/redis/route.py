"""The way to the engine that holds the keys, wherever it is now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  # its name in redis-py
    RedisError,
)

from jobwire_server.store.redis.connection import Connection, ask
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.topology import Address, Node, Topology

ASKED_AGAIN: Final = 1.0
"""Seconds after which the Sentinels are asked again whether the primary is still the same."""

_TOLD_WITHIN: Final = 0.5
"""Seconds that Sentinels and nodes are given to say where the primary is, once others have said it: those that are
there say it at once."""

Told = TypeVar("Told")


class Route:
    """All connections of a store to its engine. They lead to one process: when one of them finds the primary elsewhere,
    the others end, lest somebody listens where nobody speaks any more."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._open: WeakKeyDictionary[Connection, Node] = WeakKeyDictionary()
        self._following: asyncio.Task[None] | None = None

    async def open(self, connection: Connection) -> None:
        """To the primary of now. Raises RedisError or OSError."""
        node = await self.find()
        is_named = self._address.topology is Topology.SENTINEL
        role = await connection.open(self._address.told(node), *(("ROLE",) if is_named else ()))
        if is_named and role[0] != b"master":
            # One that was away comes back as the primary that it was, and the Sentinels see to it within seconds; or
            # they have agreed on the next, which does not know it yet.
            connection.end(ConnectionError("closed"))
            raise ConnectionError(f"{node} is to be the primary, and is none yet")
        self._leave_all_but(node)
        self._open[connection] = node
        if is_named and self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.wait([following])

    async def find(self) -> Node:
        """Where the primary is now, as far as anybody says. Raises RedisError or OSError."""
        match self._address.topology:
            case Topology.SENTINEL:
                return await self._named_by_sentinels()
            case Topology.CLUSTER:
                return await self._owner_in_cluster()
            case _:
                return self._address.nodes[0]

    async def _follow(self) -> None:
        """A primary that lost the others goes on as one, and what it is told then is lost when they find each other
        again. Whoever can reach both is told by the Sentinels, and leaves it."""
        while True:
            await asyncio.sleep(ASKED_AGAIN)
            try:
                node = await self.find()
            except (RedisError, OSError):
                continue  # who serves need not be asked where he is
            self._leave_all_but(node)

    def _leave_all_but(self, node: Node) -> None:
        for connection, its in list(self._open.items()):
            if its != node:
                connection.end(ConnectionError(f"the primary is {node} now"))

    # --- who knows ------------------------------------------------------------------------------------------

    async def _named_by_sentinels(self) -> Node:
        """The latest that any of them knows: each failover has a higher number, and one that was away knows the old."""
        address = self._address

        async def named(sentinel: Node) -> tuple[int, Node]:
            said = await ask(address.told_of_sentinel(sentinel), "SENTINEL", "MASTER", address.service)
            fields = dict(zip(said[::2], said[1::2], strict=True))
            return int(fields[b"config-epoch"]), Node(fields[b"ip"].decode(), int(fields[b"port"]))

        return max(await _all_told("Sentinel", address.nodes, named))[1]

    async def _owner_in_cluster(self) -> Node:
        """Of the slot of our keys, as most of the nodes have it that were named: one that was away knows the old."""
        address = self._address
        slot = key_slot(Keys(address.prefix).meta.encode())

        async def owner(node: Node) -> Node:
            for first, last, primary, *_ in await ask(address.told(node), "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    host, port = primary[:2]
                    return Node(host.decode() if host else node.host, port)  # none is said: the one that was asked
            raise ConnectionError(f"nobody has slot {slot}, where the keys of this prefix belong")

        return Counter(await _all_told("node", address.nodes, owner)).most_common(1)[0][0]


async def _all_told(
    what: str, nodes: Sequence[Node], tell: Callable[[Node], Coroutine[None, None, Told]]
) -> list[Told]:
    """What each of them tells that does. Raises RedisError when nobody does."""
    asked = [asyncio.create_task(tell(node)) for node in nodes]
    try:
        _, silent = await asyncio.wait(asked, timeout=_TOLD_WITHIN)
        while silent and not any(map(_has_told, asked)):
            _, silent = await asyncio.wait(silent, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in asked:
            each.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    known = [answer for answer in answers if not isinstance(answer, BaseException)]
    if known:
        return known
    reasons = []
    for node, answer in zip(nodes, answers, strict=True):
        if isinstance(answer, AuthenticationError) or not isinstance(answer, RedisError | OSError):
            assert isinstance(answer, BaseException)
            raise answer
        reasons.append(f"{what} {node}: {str(answer) or type(answer).__name__}")
    raise ConnectionError(f"nobody says where the primary is ({'; '.join(reasons)})")


def _has_told(asked: asyncio.Task[Any]) -> bool:
    return asked.done() and not asked.cancelled() and asked.exception() is None
