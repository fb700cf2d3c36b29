"""A database as the target of a copy: a file of its own that nobody serves until it is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import apsw

from jobwire_server.domain.activity import RINGS, Tally
from jobwire_server.domain.job import Job, JobState
from jobwire_server.store import parts
from jobwire_server.store.base import CannotOpen, StoreUnavailable
from jobwire_server.store.copying import Portion, StoredJob, StoredQueue, StoredWorker, Totals, not_empty
from jobwire_server.store.parts import to_json
from jobwire_server.store.sqlite import bulk, codec
from jobwire_server.store.sqlite.opening import APPLICATION_ID, FileLock, filled_from, open_file

_SPELLING: Final = codec.spelling(Job._fields)
_JOB: Final = ("number", "digest", *_SPELLING.columns)

_QUEUE: Final = (
    *("name", "paused", "ageing", "retention", "max_in_flight", "last_queue_time", "create_time", "update_time"),
    *("revision", "tallied_at", *Tally._fields),
)
_MARK: Final = ("queue", "step", "slot", "number", *Tally._fields)
_WORKER: Final = (
    *("id", "session", "register_time", "last_beat", "last_seen", "directive", "returns", "returned_at"),
    *("returned_claim", "silent", "held", "host", "pid", "runtime", "version", "labels", "queues", "max_in_flight"),
)
_SLOTS: Final = {ring.step: ring.slots for ring in RINGS}

_KNOWN: Final = "SELECT id FROM job WHERE id IN (SELECT value FROM json_each(?))"
_HELD: Final = "SELECT count(*) FROM job"
_ANYTHING: Final = """
SELECT EXISTS (SELECT 1 FROM job) OR EXISTS (SELECT 1 FROM queue) OR EXISTS (SELECT 1 FROM worker)
    OR EXISTS (SELECT 1 FROM request)
