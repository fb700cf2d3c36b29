"""What must hold of a store whatever has been done to it: the checks, written once, and how each engine is read.

`broken` reads a store at rest. The checks know no engine: they judge a `Dump`, which whatever can be read can fill.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha1
from typing import Any, Final, cast

import apsw
from redis import Redis
from redis.client import Pipeline
from tests.valkey_process import Keyspace

from jobwire_server.domain.job import ENDED, HISTORY_LENGTH, WAITING, JobState
from jobwire_server.store.base import Store
from jobwire_server.store.redis import keys
from jobwire_server.store.sqlite import codec
from jobwire_server.store.sqlite.store import SqliteStore

# --- what is judged -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job's record as it is stored, as far as the checks look: the fields of `domain.job.Job` of these names."""

    id: str
    queue: str
    state: JobState
    score: int
    version: int
    revision: int
    user_id: str
    create_time: int
    queue_time: int | None
    start_time: int | None
    finish_time: int | None
    schedule_time: int | None
    expire_time: int | None
    attempt: int
    fence: int
    token: str | None
    """As text, in any spelling."""
    worker_id: str
    claim_time: int | None
    acknowledged: bool
    lease_expire_time: int | None
    limit_time: int | None
    history: tuple[tuple[int, str], ...]
    """Of each finished attempt its number and its token; "" where it was not settled by its worker."""


