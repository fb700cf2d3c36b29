"""Reads the keys of a store for an examination, bite by bite, while any number of servers change them.

No transaction spans a scan, so what one bite shows may not hold any more at the next. Therefore nothing is judged by
two readings: a job is judged with all that stands around it as one script saw it (look.lua). What only looks wrong
where it was found, an entry of an index, say, is looked at again in this way before it is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ResponseError

from jobwire_server.domain.activity import ENDED_BY, Tally
from jobwire_server.domain.job import DAY, HOUR, JobState
from jobwire_server.domain.queue import Queue
from jobwire_server.domain.worker import Directive
from jobwire_server.store.examination import Examination, Progress
from jobwire_server.store.invariants import Index, Invariant, Sighting
from jobwire_server.store.redis import commands, keys, looking, topology
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.looking import Named, Seen, bites, text
from jobwire_server.store.redis.scripts import RESENT_WITHIN, WATCHED_FOR

_BITE: Final = 1_000
"""Keys or entries that are read at once."""

_INDICES: Final = 50
"""Indices that are read at once, a bite of each."""

_CLOCKS: Final = HOUR
"""By so much the engine's clock may have been set back since something was to be forgotten."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What stands under one of the names in keys.py."""

    type: str
    rest: str = ""
    """What follows the name, as a regular expression."""
    lives: int | None = None
    """Microseconds after which it passes away by itself; None = it stays."""


_NAME: Final = "[A-Za-z0-9._-]+"
"""The characters of ids and names; that they begin as they should is checked where they come in."""

KINDS: Final = {
    "META": _Kind("hash"),
    "JOB": _Kind("string", _NAME),
    "SPEC": _Kind("string", _NAME),
    "RESULT": _Kind("string", _NAME),
    "DETAIL": _Kind("string", _NAME),
    "INDEX": _Kind("zset", f"{_NAME}:(?:{'|'.join(JobState)})"),
    "EXPIRY": _Kind("zset"),
    "LEASES": _Kind("zset", _NAME),
    "USER": _Kind("zset", "[0-9a-f]{40}"),
    "REQUEST": _Kind("string", "[0-9a-f]+", DAY),
    "QUEUES": _Kind("set"),
    "QUEUE": _Kind("hash", _NAME),
    "MARKS": _Kind("hash", _NAME),
    "WORKERS": _Kind("set"),
    "WORKER": _Kind("hash", _NAME),
    "CALL": _Kind("string", "[0-9a-f]+", RESENT_WITHIN),
    "AWAITED": _Kind("string"),
    "CHANGE": _Kind("string"),
    "SWEPT": _Kind("hash"),
    "WATCHED": _Kind("string", lives=WATCHED_FOR),
}
"""All that may be there: every name of keys.py, but for the channels."""

INDEX_OF: Final = {"INDEX": Index.STATE, "EXPIRY": Index.EXPIRY, "LEASES": Index.LEASE, "USER": Index.USER}
_BESIDE: Final = ("SPEC", "RESULT", "DETAIL")

_QUEUE_NUMBERS: Final = ("ageing", "retention", "max_in_flight", "create_time", "update_time", "revision")
_WORKER_NUMBERS: Final = (
    *(b"last_beat", b"last_seen", b"register_time", b"session", b"returns", b"returned_at", b"returned_claim"),
)


class RedisInspection:
    """Of the keys under one prefix; see `examination.Inspection`."""

    def __init__(self, url: str) -> None:
        """Raises CannotOpen."""
        self._address = topology.parse(url)

    @property
    def url(self) -> str:
        return self._address.masked

    def run(self, progress: Progress) -> Examination:
        examination = Examination(progress)
        with commands.named(self._address), commands.client_of(self._address) as client:
            commands.check_schema(client, self._address)
            Reading(client, self._address.prefix, examination).run()
        return examination


