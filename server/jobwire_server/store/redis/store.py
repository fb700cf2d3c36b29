"""The store in Redis or Valkey: the face that callers await."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError, ResponseError

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, NewJob
from jobwire_server.domain.move import AnyMove, Deletion
from jobwire_server.domain.queue import QueueChanges
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import (
    CannotOpen,
    Claimed,
    ClaimRequest,
    Claims,
    Counts,
    Created,
    Found,
    Hints,
    Moved,
    QueuePut,
    Queues,
    Renewal,
    Renewed,
    Snapshot,
    StoreUnavailable,
    Workers,
)
from jobwire_server.store.changes import Changes
from jobwire_server.store.info import StoreInfo
from jobwire_server.store.listener import Listener
from jobwire_server.store.redis import calls, listings, mending, opening, registry, topology
from jobwire_server.store.redis.bell import Bell
from jobwire_server.store.redis.codec import UNREADABLE
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.link import Link, new_call_id
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.scripts import Call, Unreadable, script_names
from jobwire_server.store.redis.telling import Telling
from jobwire_server.telemetry.metrics import Timed, unmeasured

SCHEMA_VERSION: Final = 6
"""Stands in `:meta`; raise it with every change of a key, or of a shape in codec.py."""

BATCH: Final = 500
"""Items in one call of a script: beyond them the cost of each rises, and everybody else waits."""

MARKED: Final = 100
"""Queues in one call that reads their marks: 5 ms of the engine, 10 of the event loop."""

OUTAGE_GAP: Final = 3 * SECOND

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
        self._route: Route | None = None
        self._link: Link | None = None
        self._bell: Bell | None = None
        self._telling: Telling | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._engine = opening.Engine("", "", 0)
        self._server: Final = os.urandom(8).hex()
        """Tells this server from others on the same engine."""
        self.failed: Final = asyncio.Event()
        """Never set: an engine that does not answer may answer again."""
        self.failure: Final = ""
        self.steps: Final = script_names()
        self.timed: Timed = unmeasured
        """Told what each script took, its way there and back included. Set it before `open`."""

    # --- opening and closing --------------------------------------------------------------------------------

    async def open(self) -> None:
        name = self._address.masked
        route = Route(self._address)
        is_cluster = self._address.topology is topology.Topology.CLUSTER
        link = Link(
            route,
            [self._keys.meta, self._keys.never] if is_cluster else [self._keys.meta],
            clock=self._clock,
            outage_gap=self._outage_gap,
            name=name,
            replicas=self._address.replicas,
            timed=self.timed,
        )
        bell = Bell(route, self._keys.hints)
        try:
            await opening.check_kind(link, name, self._address.topology)
            self._engine = await opening.look_at(link, name, SCHEMA_VERSION, self._address.replicas)
            await bell.open()
        except BaseException as error:
            await bell.close()
            await link.close()
            await route.close()
            if isinstance(error, StoreUnavailable):  # it names the engine itself
                raise CannotOpen(f"cannot open {error}") from error
            if isinstance(error, RedisError | OSError):
                raise CannotOpen(f"cannot open {name}: {error}") from error
            raise
        self._link, self._bell, self._route = link, bell, route

    async def close(self) -> None:
        link, bell = self._link, self._bell
        await self.unwatch()
        self._link = None
        if self._under_way:
            await asyncio.wait(self._under_way)
        if bell is not None:
            await bell.close()
        if link is not None:
            await link.close()
        if self._route is not None:
            await self._route.close()

    # --- the verbs ------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        await self._open_link().ping()

    async def info(self) -> StoreInfo:
        snapshot = await self._run(calls.get(()))
        recovered_at = await self._open_link().field(self._keys.swept, "recovered_at")
        said = await self._open_link().engine_info()
        return StoreInfo(
            kind="redis",
            engine=self._engine.name,
            url=self._address.masked,
            durability=self._engine.durability,
            schema_version=SCHEMA_VERSION,
            now=snapshot.now,
            recovered_at=int(recovered_at or 0),
            used_bytes=int(said.get("used_memory", 0)),
            client_count=int(said.get("connected_clients", 0)),
            operations_per_second=float(said.get("instantaneous_ops_per_sec", 0)),
        )

    async def create(self, jobs: Sequence[NewJob], *, brief: bool = False) -> list[Created]:
        return [made for part in _parts(jobs) for made in await self._run(calls.create(part, brief=brief))]

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        first, *others = [await self._run(calls.get(part)) for part in _parts(job_ids) or [()]]
        return Snapshot(first.now, [*first.jobs, *(job for other in others for job in other.jobs)])

    async def find(self, wanted: JobFilter, *, after: Position | None = None, limit: int) -> Found:
        names = await self._run(registry.listed("queues")) if listings.needs_names(wanted) else []
        return await self._run(listings.find(wanted, names, after, limit))

    async def count(self, wanted: JobFilter, *, after: Position | None = None) -> Counts:
        needs_names = wanted.needs_scan and listings.needs_names(wanted)
        names = await self._run(registry.listed("queues")) if needs_names else []
        return await self._run(listings.count(wanted, names, after))

    async def claim(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        if sum(len(request.tokens) for request in requests) <= BATCH:
            return await self._run(calls.claim(queue, requests))
        return await self._claim_in_parts(queue, requests)

    async def _claim_in_parts(self, queue: str, requests: Sequence[ClaimRequest]) -> Claims:
        """One request after the other, each in parts of a batch."""
        claimed: list[Claimed] = []
        held: dict[str, int] = {}
        now = remaining = 0
        for request in requests:
            jobs = []
            for tokens in _parts(request.tokens) or [()]:
                part = await self._run(calls.claim(queue, [_with_tokens(request, tokens)]))
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

    async def move(self, moves: Sequence[AnyMove], *, brief: bool = False) -> list[Moved]:
        return [moved for part in _parts(moves) for moved in await self._run(calls.move(part, brief=brief))]

    async def delete(self, deletions: Sequence[Deletion]) -> list[Outcome]:
        return [outcome for part in _parts(deletions) for outcome in await self._run(calls.delete(part))]

    async def renew(self, renewals: Sequence[Renewal], *, brief: bool = False) -> list[Renewed]:
        return [renewed for part in _parts(renewals) for renewed in await self._run(calls.renew(part, brief=brief))]

    async def promote(self, *, limit: int) -> int:
        return await self._bite_by_bite(calls.promote, limit)

    async def overdue(self, *, queues: Sequence[str] = (), limit: int) -> Snapshot:
        return await self._run(calls.overdue(queues, limit))

    async def leased(self, *, queues: Sequence[str] = (), longer_than: int, limit: int) -> Snapshot:
        return await self._run(calls.leased(queues, longer_than, limit))

    async def purge(self, *, limit: int) -> int:
        return await self._bite_by_bite(calls.purge, limit)

    async def put_queue(
        self, name: str, changes: QueueChanges, *, revision: int | None = None, create: bool = False
    ) -> QueuePut:
        return await self._run(registry.put_queue(name, changes, revision=revision, create=create))

    async def queues(
        self,
        *,
        names: Sequence[str] = (),
        after: str = "",
        limit: int = 1000,
        lately: bool = False,
        minutes: bool = False,
    ) -> Queues:
        if names:
            wanted, limit = sorted(set(names)), len(names)
        else:
            wanted = [name for name in await self._run(registry.listed("queues")) if name > after]
        read = partial(registry.queues, lately=lately, minutes=minutes)
        now, records = await self._records(read, wanted, limit, at_once=MARKED if lately or minutes else BATCH)
        return Queues(now, self._engine.since, records)

    async def workers(self, *, ids: Sequence[str] = (), after: str = "", limit: int = 1000, jobs: int = 0) -> Workers:
        if ids:
            wanted, limit = sorted(set(ids)), len(ids)
        else:
            wanted = [id for id in await self._run(registry.listed("workers")) if id > after]
        return Workers(*await self._records(lambda names: registry.workers(names, jobs), wanted, limit))

    async def beat(self, worker: WorkerInfo) -> Directive | None:
        return await self._run(registry.beat(worker))

    async def seen(self, worker_ids: Sequence[str]) -> None:
        for part in _parts(worker_ids):
            await self._run(registry.seen(part))

    async def direct(self, worker_id: str, directive: Directive) -> bool:
        return await self._run(registry.direct(worker_id, directive))

    def hints(self) -> AsyncIterator[Hints]:
        if self._bell is None:
            listener = Listener()
            listener.close()
            return listener
        return self._bell.listen()

    async def watch(self, hear: Callable[[Changes], None]) -> None:
        if self._route is None:
            raise StoreUnavailable("the store is not open")
        telling = Telling(self._route, self._keys.changes, send=self._run, hear=hear)
        try:
            await telling.open()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{self._address.masked}: {type(error).__name__}: {error}") from error
        self._telling = telling

    async def unwatch(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            await telling.close()

    async def caught_up(self) -> int:
        if self._telling is None:
            raise StoreUnavailable("nobody watches")
        return await self._telling.caught_up()

    # --- within ---------------------------------------------------------------------------------------------

    async def _run(self, call: Call[T]) -> T:
        """Does it, and goes on doing it when the caller goes away meanwhile."""
        self._open_link()
        task = asyncio.create_task(self._do(call))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _do(self, call: Call[T]) -> T:
        """Does it, setting jobs aside whose records it stumbles over."""
        call_id = new_call_id()
        is_repeat = was_in_vain = False
        while True:
            try:
                return await self._send(call, call_id, is_repeat=is_repeat)
            except (ResponseError, Unreadable, *UNREADABLE) as error:
                if call.suspects is None or was_in_vain:
                    raise
                known = [error.job_id] if isinstance(error, Unreadable) else []
                # Another server may have been quicker: then there is nothing to mend, and it works all the same.
                was_in_vain = await mending.mend(self._send, call.suspects(), known) == 0
                is_repeat = True

    async def _send(self, call: Call[T], call_id: str | None = None, *, is_repeat: bool = False) -> T:
        link, bell = self._link, self._bell
        if link is None or bell is None:
            raise StoreUnavailable("the store is not open")
        answer = await link.run(call, call_id or new_call_id(), is_repeat=is_repeat)
        value = call.read(answer)
        if answer.hints:
            bell.ring(answer.change, answer.hints)
        return value

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone

    async def _bite_by_bite(self, verb: Callable[[int, str], Call[int]], limit: int) -> int:
        done = 0
        while done < limit:
            bite = min(BATCH, limit - done)
            done_now = await self._run(verb(bite, self._server))
            done += done_now
            if done_now < bite:
                break
        return done

    async def _records(
        self,
        read: Callable[[Sequence[str]], Call[tuple[int, list[T]]]],
        names: Sequence[str],
        limit: int,
        *,
        at_once: int = BATCH,
    ) -> tuple[int, list[T]]:
        """What is read under these names, up to `limit`, and when: in the order of the names, of which some may have
        gone."""
        at = min(at_once, limit)
        now, records = await self._run(read(names[:at]))
        while at < len(names) and len(records) < limit:
            bite = min(at_once, limit - len(records))
            records += (await self._run(read(names[at : at + bite])))[1]
            at += bite
        return now, records

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