Places = Mapping[str, Mapping[str, float]]
"""Index → job id → score, of all indices of one kind. Engines keep scores as doubles, exact below 2^53."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """A whole store at one moment."""

    jobs: Mapping[str, Row]
    places: Mapping[str, Places]
    """Kind of index (`places_of`) → its indices; without the kinds that this engine derives from the rows by itself."""
    counts: Mapping[tuple[str, JobState], int] | None
    """(queue, state) → how many the store counts there; None where it counts its index."""
    beside: Mapping[str, frozenset[str]]
    """Kind of what may stand beside a job → the ids of the jobs it is stored for."""
    queues: Mapping[str, int]
    """Queue → the last `queue_time` it gave."""
    workers: frozenset[str]
    complaints: Sequence[str]
    """What reading it has shown already: records that cannot be read, things that nothing has put there."""


def places_of(row: Row) -> Iterator[tuple[str, str, int | None]]:
    """(kind, index, score) wherever the job has to stand; it must stand nowhere else."""
    yield "state", f"{row.queue}:{row.state}", row.score
    if row.state in WAITING and row.expire_time is not None and row.start_time is None:
        yield "expiry", "", row.expire_time
    if row.state is JobState.IN_PROGRESS:
        yield "lease", row.worker_id, row.claim_time
    if row.user_id:
        yield "user", row.user_id, row.create_time


# --- the checks: a dump -> what breaks it -------------------------------------------------------------------

Check = Callable[[Dump], Iterator[object]]


def _missing_places(dump: Dump) -> Iterator[object]:
    for row in dump.jobs.values():
        for kind, index, score in places_of(row):
            if kind in dump.places:
                found = dump.places[kind].get(index, {}).get(row.id)
                if found is None or score is None or found != float(score):
                    yield f"{row.id}: {kind} {index} has {found}, not {score}"


def _wrong_places(dump: Dump) -> Iterator[object]:
    for kind, indices in dump.places.items():
        for index, members in indices.items():
            for id in members:
                row = dump.jobs.get(id)
                if row is not None and (kind, index) not in {place[:2] for place in places_of(row)}:
                    yield f"{id}, which is {row.state} in {row.queue}: {kind} {index}"


def _places_of_nothing(dump: Dump) -> Iterator[object]:
    for kind, indices in dump.places.items():
        for index, members in indices.items():
            yield from (f"{id}: {kind} {index}" for id in members if id not in dump.jobs)


def _counts(dump: Dump) -> Iterator[object]:
    if dump.counts is not None:
        there = Counter((row.queue, row.state) for row in dump.jobs.values())
        for key in sorted({*there, *dump.counts}):
            if dump.counts.get(key, 0) != there[key]:
                yield f"{key}: counts {dump.counts.get(key, 0)}, there are {there[key]}"


def _orphans(dump: Dump) -> Iterator[object]:
    for kind, owners in dump.beside.items():
        yield from (f"{kind} of {id}" for id in sorted(owners - dump.jobs.keys()))


def _unlisted_queues(dump: Dump) -> Iterator[object]:
    yield from sorted({row.queue for row in dump.jobs.values()} - dump.queues.keys())


def _last_queue_times(dump: Dump) -> Iterator[object]:
    for row in dump.jobs.values():
        if row.queue_time is not None and row.queue_time > dump.queues.get(row.queue, row.queue_time):
            yield f"{row.id}: {row.queue_time}, last of {row.queue}: {dump.queues[row.queue]}"


def _queue_times_twice(dump: Dump) -> Iterator[object]:
    times = Counter((row.queue, row.queue_time) for row in dump.jobs.values() if row.queue_time is not None)
    yield from (key for key, number in times.items() if number > 1)


def _unknown_holders(dump: Dump) -> Iterator[object]:
    holders = {row.worker_id for row in dump.jobs.values() if row.state is JobState.IN_PROGRESS}
    yield from sorted(holders - dump.workers)


def _tokens_twice(dump: Dump) -> Iterator[object]:
    tokens = Counter(row.token for row in dump.jobs.values() if row.state is JobState.IN_PROGRESS and row.token)
    yield from (token for token, number in tokens.items() if number > 1)


def _histories(dump: Dump) -> Iterator[object]:
    for row in dump.jobs.values():
        numbers = [number for number, _ in row.history]
        tokens = [token for _, token in row.history if token]
        if numbers != sorted(set(numbers)) or len(numbers) > HISTORY_LENGTH or len(tokens) != len(set(tokens)):
            yield f"{row.id}: {row.history}"


def _each(is_broken: Callable[[Row], object]) -> Check:
    """For a check that looks at one job at a time."""

    def check(dump: Dump) -> Iterator[object]:
        return (row.id for row in dump.jobs.values() if is_broken(row))

    return check


def _is_no_lease(row: Row) -> object:
    if row.state is not JobState.IN_PROGRESS:
        return False
    if not row.token or not row.worker_id or row.claim_time is None or row.lease_expire_time is None or not row.fence:
        return True
    ends = row.lease_expire_time if row.limit_time is None else min(row.lease_expire_time, row.limit_time)
    return row.score != ends


CHECKS: Final[Mapping[str, Check]] = {
    "a job is not in its index": _missing_places,
    "a job is in an index of others": _wrong_places,
    "an index names no job": _places_of_nothing,
    "a count is not the count": _counts,
    "something beside no job": _orphans,
    "a queue that is not listed": _unlisted_queues,
    "a queue's last time is not the last": _last_queue_times,
    "a queue_time twice": _queue_times_twice,
    "a worker that holds leases is unknown": _unknown_holders,
    "a token twice": _tokens_twice,
    "a history that is none": _histories,
    "a lease without its parts": _each(_is_no_lease),
    "a lease of nobody": _each(
        lambda row: row.state is not JobState.IN_PROGRESS and (row.lease_expire_time is not None or row.acknowledged)
    ),
    "a queued job without a queue_time": _each(lambda row: row.state is JobState.QUEUED and row.queue_time is None),
    "a scheduled job that is not due when it says": _each(
        lambda row: row.state is JobState.SCHEDULED and row.score != row.schedule_time
    ),
    "an ended job without a finish_time": _each(
        lambda row: row.state in ENDED and (row.finish_time is None or row.score < row.finish_time)
    ),
    "a version that was never given": _each(lambda row: not row.version >= row.revision >= 1),
}
"""Every invariant by the sentence that says how it is broken."""


def findings(dump: Dump) -> list[str]:
    """Every broken invariant with what breaks it; empty = all is well."""
    found = [f"{name}: {what}" for name, check in CHECKS.items() for what in check(dump)]
    return [*dump.complaints, *found]


async def broken(store: Store, keyspace: Keyspace | None = None) -> list[str]:
    """The findings about an open store at rest; `keyspace` is where it keeps its keys, if it does."""
    if isinstance(store, SqliteStore):
        return findings(await store._write(lambda transaction: read_sqlite(transaction.connection)))
    assert keyspace is not None, "where does it keep its jobs?"
    with keyspace.server.client() as client:
        return findings(read_redis(client, keyspace.prefix))


# --- SQLite -------------------------------------------------------------------------------------------------

_COLUMNS: Final = tuple(field.name for field in fields(Row) if field.name != "history")
_ROW: Final = (
    f"SELECT {', '.join(_COLUMNS)}, (SELECT history FROM detail WHERE detail.number = job.number) AS history"
    " FROM job WHERE number = ?"
)
_OWNERS: Final = (
    "SELECT coalesce(job.id, 'number ' || beside.number) FROM {table} AS beside"
    " LEFT JOIN job ON job.number = beside.number"
)


def read_sqlite(connection: apsw.Connection) -> Dump:
    """Within one transaction. Its indices are SQLite's own, which derives them from the rows, and checks them."""

    def all_of(sql: str, *bindings: object) -> list[Any]:
        return cast("list[Any]", connection.execute(sql, cast(Any, bindings)).fetchall())

    complaints = [f"SQLite's own check: {said}" for (said,) in all_of("PRAGMA integrity_check") if said != "ok"]
    jobs: dict[str, Row] = {}
    for number, raw_id in all_of("SELECT number, CAST(id AS BLOB) FROM job ORDER BY number"):
        id = raw_id.decode(errors="replace")
        try:
            (values,) = all_of(_ROW, number)
            jobs[id] = _row_of_columns(dict(zip((*_COLUMNS, "history"), values, strict=True)))
        except codec.UNREADABLE as error:
            complaints.append(f"a job that cannot be read: {id}: {error!r}")
    return Dump(
        jobs=jobs,
        places={},
        counts={(queue, JobState(state)): n for queue, state, n in all_of("SELECT queue, state, n FROM queue_count")},
        beside={
            table: frozenset(owner for (owner,) in all_of(_OWNERS.format(table=table)))
            for table in ("submission", "result", "detail")
        },
        queues=dict(all_of("SELECT name, last_queue_time FROM queue")),
        workers=frozenset(id for (id,) in all_of("SELECT id FROM worker")),
        complaints=complaints,
    )