class Reading:
    """One way through all that is under one prefix, which shows it to an examination."""

    def __init__(self, client: Redis, prefix: str, examination: Examination) -> None:
        self._client = client
        self._own = Keys(prefix)
        self._tag = self._own.tag
        self._examination = examination
        self._names: dict[str, set[bytes]] = {"QUEUE": set(), "WORKER": set(), "MARKS": set()}
        """Of the queues and workers that are kept, and of the queues that have marks."""
        parts = (f"(?P<{name}>{keys._NAMES[name]}{kind.rest})" for name, kind in KINDS.items())
        self._pattern = re.compile(f"{re.escape(self._tag)}(?:{'|'.join(parts)})".encode())

    def run(self) -> None:
        self.walk()
        if sharers := self._examination.shared():
            for found in self._bites():
                for sighting in self._look(Named(id) for id in found.get("JOB", ())):
                    if sighting.job is not None:
                        sharers.see(sighting.job)
            sharers.tell(self._examination)

    def walk(self) -> None:
        """Shows everything once."""
        for found in self._bites():
            for sighting in self._look(Named(id) for id in found.get("JOB", ())):
                self._examination.see(sighting)
            self._see_beside({id for name in _BESIDE for id in found.get(name, ())})
            self._see_indices(found)
            for name, names in self._names.items():
                names.update(found.get(name, ()))
            self._examination.progress(self._examination.jobs)
        self._see_registry("QUEUE", "QUEUES", Invariant.QUEUE_HALF, self._see_queue)
        self._see_tallies()
        self._see_registry("WORKER", "WORKERS", Invariant.WORKER_HALF, self._see_worker)

    # --- keys -----------------------------------------------------------------------------------------------

    def _bites(self) -> Iterator[dict[str, list[bytes]]]:
        """Name in keys.py → what follows it, of all keys that can be read as what they should be; others are found."""
        cursor = 0
        while True:
            scanned = self._client.scan(cursor, match=f"{self._tag}*", count=_BITE)
            cursor, found = cast("tuple[int, list[bytes]]", scanned)
            described, _ = looking.call(
                self._client, "describe", self._own, [len(key) for key in found], b"".join(found)
            )
            rests: dict[str, list[bytes]] = {}
            for key, (type, left) in zip(found, described, strict=True):
                if type != "none" and (name := self._name_of(key, type, left)):
                    rests.setdefault(name, []).append(key.removeprefix(self._key(name)))
            yield rests
            if cursor == 0:
                return

    def _name_of(self, key: bytes, type: str, left: int) -> str | None:
        """`left`: milliseconds, below 0 for ever."""
        match = self._pattern.fullmatch(key)
        if match is None or match.lastgroup is None:
            self._examination.find(Invariant.FOREIGN, text(key))
            return None
        kind = KINDS[match.lastgroup]
        if type != kind.type:
            self._examination.find(Invariant.KIND, f"{text(key)} is a {type}, not a {kind.type}")
            return None
        if kind.lives is None and left >= 0:
            self._examination.find(Invariant.PASSING, f"{text(key)}: in {left} ms")
        elif kind.lives is not None and not 0 <= left <= (kind.lives + _CLOCKS) // 1000:
            self._examination.find(Invariant.REMEMBERED, f"{text(key)}: {'for ever' if left < 0 else f'{left} ms'}")
        return match.lastgroup

    def _key(self, name: str) -> bytes:
        return (self._tag + keys._NAMES[name]).encode()

    # --- jobs, and what names them --------------------------------------------------------------------------

    def _look(self, named: Iterable[Named]) -> Iterator[Sighting]:
        return (seen.sighting for seen in self._seen(named))

    def _seen(self, named: Iterable[Named]) -> Iterator[Seen]:
        return looking.look(
            self._client,
            self._own,
            named,
            lambda id, error: self._examination.find(Invariant.UNREADABLE, f"{id}: {error!r}"),
        )

    def _see_strays(self, suspects: Iterable[Named]) -> None:
        """What looked wrong, looked at again: this time at one moment, with all that stands around it."""
        for sighting in self._look(suspects):
            self._examination.see_stray(sighting)

    def _see_beside(self, ids: set[bytes]) -> None:
        """For these jobs something is kept beside their record."""
        job = self._key("JOB")
        for bite in bites(list(ids), _BITE):
            if self._client.exists(*(job + id for id in bite)) < len(bite):
                there = self._all(bite, lambda pipeline, id: pipeline.exists(job + id))
                self._see_strays(Named(id) for id, is_there in zip(bite, there, strict=True) if not is_there)

    def _see_indices(self, found: dict[str, list[bytes]]) -> None:
        indices = [
            ((index, text(rest)), self._key(name) + rest, 0)
            for name, index in INDEX_OF.items()
            for rest in found.get(name, ())
        ]
        while indices:
            bite, indices = indices[:_INDICES], indices[_INDICES:]
            scanned = self._all(bite, lambda pipeline, each: pipeline.zscan(each[1], each[2], count=_BITE))
            for (place, key, _), answer in zip(bite, scanned, strict=True):
                cursor, members = answer or (0, ())
                suspects = looking.out_of_place(self._client, self._own, place, [id for id, _ in members])
                self._see_strays(Named(id, place, key) for id in suspects)
                if cursor:
                    indices.append((place, key, cursor))

    # --- queues and workers ---------------------------------------------------------------------------------

    def _see_registry(
        self, name: str, names: str, half: Invariant, see: Callable[[str, dict[bytes, bytes]], None]
    ) -> None:
        """Each of them stands in a list and has a record, or neither."""
        listed = self._key(names)
        every = self._names[name] | self._listed(listed)
        for bite in bites(sorted(every), _BITE):
            pipeline = self._client.pipeline(transaction=True)
            for each in bite:
                pipeline.sismember(text(listed), cast(str, each))  # bytes will do, its types forget them
                pipeline.hgetall(self._key(name) + each)
            found = commands.answers(pipeline)
            for each, is_listed, values in zip(bite, found[::2], found[1::2], strict=True):
                if bool(is_listed) is not bool(values):
                    self._examination.find(half, f"{text(each)}: {'only listed' if is_listed else 'only kept'}")
                if values:
                    try:
                        see(text(each), values)
                    except ValueError as error:
                        self._examination.find(Invariant.UNREADABLE, f"{name.lower()} {text(each)}: {error!r}")

    def _listed(self, key: bytes) -> set[bytes]:
        try:
            return set(self._client.sscan_iter(key, count=_BITE))
        except ResponseError as error:
            if not commands.is_of_another_type(error):
                raise
            return set()

    def _see_queue(self, name: str, values: dict[bytes, bytes]) -> None:
        int(values.get(b"last_queue_time") or 0)  # compared with each job's; whether it is a number shows here
        numbers = {setting: int(value) for setting in _QUEUE_NUMBERS if (value := values.get(setting.encode()))}
        self._examination.see_queue(Queue(name=name, paused=values.get(b"paused") == b"1", **numbers))

    def _see_tallies(self) -> None:
        for bite in bites(sorted(self._names["QUEUE"] | self._names["MARKS"]), _BITE):
            pipeline = self._client.pipeline(transaction=True)
            for each in bite:
                pipeline.hmget(self._key("QUEUE") + each, ["create_time", *Tally._fields])
                for state in ENDED_BY:
                    pipeline.zcard(self._key("INDEX") + each + f":{state}".encode())
                pipeline.hvals(self._key("MARKS") + each)
            found = iter(commands.answers(pipeline))
            for each in bite:
                create_time, *counted = next(found) or [None] * (1 + len(Tally._fields))
                there = {state: next(found) or 0 for state in ENDED_BY}
                self._see_tally(text(each), create_time is not None, counted, there, next(found) or [])

    def _see_tally(
        self, queue: str, is_there: bool, counted: list[bytes], there: dict[JobState, int], marks: list[bytes]
    ) -> None:
        try:
            tally = Tally(*(int(number or 0) for number in counted))
            marked = [Tally(*map(int, mark.split()[2:])) for mark in marks]
        except (TypeError, ValueError) as error:
            self._examination.find(Invariant.UNREADABLE, f"tally of {queue}: {error!r}")
            return
        if marked and not is_there:
            self._examination.find(Invariant.TALLY, f"{queue}: marks of no queue")
        self._examination.see_tally(queue, tally, there, marked)

    def _see_worker(self, name: str, values: dict[bytes, bytes]) -> None:
        for number in _WORKER_NUMBERS:
            int(values.get(number) or 0)
        Directive(text(values.get(b"directive", Directive.NONE.encode())))
        self._examination.workers += 1

    # --- the engine -----------------------------------------------------------------------------------------

    def _all(self, items: Sequence[Any], ask: Callable[[Pipeline, Any], object]) -> list[Any]:
        """The same question about many, in one go; None where a key is of another type."""
        pipeline = self._client.pipeline(transaction=False)
        for item in items:
            ask(pipeline, item)
        return commands.answers(pipeline)
