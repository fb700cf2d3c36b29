"""The keys of a store as the target of a copy: under a prefix of their own that no server opens until they are whole.

By plain commands and no script: nobody else writes there, and what is written in part bears a mark that says so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha1
from typing import Any, Final, cast

from redis import Redis

from jobwire_server.domain.activity import RINGS
from jobwire_server.domain.job import SECOND, JobState
from jobwire_server.domain.queue import DEFAULT_AGEING
from jobwire_server.domain.worker import Directive
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.copying import Portion, StoredJob, StoredQueue, StoredRequest, StoredWorker, Totals, not_empty
from jobwire_server.store.invariants import Index, Place, places_of
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis import codec, commands, keys, topology
from jobwire_server.store.redis.commands import BITE, key_of
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.looking import bites
from jobwire_server.store.redis.store import SCHEMA_VERSION

_SLOTS: Final = {ring.step: ring.slots for ring in RINGS}


class RedisTarget:
    """Of the keys under one prefix, see `copying.Target`. `now` replaces the engine's clock."""

    def __init__(self, url: str, *, now: Callable[[], int] | None = None) -> None:
        """Raises CannotOpen."""
        self._address = topology.parse(url)
        self._prefix = self._address.prefix
        self._own = Keys(self._prefix)
        self._given_now = now
        self._now = 0
        self._mark = b""
        self._client: Redis | None = None

    @property
    def url(self) -> str:
        return self._address.masked

    def begin(self, since: int, origin: str) -> None:
        with commands.named(self._address, writes=True):
            client = self._client = commands.client_of(self._address, writes=True)
            commands.check_at_rest(client, self._address)
            self._now = self._given_now() if self._given_now else commands.clock(client)
            self._mark = f"{os.urandom(8).hex()} {origin}".encode()  # its own, or two copies at a time would mix
            is_half = client.hget(self._own.meta, "filled_from") is not None
            if not is_half:
                self._refuse_content(client)
            said = {
                "schema": SCHEMA_VERSION,
                "partitions": keys.PARTITIONS,
                "create_time": since,
                "filled_from": self._mark,
            }
            client.hset(self._own.meta, mapping=cast("Any", said))
            if is_half:
                for found in commands.keys_of(client, self._prefix):
                    if content := [key for key in found if commands.is_content(self._prefix, key)]:
                        client.unlink(*content)

    def put(self, portion: Portion) -> set[str]:
        with commands.named(self._address, writes=True):
            client = self._marked()
            known = self._known(client, portion.jobs)
            pipeline = client.pipeline(transaction=False)
            strings, places = self._strings_and_places(stored for stored in portion.jobs if stored.job.id not in known)
            if strings:
                pipeline.mset(cast("Any", strings))
            for key, members in places.items():
                pipeline.zadd(key.decode(), cast("Any", members))
            for request in portion.requests:
                if request.expire_time > self._now:
                    left = (request.expire_time - self._now) // 1000
                    pipeline.set(self._key("REQUEST", request.key.hex()), _request(request), px=max(left, 1))
            for queue in portion.queues:
                name = queue.settings.name
                pipeline.sadd(self._text("QUEUES"), name)
                pipeline.hset(self._text("QUEUE", name), mapping=cast("Any", _queue(queue)))
                if marks := _marks(queue):
                    pipeline.hset(self._text("MARKS", name), mapping=cast("Any", marks))
            for worker in portion.workers:
                pipeline.sadd(self._text("WORKERS"), worker.info.id)
                pipeline.hset(self._text("WORKER", worker.info.id), mapping=cast("Any", _worker(worker)))
            pipeline.execute()
            return known

    def totals(self) -> Totals:
        with commands.named(self._address, writes=True):
            client = self._marked()
            queues = commands.names_in(client, self._key("QUEUES"))
            workers = len(commands.names_in(client, self._key("WORKERS")))
            states: Counter[JobState] = Counter()
            for bite in bites(queues, BITE):
                pipeline = client.pipeline(transaction=False)
                for name in bite:
                    for state in JobState:
                        pipeline.zcard(cast("str", self._key("INDEX") + name + f":{state}".encode()))
                for at, number in enumerate(pipeline.execute()):
                    states[list(JobState)[at % len(JobState)]] += number
            return Totals(+states, len(queues), workers)

    def finish(self) -> None:
        with commands.named(self._address, writes=True):
            client = self._marked()
            now = str(self._given_now() if self._given_now else commands.clock(client))
            pipeline = client.pipeline(transaction=True)
            # As if nobody had ever swept: for whoever sweeps first the store is just back from an outage.
            pipeline.hset(self._own.swept, mapping={"swept_at": "0", "recovered_at": now})
            pipeline.hdel(self._own.meta, "filled_from")
            pipeline.execute()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _marked(self) -> Redis:
        """The client. Raises CannotOpen when another copy into these keys has begun."""
        client = self._client
        assert client is not None, "begin comes first"
        if client.hget(self._own.meta, "filled_from") != self._mark:
            raise CannotOpen(f"another copy into {self.url} has begun meanwhile: this one ends")
        return client

    def _refuse_content(self, client: Redis) -> None:
        """Raises CannotOpen."""
        begins, jobs, is_empty = self._key("JOB"), 0, True
        for found in commands.keys_of(client, self._prefix):
            jobs += sum(key.startswith(begins) for key in found)
            is_empty = is_empty and not any(commands.is_content(self._prefix, key) for key in found)
        if not is_empty:
            raise CannotOpen(not_empty(self.url, jobs))

    def _known(self, client: Redis, jobs: Iterable[StoredJob]) -> set[str]:
        ids = [job.id for job, _ in jobs]
        named = [self._key("JOB", id) for id in ids]
        if not ids or not client.exists(*named):
            return set()
        found = cast("list[bytes | None]", client.mget(named))
        return {id for id, record in zip(ids, found, strict=True) if record is not None}

    def _strings_and_places(
        self, jobs: Iterable[StoredJob]
    ) -> tuple[dict[bytes, bytes], dict[bytes, dict[str, int | None]]]:
        """The keys of these jobs, and of the indices where they stand."""
        strings: dict[bytes, bytes] = {}
        places: dict[bytes, dict[str, int | None]] = {}
        for job, digest in jobs:
            record, detail, result = codec.encode(job)
            strings[self._key("JOB", job.id)] = record
            strings[self._key("SPEC", job.id)] = codec.encode_spec(digest, job.submission)
            if detail:
                strings[self._key("DETAIL", job.id)] = detail
            if result is not None:
                strings[self._key("RESULT", job.id)] = result
            for place, score in places_of(job):
                places.setdefault(self._key_of_place(place), {})[job.id] = score
        return strings, places

    def _key_of_place(self, place: Place) -> bytes:
        index, name = place
        if index is Index.USER:
            name = sha1(name.encode(), usedforsecurity=False).hexdigest()
        return self._key(_INDEX_KEYS[index], name)

    def _key(self, name: str, rest: str = "") -> bytes:
        return key_of(self._prefix, name, rest)

    def _text(self, name: str, rest: str = "") -> str:
        return self._key(name, rest).decode()