"""
_TOTALS: Final = "SELECT state, count(*) FROM job GROUP BY state"

_DERIVED: Final = """
INSERT INTO queue_count SELECT queue, state, count(*) FROM job GROUP BY queue, state;
WITH leases AS (SELECT worker_id, count(*) AS n FROM job WHERE state = 'in_progress' GROUP BY worker_id)
UPDATE worker SET held = leases.n FROM leases WHERE worker.id = leases.worker_id;
"""
"""What is counted beside the rows while moves change them, from the rows themselves."""


class SqliteTarget:
    """The database in a file, see `copying.Target`; it is made where there is none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).resolve()
        self._lock = FileLock(self._path)
        self._connection: apsw.Connection | None = None
        self._number = 0

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def begin(self, since: int, origin: str) -> None:
        self._lock.acquire()
        self._clear()
        opened = open_file(self._path, now=since)
        connection = self._connection = opened.connection
        if connection.execute(_ANYTHING).get:
            raise CannotOpen(not_empty(str(self._path), int(connection.execute(_HELD).get)))
        # An fsync at each checkpoint is enough: what is lost in a power cut still bears the mark.
        connection.pragma("synchronous", "normal")
        with self._writing(), connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('create_time', ?)", (str(since),))
            connection.execute("INSERT INTO meta VALUES ('filled_from', ?)", (origin,))

    def put(self, portion: Portion) -> set[str]:
        connection = self._opened()
        with self._writing(), connection:
            known = _known(connection, portion)
            self._put_jobs([stored for stored in portion.jobs if stored.job.id not in known])
            bulk.insert(connection, "request", ("key", "job_id", "digest", "expire_time"), portion.requests)
            bulk.insert(connection, "queue", _QUEUE, [_queue_row(queue) for queue in portion.queues])
            marks = [row for queue in portion.queues for row in _mark_rows(queue)]
            bulk.insert(connection, "mark", _MARK, marks)
            bulk.insert(connection, "worker", _WORKER, [_worker_row(worker) for worker in portion.workers])
        return known

    def totals(self) -> Totals:
        with self._writing():
            return totals_of(self._opened())

    def finish(self) -> None:
        connection = self._opened()
        with self._writing():
            with connection:
                connection.execute(_DERIVED)
            connection.pragma("wal_checkpoint(TRUNCATE)")
            connection.pragma("synchronous", "full")
            with connection:
                connection.execute("DELETE FROM meta WHERE name = 'filled_from'")
            connection.pragma("wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot write {self._path}: {error}") from error

    def _opened(self) -> apsw.Connection:
        assert self._connection is not None, "begin comes first"
        return self._connection

    def _clear(self) -> None:
        """What a copy that has not ended left here goes, the whole file: it holds nothing else."""
        if not self._path.exists():
            return
        try:
            connection = apsw.Connection(str(self._path), apsw.SQLITE_OPEN_READWRITE)
            try:
                is_half = connection.pragma("application_id") == APPLICATION_ID and bool(filled_from(connection))
            finally:
                connection.close()
        except apsw.Error as error:
            raise CannotOpen(f"cannot open {self._path}: {error}") from error
        if is_half:
            for name in ("-wal", "-shm", ""):  # the file last: without it the others would be taken for another's
                self._path.with_name(self._path.name + name).unlink(missing_ok=True)

    def _put_jobs(self, jobs: list[StoredJob]) -> None:
        rows: list[bulk.Row] = []
        submissions: list[bulk.Row] = []
        details: list[bulk.Row] = []
        for job, digest in jobs:
            self._number += 1
            rows.append((self._number, digest, *_SPELLING.encode(job._asdict())))
            if job.submission:
                submissions.append((self._number, job.submission))
            if job.error is not None or job.history:
                error = None if job.error is None else parts.encode_error(job.error)
                details.append((self._number, error, parts.encode_history(job.history)))
        connection = self._opened()
        bulk.insert(connection, "job", _JOB, rows)
        bulk.insert(connection, "submission", ("number", "content"), submissions)
        bulk.insert(connection, "detail", ("number", "error", "history"), details)


def totals_of(connection: apsw.Connection) -> Totals:
    """What is in a database, counted from its rows."""
    found = cast("list[tuple[str, int]]", connection.execute(_TOTALS).fetchall())
    queues, workers = (int(connection.execute(f"SELECT count(*) FROM {table}").get) for table in ("queue", "worker"))
    return Totals(Counter({JobState(state): number for state, number in found}), queues, workers)


def _known(connection: apsw.Connection, portion: Portion) -> set[str]:
    if not portion.jobs:
        return set()
    found = cast("Any", connection.execute(_KNOWN, (to_json([job.id for job, _ in portion.jobs]),)))
    return {id for (id,) in found}


def _queue_row(queue: StoredQueue) -> bulk.Row:
    said = queue.settings
    return (
        *(said.name, int(said.paused), said.ageing, said.retention, said.max_in_flight, queue.last_queue_time),
        *(said.create_time, said.update_time, said.revision, queue.tallied_at, *queue.tally),
    )


def _mark_rows(queue: StoredQueue) -> list[bulk.Row]:
    """One that a slot holds no more by now cannot come: both engines keep the same rings."""
    return [
        (queue.settings.name, mark.step, mark.number % _SLOTS[mark.step], mark.number, *mark.tally)
        for mark in queue.marks
        if mark.step in _SLOTS
    ]


def _worker_row(worker: StoredWorker) -> bulk.Row:
    info = worker.info
    return (
        *(info.id, info.session, worker.register_time, worker.last_beat, worker.last_seen, worker.directive),
        *(worker.returns, worker.returned_at, worker.returned_claim, int(worker.silent), 0),  # held: counted at the end
        *(info.host, info.pid, info.runtime, info.version, codec.encode_texts(info.labels)),
        *(codec.encode_texts(info.queues), info.max_in_flight),
    )