def _row_of_columns(columns: dict[str, Any]) -> Row:
    token = columns["token"]
    history = codec.decode_history(columns["history"])
    columns |= {
        "state": JobState(columns["state"]),
        "token": None if token is None else token.hex(),
        "acknowledged": columns["acknowledged"] == 1,
        "history": tuple((attempt.number, attempt.token.hex()) for attempt in history),
    }
    return Row(**columns)


# --- Redis and Valkey ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """What stands under one of the names in keys.py."""

    type: str
    rest: str = ""
    """What follows the name, as a regular expression."""
    passes: bool = False
    """It has to go by itself after its time; nothing else may."""


_ID: Final = "[A-Za-z0-9._-]+"
"""The characters of ids and names; that they begin as they should is checked where they come in."""

_KINDS: Final[Mapping[str, _Kind]] = {
    "META": _Kind("hash"),
    "JOB": _Kind("hash", _ID),
    "SPEC": _Kind("string", _ID),
    "RESULT": _Kind("string", _ID),
    "DETAIL": _Kind("string", _ID),
    "INDEX": _Kind("zset", f"{_ID}:(?:{'|'.join(JobState)})"),
    "EXPIRY": _Kind("zset"),
    "LEASES": _Kind("zset", _ID),
    "USER": _Kind("zset", "[0-9a-f]{40}"),
    "REQUEST": _Kind("string", "[0-9a-f]+", passes=True),
    "QUEUES": _Kind("set"),
    "QUEUE": _Kind("hash", _ID),
    "WORKERS": _Kind("set"),
    "WORKER": _Kind("hash", _ID),
    "CALL": _Kind("string", "[0-9a-f]+", passes=True),
    "CHANGE": _Kind("string"),
    "SWEPT": _Kind("hash"),
}
"""All that may be there. A name that keys.py has and this table has not is a key that was never explained."""

_NO_KEYS: Final = frozenset({"HINTS"})  # a channel

_NOT_NUMBERS: Final = frozenset({"id", "queue", "state", "user_id", "token", "worker_id", "acknowledged", "history"})
_DEFAULTS: Final[Mapping[str, str]] = {
    # What a hash does not hold where it is so.
    "version": "1",
    "revision": "1",
    "attempt": "0",
    "fence": "0",
    "user_id": "",
    "worker_id": "",
}


