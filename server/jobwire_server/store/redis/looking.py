"""Jobs with all that stands around them, as one script saw it: what may be judged while servers are at work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from typing import Any, Final, TypeVar

from redis import Redis
from redis.exceptions import NoScriptError

from jobwire_server.store.invariants import Index, Place, Sighting, places_of
from jobwire_server.store.parts import to_json
from jobwire_server.store.redis import codec
from jobwire_server.store.redis.codec import UNREADABLE
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.scripts import script

LOOKED_AT: Final = 100
"""Jobs in one call of look.lua: everybody else waits for its few milliseconds."""

_PLACED: Final = 250
"""Jobs in one call of placing.lua, for the same reason."""

_PLACING: Final[Mapping[Index, tuple[str, ...]]] = {
    Index.STATE: ("queue", "state"),
    Index.EXPIRY: ("state", "expire_time", "start_time"),
    Index.LEASE: ("state", "worker_id"),
    Index.USER: ("user_id",),
}
"""The fields that say in which index of a kind a job stands."""

_PARTS: Final = 4
"""In which look.lua answers for one job."""

_KINDS: Final = {"s": "submission", "r": "result", "d": "detail"}
"""What may be kept beside a record, by the letter for it."""

_INDICES: Final = {index.value: index for index in Index}

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Named:
    """A job, or what should be one, by what names it: a key of its own, or an entry of an index."""

    id: bytes
    place: Place | None = None
    """The index, by its key: users are hashed there."""
    key: bytes = b""


@dataclass(frozen=True, slots=True)
class Seen:
    """A job by what named it, its record as it is stored (empty = none), and how it stands."""

    named: Named
    record: bytes
    sighting: Sighting


def call(client: Redis, name: str, own: Keys, arguments: object, blob: bytes) -> tuple[Any, bytes]:
    """What a script answers that may be sent twice: JSON and bytes."""
    called = script(name)
    execute: Callable[..., Any] = client.execute_command
    given = (2, own.meta, own.never, "", "", "", "", to_json(arguments), blob)
    try:
        answer = execute("EVALSHA", called.sha, *given)
    except NoScriptError:
        answer = execute("EVAL", called.source, *given)
    return json.loads(answer[3] or b"null"), answer[4]


def look(
    client: Redis, own: Keys, named: Iterable[Named], unreadable: Callable[[str, Exception], None]
) -> Iterator[Seen]:
    """Each that can be read, each as of one moment."""
    for bite in bites(list(named), LOOKED_AT):
        asked = [[len(each.id), *(() if each.place is None else (*each.place, each.key.decode()))] for each in bite]
        sizes, blob = call(client, "look", own, asked, b"".join(each.id for each in bite))
        end = 0
        for n, each in enumerate(bite):
            parts = []
            for size in sizes[_PARTS * n : _PARTS * (n + 1)]:
                parts.append(blob[end : end + size])
                end += size
            try:
                sighting = _sighting(each.id, *parts)
            except UNREADABLE as error:
                unreadable(text(each.id), error)
            else:
                yield Seen(each, parts[0], sighting)


def _sighting(raw_id: bytes, record: bytes, detail: bytes, places: bytes, around: bytes) -> Sighting:
    id = text(raw_id)
    job = codec.decode(id, record, detail, b"", None, is_whole=True) if record else None
    kept, said, queue_listed, last_queue_time, holder_listed = text(around).split("\0")
    words = text(places).split("\0") if places else []
    standing: dict[Place, float] = {}
    for index, name, score in zip(words[::3], words[1::3], words[2::3], strict=True):
        place = (_INDICES[index], name)
        if job is not None and place == by_key((Index.USER, job.user_id)):
            place = (Index.USER, job.user_id)
        standing[place] = float(score)
    return Sighting(
        id=id,
        job=job,
        places=standing,
        beside=_kinds(kept),
        said_beside=None if job is None else _kinds(said),
        queue_listed=bool(queue_listed),
        last_queue_time=int(last_queue_time) if last_queue_time.isdecimal() else None,
        holder_listed=bool(holder_listed),
    )


@lru_cache(maxsize=64)
def _kinds(letters: str) -> frozenset[str]:
    return frozenset(_KINDS[letter] for letter in letters)


def out_of_place(client: Redis, own: Keys, place: Place, ids: Sequence[bytes]) -> list[bytes]:
    """Those of these entries of an index, named by its key, that seem not to belong there."""
    names = _PLACING[place[0]]
    found: list[bytes] = []
    for bite in bites(ids, _PLACED):
        _, blob = call(client, "placing", own, [names, [len(id) for id in bite]], b"".join(bite))
        values = blob.split(b"\0")
        if len(values) != len(names) * len(bite):
            found += bite  # a NUL among them, where no field has any
        else:
            of_each = zip(*(values[n :: len(names)] for n in range(len(names))), strict=True)
            found += (id for id, own in zip(bite, of_each, strict=True) if not _belongs(place, own))
    return found


@lru_cache(maxsize=1024)  # the entries of an index have most of these values in common
def _belongs(place: Place, values: tuple[bytes, ...]) -> bool:
    said = {name: value.decode() for name, value in zip(_PLACING[place[0]], values, strict=True) if value}
    try:
        job = codec.decode("", to_json(said).encode(), b"", b"", None)
    except UNREADABLE:
        return False
    return any(by_key(own) == place for own, _ in places_of(job))


@lru_cache(maxsize=1024)
def by_key(place: Place) -> Place:
    """The index as its key names it."""
    index, name = place
    return (index, sha1(name.encode(), usedforsecurity=False).hexdigest()) if index is Index.USER else place


def bites(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def text(raw: bytes) -> str:
    """What may be damaged, as text."""
    return raw.decode(errors="backslashreplace")
