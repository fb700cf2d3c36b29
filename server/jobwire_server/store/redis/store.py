"""The store in Redis or Valkey: the face that callers await."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError, ResponseError

from jobwire_server.domain.job import SECOND, NewJob
from jobwire_server.domain.move import Move
from jobwire_server.store.base import (
    CannotOpen,
    Claimed,
    ClaimRequest,
    Claims,
    Created,
    Hints,
    Moved,
    Renewal,
    Renewed,
    Snapshot,
    StoreInfo,
    StoreUnavailable,
    WorkerInfo,
)
from jobwire_server.store.listener import Listener
from jobwire_server.store.redis import keys, scripts, topology
from jobwire_server.store.redis.bell import Bell
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.link import Link
from jobwire_server.store.redis.scripts import Call

SCHEMA_VERSION: Final = 1
"""Stands in `:meta`; raise it with every change of a key, or of a shape in codec.py."""

BATCH: Final = 500
"""Items in one call of a script: beyond them the cost of each rises, and everybody else waits."""

OUTAGE_GAP: Final = 3 * SECOND

_OLDEST: Final = {"Redis": (7, 0), "Valkey": (7, 2)}

_DURABILITY: Final = {"always": "fsynced", "everysec": "everysec", "no": "none"}

_log = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")


class RedisStore:
    """Any number of servers on one engine; a call that was cut off is sent again, and a cancelled caller stops nothing.

    `clock` (microseconds since 1970) replaces the engine's own. When nobody has swept for `outage_gap`, or time went
    back, the store takes itself for just back from an outage; None = never.
    """

    def __init__(
        self, url: str, *, clock: Callable[[], int] | None = None, outage_gap: int | None = OUTAGE_GAP
    ) -> None:
        self._address = topology.parse(url)
        self._keys = Keys(self._address.prefix)
        self._clock = clock
        self._outage_gap = outage_gap
        self._link: Link | None = None
        self._bell: Bell | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._engine = ""
        self._durability = ""
        self.failed: Final = asyncio.Event()
        """Never set: an engine that does not answer may answer again."""
        self.failure: Final = ""

    # --- opening and closing --------------------------------------------------------------------------------

    async def open(self) -> None:
        name = self._address.masked
        link = Link(self._address.connect(), self._keys.meta, clock=self._clock, outage_gap=self._outage_gap, name=name)
        bell = Bell(self._address.connect(), self._keys.hints)
        try:
            await self._look_at(link)
            await bell.open()
        except BaseException as error:
            await bell.close()
            await link.client.aclose()
            if isinstance(error, StoreUnavailable | RedisError | OSError):
                raise CannotOpen(f"cannot open {name}: {error}") from error
            raise
        self._link, self._bell = link, bell

    async def _look_at(self, link: Link) -> None:
        """What has to hold before an engine may be used."""
        answer = await link.run(scripts.open_store(SCHEMA_VERSION, keys.PARTITIONS))
        schema, partitions = answer.content()
        if (schema, partitions) != (str(SCHEMA_VERSION), str(keys.PARTITIONS)):
            raise CannotOpen(
                f"{self._address.masked} has schema {schema} in {partitions} partition(s), and this server knows "
                f"schema {SCHEMA_VERSION} in {keys.PARTITIONS} only: start the version of jobwire that wrote it, or "
                "choose another database or prefix"
            )
        info = await link.client.info()
        self._engine = _engine(info)
        policy = info.get("maxmemory_policy", "unknown")
        if policy == "unknown":
            _log.warning("%s does not tell its maxmemory-policy; it must be noeviction", self._address.masked)
        elif policy != "noeviction":
            raise CannotOpen(
                f"{self._address.masked} evicts keys when its memory is full (maxmemory-policy {policy}), which would "
                "lose jobs: set maxmemory-policy to noeviction"
            )
        self._durability = await _durability(link, info)

    async def close(self) -> None:
        link, bell = self._link, self._bell
        self._link = None
        if self._under_way:
            await asyncio.wait(self._under_way)
        if bell is not None:
            await bell.close()
        if link is not None:
            await link.client.aclose()

    # --- the verbs ------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        await self._open_link().ping()

    async def info(self) -> StoreInfo:
        snapshot = await self._run(scripts.get(()))
        recovered_at = await self._open_link().field(self._keys.swept, "recovered_at")
        return StoreInfo(
            kind="redis",
            engine=self._engine,
            url=self._address.masked,
            durability=self._durability,
            now=snapshot.now,
            recovered_at=int(recovered_at or 0),
        )

    async def create(self, jobs: Sequence[NewJob]) -> list[Created]:
        return [made for part in _parts(jobs) for made in await self._run(scripts.create(part))]

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        first, *others = [await self._run(scripts.get(part)) for part in _parts(job_ids) or [()]]
        return Snapshot(first.now, [*first.jobs, *(job for other in others for job in other.jobs)])

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        if sum(len(request.tokens) for request in requests) <= BATCH:
            return await self._run(scripts.claim(queue, requests))
        return await self._claim_in_parts(queue, requests)

    async def _claim_in_parts(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        """One request after the other, each in parts of a batch."""
        claimed: list[Claimed] = []
        held: dict[str, int] = {}
        now = remaining = 0
        for request in requests:
            jobs = []
            for tokens in _parts(request.tokens) or [()]:
                part = await self._run(scripts.claim(queue, [_with_tokens(request, tokens)]))
                (answer,) = part.claimed
                jobs += answer.jobs
                now, remaining = now or part.now, part.remaining
                held[request.worker_id] = answer.held
                if len(answer.jobs) < len(tokens):
                    break
            claimed.append(Claimed(answer.outcome, jobs, answer.held))
        return Claims(
            now,
            [
                Claimed(each.outcome, each.jobs, held[request.worker_id])
                for request, each in zip(requests, claimed, strict=True)
            ],
            remaining,
        )

    async def move(self, moves: Sequence[Move]) -> list[Moved]:
        return [moved for part in _parts(moves) for moved in await self._run(scripts.move(part))]

    async def renew(self, renewals: Sequence[Renewal]) -> list[Renewed]:
        return [renewed for part in _parts(renewals) for renewed in await self._run(scripts.renew(part))]

    async def promote(self, *, limit: int) -> int:
        return await self._bite_by_bite(scripts.promote, limit)

    async def overdue(self, *, queues: Sequence[str] = (), limit: int) -> Snapshot:
        return await self._run(scripts.overdue(queues, limit))

    async def leased(self, *, queues: Sequence[str] = (), longer_than: int, limit: int) -> Snapshot:
        return await self._run(scripts.leased(queues, longer_than, limit))

    async def purge(self, *, limit: int) -> int:
        return await self._bite_by_bite(scripts.purge, limit)

    async def beat(self, worker: WorkerInfo) -> bool:
        return await self._run(scripts.beat(worker))

    def hints(self) -> AsyncIterator[Hints]:
        if self._bell is None:
            listener = Listener()
            listener.close()
            return listener
        return self._bell.listen()

    # --- within ---------------------------------------------------------------------------------------------

    async def _run(self, call: Call[T]) -> T:
        """Does it, and goes on doing it when the caller goes away meanwhile."""
        self._open_link()
        task = asyncio.create_task(self._do(call))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _do(self, call: Call[T]) -> T:
        link, bell = self._link, self._bell
        if link is None or bell is None:
            raise StoreUnavailable("the store is not open")
        answer = await link.run(call)
        value = call.read(answer)
        if answer.hints:
            bell.ring(answer.change, answer.hints)
        return value

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone

    async def _bite_by_bite(self, verb: Callable[[int], Call[int]], limit: int) -> int:
        done = 0
        while done < limit:
            bite = min(BATCH, limit - done)
            done_now = await self._run(verb(bite))
            done += done_now
            if done_now < bite:
                break
        return done

    def _open_link(self) -> Link:
        if self._link is None:
            raise StoreUnavailable("the store is not open")
        return self._link


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[first : first + BATCH] for first in range(0, len(items), BATCH)]


def _with_tokens(request: ClaimRequest, tokens: Sequence[bytes]) -> ClaimRequest:
    return ClaimRequest(
        worker_id=request.worker_id,
        session=request.session,
        max_in_flight=request.max_in_flight,
        tokens=tokens,
        lease_duration=request.lease_duration,
        delivery_timeout=request.delivery_timeout,
    )


def _engine(info: dict[str, Any]) -> str:
    """The engine with its version. Raises CannotOpen for one that lacks what the scripts need."""
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "of unknown version")
    numbers = version.split(".")
    if len(numbers) > 1 and all(part.isdigit() for part in numbers[:2]):
        oldest = _OLDEST[name]
        if tuple(map(int, numbers[:2])) < oldest:
            raise CannotOpen(f"{name} {version} is too old: {oldest[0]}.{oldest[1]} is the oldest that will do")
    return f"{name} {version}"


async def _durability(link: Link, info: dict[str, Any]) -> str:
    """What an OK of this engine means, as far as it tells."""
    if not info.get("aof_enabled", 0):
        return "none" if "aof_enabled" in info else "unknown"
    try:
        config = await link.client.config_get("appendfsync")
    except ResponseError:  # CONFIG is forbidden, as with many hosts
        return "unknown"
    return _DURABILITY.get(str(config.get("appendfsync")), "unknown")