class _Found:
    """The keys of one store, by their kind."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client = client
        self._tag = keys.Keys(prefix).tag
        self.complaints: list[str] = []
        self.rests: dict[str, dict[str, str]] = {name: {} for name in _KINDS}
        """Name in keys.py → what follows it in a key → the key."""
        patterns = {
            name: re.compile(re.escape(self._tag + suffix) + f"({_KINDS[name].rest})")
            for name, suffix in keys._NAMES.items()
            if name not in _NO_KEYS
        }
        found = sorted(key.decode(errors="backslashreplace") for key in client.scan_iter(count=1000))
        types = self._all(lambda pipeline, key: pipeline.type(key), found)
        lives = self._all(lambda pipeline, key: pipeline.pttl(key), found)
        for key, type, life in zip(found, types, lives, strict=True):
            if type == b"none":
                continue  # it has passed away in this moment
            matches = [(name, match[1]) for name, pattern in patterns.items() if (match := pattern.fullmatch(key))]
            if not matches:
                self.complaints.append(f"a key that nothing has put there: {key}")
                continue
            ((name, rest),) = matches
            kind = _KINDS[name]
            if type.decode() != kind.type:
                self.complaints.append(f"a key of another type: {key} is a {type.decode()}, not a {kind.type}")
                continue
            if (life >= 0) is not kind.passes:
                self.complaints.append(f"a key that {'stays for ever' if kind.passes else 'passes away'}: {key}")
            self.rests[name][rest] = key

    def _all(self, ask: Callable[[Pipeline, str], object], found: Iterable[str]) -> list[Any]:
        """The same question about many keys, in one go."""
        pipeline = self._client.pipeline(transaction=False)
        for key in found:
            ask(pipeline, key)
        return pipeline.execute()

    def _of(self, name: str, ask: Callable[[Pipeline, str], object]) -> Iterator[tuple[str, Any]]:
        rests = self.rests[name]
        return zip(rests, self._all(ask, rests.values()), strict=True)

    def hashes(self, name: str) -> dict[str, dict[bytes, bytes]]:
        return dict(self._of(name, lambda pipeline, key: pipeline.hgetall(key)))

    def sorted_sets(self, name: str) -> dict[str, dict[str, float]]:
        found = self._of(name, lambda pipeline, key: pipeline.zrange(key, 0, -1, withscores=True))
        return {rest: {id.decode(): score for id, score in members} for rest, members in found}

    def strings(self, name: str) -> dict[str, bytes]:
        return dict(self._of(name, lambda pipeline, key: pipeline.get(key)))

    def members(self, name: str) -> frozenset[str]:
        found = self._of(name, lambda pipeline, key: pipeline.smembers(key))
        return frozenset(member.decode() for _, members in found for member in members)


def read_redis(client: Redis, prefix: str) -> Dump:
    """All of the server's database, in which only this store's keys may stand; not atomic: the store is at rest."""
    found = _Found(client, prefix)
    complaints = found.complaints
    details = found.strings("DETAIL")
    jobs: dict[str, Row] = {}
    for id, values in found.hashes("JOB").items():
        try:
            jobs[id] = _row_of_hash(id, values, details.get(id))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            complaints.append(f"a job that cannot be read: {id}: {error!r}")
    queues, workers = found.hashes("QUEUE"), found.hashes("WORKER")
    for kind, listed, stored in (
        ("queue", found.members("QUEUES"), queues.keys()),
        ("worker", found.members("WORKERS"), workers.keys()),
    ):
        complaints += [f"a {kind} that is listed or stored, not both: {name}" for name in sorted(listed ^ stored)]
    users = {sha1(row.user_id.encode(), usedforsecurity=False).hexdigest(): row.user_id for row in jobs.values()}
    return Dump(
        jobs=jobs,
        places={
            "state": found.sorted_sets("INDEX"),
            "expiry": found.sorted_sets("EXPIRY"),
            "lease": found.sorted_sets("LEASES"),
            "user": {users.get(name, name): members for name, members in found.sorted_sets("USER").items()},
        },
        counts=None,
        beside={name.lower(): frozenset(found.rests[name]) for name in ("SPEC", "RESULT", "DETAIL")},
        queues={name: int(values.get(b"last_queue_time", b"0")) for name, values in queues.items()},
        workers=frozenset(workers),
        complaints=complaints,
    )


def _row_of_hash(id: str, stored: Mapping[bytes, bytes], details: bytes | None) -> Row:
    values = {**_DEFAULTS, **{name.decode(): value.decode() for name, value in stored.items()}, "id": id}
    row: dict[str, Any] = {field.name: values.get(field.name) for field in fields(Row)}
    for name, value in row.items():
        if value is not None and name not in _NOT_NUMBERS:
            row[name] = int(value)
    row["state"] = JobState(values["state"])
    row["acknowledged"] = values.get("acknowledged") == "1"
    if row["state"] is JobState.IN_PROGRESS and row["lease_expire_time"] is None:
        row["lease_expire_time"] = row["score"]  # stored only where a limit ends the lease sooner
    history = json.loads(json.loads(details or "{}").get("history", "[]"))
    row["history"] = tuple((attempt[0], attempt[5]) for attempt in history)
    return Row(**row)
