"""A database as a source of copies: read in one transaction, as it was at one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import apsw

from jobwire_server.domain.activity import Tally
from jobwire_server.domain.job import Job
from jobwire_server.domain.queue import Queue
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store.base import CannotOpen, StoreUnavailable
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
from jobwire_server.store.sqlite import codec, reading
from jobwire_server.store.sqlite.opening import FileLock

_BITE: Final = 1_000
"""Rows that are looked at at once."""

_SINCE: Final = "SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'create_time'"

_SIZES: Final = """
SELECT job.number, CAST(job.id AS BLOB), coalesce(length(job.result), 0) + coalesce(length(submission.content), 0)
FROM job LEFT JOIN submission ON submission.number = job.number
WHERE job.number > ? ORDER BY job.number LIMIT ?
"""
_JOBS: Final = (
    f"SELECT job.digest, job.number, {codec.columns()} FROM job "
    "LEFT JOIN submission ON submission.number = job.number "
    "LEFT JOIN detail ON detail.number = job.number WHERE job.number BETWEEN ? AND ? ORDER BY job.number"
)
_REQUESTS: Final = "SELECT key, job_id, digest, expire_time FROM request"

# Texts as bytes, since their UTF-8 may be what is broken.
_QUEUES: Final = f"""
SELECT CAST(name AS BLOB), paused, ageing, retention, max_in_flight, create_time, update_time, revision,
    last_queue_time, tallied_at, {", ".join(Tally._fields)}
FROM queue ORDER BY name
"""
_MARKS: Final = f"SELECT CAST(queue AS BLOB), step, number, {', '.join(Tally._fields)} FROM mark"

_WORKERS: Final = """
SELECT CAST(id AS BLOB), session, CAST(host AS BLOB), pid, CAST(runtime AS BLOB), CAST(version AS BLOB),
    CAST(labels AS BLOB), CAST(queues AS BLOB), max_in_flight, register_time, last_beat, last_seen, directive, returns,
    returned_at, returned_claim, silent
FROM worker ORDER BY id
"""

Numbered = tuple[int, bytes, int]
"""A job's number and id, and the bytes of what may be large in it."""


class SqliteSource:
    """Of the database in a file; see `copying.Source`. `at_rest`: nobody may serve it meanwhile, nor begin to."""

    def __init__(self, path: str, *, at_rest: bool) -> None:
        self._path = Path(path).resolve()
        self._at_rest = at_rest
        self._stamp: object = None
        self._open = ExitStack()
        self._connection: apsw.Connection | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def begin(self) -> int:
        self._stamp = reading.stamp(self._path)
        if self._at_rest:
            lock = FileLock(self._path)
            lock.acquire()
            self._open.callback(lock.release)
        self._connection = self._open.enter_context(reading.reader(self._path))
        return int(self._connection.execute(_SINCE).get or 0)

    def portions(self, missed: Callable[[Unreadable], None]) -> Iterator[Portion]:
        connection = self._connection
        assert connection is not None, "begin comes first"
        try:
            requests = map(StoredRequest._make, cast("Iterator[Any]", connection.execute(_REQUESTS)))
            while bite := list(islice(requests, _BITE)):
                yield Portion(requests=bite)
            yield from _jobs(connection, missed)
            yield Portion(queues=list(_queues(connection, missed)), workers=list(_workers(connection, missed)))
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot read {self._path} to its end: {error}; `jobwire fsck` says more") from error

    def check(self) -> None:
        if not self._at_rest and reading.stamp(self._path) != self._stamp:
            raise CannotOpen(f"{self._path} was opened or changed while it was read: it is copied when it is at rest")

    def close(self) -> None:
        self._open.close()


def _jobs(connection: apsw.Connection, missed: Callable[[Unreadable], None]) -> Iterator[Portion]:
    last = -(2**63)
    while numbers := cast("list[Numbered]", connection.execute(_SIZES, (last, PORTION_JOBS)).fetchall()):
        last = numbers[-1][0]
        for stretch in cut(numbers, lambda each: each[2]):
            try:
                yield Portion(jobs=_between(connection, stretch[0][0], stretch[-1][0]))
            except codec.UNREADABLE:
                yield Portion(jobs=list(_one_by_one(connection, stretch, missed)))


def _between(connection: apsw.Connection, first: int, last: int) -> list[StoredJob]:
    """Raises one of UNREADABLE."""
    return [StoredJob(_job(row), digest) for digest, *row in connection.execute(_JOBS, (first, last))]


def _one_by_one(
    connection: apsw.Connection, numbers: Sequence[Numbered], missed: Callable[[Unreadable], None]
) -> Iterator[StoredJob]:
    for number, id, _ in numbers:
        try:
            yield from _between(connection, number, number)
        except codec.UNREADABLE as error:
            missed(Unreadable(f"job {_shown(id)}: {error!r}"))


def _job(row: Sequence[Any]) -> Job:
    return codec.decode(row)[1]


def _queues(connection: apsw.Connection, missed: Callable[[Unreadable], None]) -> Iterator[StoredQueue]:
    marks: defaultdict[bytes, list[Mark]] = defaultdict(list)
    for name, step, number, *counted in cast("Iterator[Any]", connection.execute(_MARKS)):
        marks[name].append(Mark(step, number, Tally(*counted)))
    for name, paused, *numbers in cast("Iterator[Any]", connection.execute(_QUEUES)):
        ageing, retention, max_in_flight, create_time, update_time, revision, last, tallied_at, *counted = numbers
        try:
            settings = Queue(
                name=name.decode(),
                paused=bool(paused),
                ageing=ageing,
                retention=retention,
                max_in_flight=max_in_flight,
                create_time=create_time,
                update_time=update_time,
                revision=revision,
            )
        except UnicodeDecodeError as error:
            missed(Unreadable(f"queue {_shown(name)}: {error!r}"))
        else:
            yield StoredQueue(settings, last, tallied_at, Tally(*counted), marks[name])


def _workers(connection: apsw.Connection, missed: Callable[[Unreadable], None]) -> Iterator[StoredWorker]:
    for id, session, host, pid, *others in cast("Iterator[Any]", connection.execute(_WORKERS)):
        runtime, version, labels, queues, max_in_flight, registered, beat, seen, directive, *account = others
        returns, returned_at, returned_claim, silent = account
        try:
            info = WorkerInfo(
                id=id.decode(),
                session=session,
                host=host.decode(),
                pid=pid,
                runtime=runtime.decode(),
                version=version.decode(),
                labels=codec.decode_labels(labels.decode()),
                queues=codec.decode_queues(queues.decode()),
                max_in_flight=max_in_flight,
            )
            wanted = Directive(directive)
        except codec.UNREADABLE as error:
            missed(Unreadable(f"worker {_shown(id)}: {error!r}"))
        else:
            yield StoredWorker(info, registered, beat, seen, wanted, returns, returned_at, returned_claim, silent == 1)


def _shown(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