_INDEX_KEYS: Final = {Index.STATE: "INDEX", Index.EXPIRY: "EXPIRY", Index.LEASE: "LEASES", Index.USER: "USER"}


def _request(request: StoredRequest) -> bytes:
    return b"%d %b %b" % (request.expire_time, request.job_id.encode(), request.digest)


def _queue(queue: StoredQueue) -> Mapping[str, int]:
    said = queue.settings
    settings = {
        "paused": 1 if said.paused else None,
        "ageing": None if said.ageing == DEFAULT_AGEING else said.ageing,
        "retention": said.retention,
        "max_in_flight": said.max_in_flight,
        "update_time": None if said.update_time == said.create_time else said.update_time,
        "revision": said.revision or None,
        "tallied_at": queue.tallied_at or None,
        **{event: number or None for event, number in queue.tally._asdict().items()},
    }
    kept = {name: value for name, value in settings.items() if value is not None}
    return {"create_time": said.create_time, "last_queue_time": queue.last_queue_time, **kept}


def _marks(queue: StoredQueue) -> Mapping[str, str]:
    return {
        f"{mark.step // SECOND}:{mark.number % _SLOTS[mark.step]}": " ".join(map(str, (*mark[:2], *mark.tally)))
        for mark in queue.marks
        if mark.step in _SLOTS
    }


def _worker(worker: StoredWorker) -> Mapping[str, str | int]:
    info = worker.info
    said = {
        "session": info.session,
        "last_seen": worker.last_seen,
        "directive": "" if worker.directive is Directive.NONE else worker.directive,
        "returns": worker.returns,
        "returned_at": worker.returned_at,
        "returned_claim": worker.returned_claim,
        "silent": int(worker.silent),
        "host": info.host,
        "pid": info.pid,
        "runtime": info.runtime,
        "version": info.version,
        "labels": to_json(info.labels) if info.labels else "",
        "queues": to_json(info.queues) if info.queues else "",
        "max_in_flight": info.max_in_flight,
    }
    kept = {name: value for name, value in said.items() if value}
    return {"register_time": worker.register_time, "last_beat": worker.last_beat, **kept}
