"""The keys of a store as a source of copies, read bite by bite, while servers change them or none does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from redis import Redis

from jobwire_server.domain.activity import Tally
from jobwire_server.domain.queue import DEFAULT_AGEING, Queue
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.copying import (
    PORTION_JOBS,
    Mark,
    Portion,
    StoredJob,
    StoredQueue,
    StoredRequest,
    StoredWorker,
    Unreadable,
    cut,
)
from jobwire_server.store.redis import codec, commands, topology
from jobwire_server.store.redis.commands import BITE, key_of, text
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.looking import bites

_PARTS: Final = ("JOB", "DETAIL", "SPEC", "RESULT")
"""The keys of one job."""

Values = Mapping[bytes, bytes]


class RedisSource:
    """Of the keys under one prefix; see `copying.Source`. `at_rest`: no server may be at work on them meanwhile."""

    def __init__(self, url: str, *, at_rest: bool) -> None:
        """Raises CannotOpen."""
        self._address = topology.parse(url)
        self._at_rest = at_rest
        self._swept_at = 0
        self._client: Redis | None = None

    @property
    def url(self) -> str:
        return self._address.masked

    def begin(self) -> int:
        with commands.named(self._address):
            client = self._client = commands.client_of(self._address)
            commands.check_schema(client, self._address)
            if self._at_rest:
                self._swept_at = commands.check_at_rest(client, self._address)
            since = client.hget(Keys(self._address.prefix).meta, "create_time")
            return int(cast("bytes | None", since) or 0)

    def portions(self, missed: Callable[[Unreadable], None]) -> Iterator[Portion]:
        client = self._client
        assert client is not None, "begin comes first"
        reading = _Reading(client, self._address.prefix, missed)
        with commands.named(self._address):
            yield from reading.requests()
            yield from reading.jobs()
            yield from reading.queues()
            yield from reading.workers()

    def check(self) -> None:
        client = self._client
        assert client is not None, "begin comes first"
        with commands.named(self._address):
            if self._at_rest and commands.last_sweep(client, self._address) != self._swept_at:
                raise CannotOpen(f"a server has worked on {self.url} meanwhile: stop all servers, then run this again")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class _Reading:
    def __init__(self, client: Redis, prefix: str, missed: Callable[[Unreadable], None]) -> None:
        self._client = client
        self._prefix = prefix
        self._missed = missed

    def requests(self) -> Iterator[Portion]:
        begins = len(self._key("REQUEST"))
        for found in commands.keys_of(self._client, self._prefix, "REQUEST"):
            said = cast("list[bytes | None]", self._client.mget(found))
            requests: list[StoredRequest] = []
            for key, value in zip(found, said, strict=True):
                if value is not None:  # it has passed away since
                    requests += self._read(f"request {text(key[begins:])}", _request, key[begins:], value)
            yield Portion(requests=requests)

    def jobs(self) -> Iterator[Portion]:
        begins = len(self._key("JOB"))
        for found in commands.keys_of(self._client, self._prefix, "JOB"):
            for ids in bites([key[begins:] for key in found], PORTION_JOBS):
                for stretch in cut(self._sizes(ids), lambda each: each[1]):
                    yield Portion(jobs=list(self._jobs([id for id, _ in stretch])))

    def _sizes(self, ids: Sequence[bytes]) -> list[tuple[bytes, int]]:
        pipeline = self._client.pipeline(transaction=False)
        for id in ids:
            pipeline.strlen(self._key("SPEC") + id)
            pipeline.strlen(self._key("RESULT") + id)
        sizes = [size or 0 for size in commands.answers(pipeline)]
        return [(id, spec + result) for id, spec, result in zip(ids, sizes[::2], sizes[1::2], strict=True)]

    def _jobs(self, ids: Sequence[bytes]) -> Iterator[StoredJob]:
        """By one command, so that each of them is as it was at one moment."""
        asked = [self._key(part) + id for id in ids for part in _PARTS]
        found = cast("list[bytes | None]", self._client.mget(asked))
        for at, id in enumerate(ids):
            record, detail, spec, result = found[len(_PARTS) * at : len(_PARTS) * (at + 1)]
            if record is not None:  # it has gone since
                yield from self._read(f"job {text(id)}", _job, id, record, detail, spec, result)

    def queues(self) -> Iterator[Portion]:
        for names, found, marks in self._hashes("QUEUES", "QUEUE", "MARKS"):
            queues: list[StoredQueue] = []
            for name, values, marked in zip(names, found, marks, strict=True):
                if values:
                    queues += self._read(f"queue {text(name)}", _queue, name, values, marked or {})
            yield Portion(queues=queues)

    def workers(self) -> Iterator[Portion]:
        for ids, found in self._hashes("WORKERS", "WORKER"):
            workers: list[StoredWorker] = []
            for id, values in zip(ids, found, strict=True):
                if values:
                    workers += self._read(f"worker {text(id)}", _worker, id, values)
            yield Portion(workers=workers)

    def _hashes(self, listed: str, *names: str) -> Iterator[list[Any]]:
        """A bite of what is listed, and for each name the hashes of it."""
        for bite in bites(commands.names_in(self._client, self._key(listed)), BITE):
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                for each in bite:
                    pipeline.hgetall(cast("str", self._key(name) + each))  # bytes will do, its types forget them
            found = commands.answers(pipeline)
            yield [bite, *bites(found, len(bite))]

    def _key(self, name: str) -> bytes:
        return key_of(self._prefix, name)

    def _read(self, what: str, decode: Callable[..., Any], *stored: Any) -> list[Any]:
        """What was decoded, or nothing."""
        try:
            return [decode(*stored)]
        except codec.UNREADABLE as error:
            self._missed(Unreadable(f"{what}: {error!r}"))
            return []


def _request(key: bytes, value: bytes) -> StoredRequest:
    forgotten_at, job_id, digest = value.split(b" ", 2)
    return StoredRequest(bytes.fromhex(key.decode()), job_id.decode(), digest, int(forgotten_at))


def _job(id: bytes, record: bytes, detail: bytes | None, spec: bytes | None, result: bytes | None) -> StoredJob:
    spec = spec or b"\0"
    job = codec.decode(id.decode(), record, detail or b"", spec, result, is_whole=True)
    return StoredJob(job, spec[1 : 1 + spec[0]])


def _queue(name: bytes, values: Values, marks: Values) -> StoredQueue:
    def number(field: str) -> int | None:
        value = values.get(field.encode())
        return None if value is None else int(value)

    created = number("create_time") or 0
    ageing = number("ageing")
    settings = Queue(
        name=name.decode(),
        paused=values.get(b"paused") == b"1",
        ageing=DEFAULT_AGEING if ageing is None else ageing,
        retention=number("retention"),
        max_in_flight=number("max_in_flight"),
        create_time=created,
        update_time=number("update_time") or created,
        revision=number("revision") or 0,
    )
    tally = Tally(*(number(event) or 0 for event in Tally._fields))
    return StoredQueue(
        settings,
        number("last_queue_time") or 0,
        number("tallied_at") or 0,
        tally,
        [_mark(each) for each in marks.values()],
    )


def _mark(value: bytes) -> Mark:
    step, number, *counted = map(int, value.split())
    return Mark(step, number, Tally(*counted))


def _worker(id: bytes, values: Values) -> StoredWorker:
    def number(field: str) -> int:
        return int(values.get(field.encode()) or 0)

    def said(field: str) -> str:
        return values.get(field.encode(), b"").decode()

    info = WorkerInfo(
        id=id.decode(),
        session=number("session"),
        host=said("host"),
        pid=number("pid"),
        runtime=said("runtime"),
        version=said("version"),
        labels=tuple((key, value) for key, value in json.loads(said("labels") or "[]")),
        queues=tuple(json.loads(said("queues") or "[]")),
        max_in_flight=number("max_in_flight"),
    )
    return StoredWorker(
        info,
        number("register_time") or number("last_beat"),
        number("last_beat"),
        number("last_seen"),
        Directive(said("directive") or Directive.NONE),
        number("returns"),
        number("returned_at"),
        number("returned_claim"),
        values.get(b"silent") == b"1",
    )
