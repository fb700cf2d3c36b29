"""Reads a database for an examination: in one read transaction, beside a server at work, without ever writing."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import apsw

from jobwire_server.domain.activity import Tally
from jobwire_server.domain.job import HOUR, Job, JobState
from jobwire_server.domain.queue import Queue
from jobwire_server.store.examination import Examination, Progress
from jobwire_server.store.invariants import Invariant, Sighting
from jobwire_server.store.sqlite import codec, reading
from jobwire_server.store.sqlite.create import REMEMBERED

_BITE: Final = 1_000
"""Jobs that are read at once."""

_CLOCKS: Final = HOUR
"""By so much the clock may have been set back since a request id was remembered."""

# As codec.decode takes them, but without submission and result, which may be large.
_JOBS: Final = (
    f"SELECT job.number, {codec.columns(submission='NULL', result='NULL')} FROM job "
    "LEFT JOIN detail ON detail.number = job.number WHERE job.number BETWEEN ? AND ? ORDER BY job.number"
)
_NUMBERS: Final = "SELECT number, CAST(id AS BLOB) FROM job WHERE number > ? ORDER BY number LIMIT ?"

_QUEUES: Final = (
    "SELECT CAST(name AS BLOB), last_queue_time, paused, ageing, retention, max_in_flight, create_time, update_time,"
    " revision FROM queue"
)

_TALLIES: Final = f"SELECT CAST(name AS BLOB), {', '.join(Tally._fields)} FROM queue"
_MARKS: Final = f"SELECT CAST(queue AS BLOB), {', '.join(Tally._fields)} FROM mark"
_ENDED: Final = "SELECT CAST(queue AS BLOB), state, n FROM queue_count"

_ORPHANS: Final = """
SELECT number FROM {table} AS beside WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.number = beside.number)
"""

_COUNTERS: Final = """
WITH there AS (SELECT queue, state, count(*) AS n FROM job GROUP BY queue, state)
SELECT CAST(coalesce(counter.queue, there.queue) || ' ' || coalesce(counter.state, there.state) AS BLOB),
    coalesce(counter.n, 0) AS counted, coalesce(there.n, 0) AS are_there
FROM queue_count AS counter FULL JOIN there ON there.queue = counter.queue AND there.state = counter.state
WHERE counted != are_there
"""

_CREDIT: Final = """
WITH leases AS (SELECT worker_id, count(*) AS n FROM job WHERE state = 'in_progress' GROUP BY worker_id)
SELECT CAST(worker.id AS BLOB), worker.held, coalesce(leases.n, 0)
FROM worker LEFT JOIN leases ON leases.worker_id = worker.id WHERE worker.held != coalesce(leases.n, 0)
"""

_REMEMBERED: Final = "SELECT lower(hex(key)), CAST(job_id AS BLOB), expire_time FROM request WHERE expire_time > ?"


class SqliteInspection:
    """Of the database in a file; see `examination.Inspection`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).resolve()

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def run(self, progress: Progress) -> Examination:
        def examined(connection: apsw.Connection) -> Examination:
            examination = Examination(progress)
            examine(connection, examination, now=time.time_ns() // 1000)
            return examination

        return reading.read(self._path, examined)


def examine(connection: apsw.Connection, examination: Examination, *, now: int) -> None:
    """Within one transaction. Indices are the engine's own, derived from the rows, and it checks them itself."""
    try:
        for (said,) in connection.execute("PRAGMA integrity_check"):
            if said != "ok":
                examination.find(Invariant.FILE, said)
        _examine_jobs(connection, examination)
        _examine_beside(connection, examination, now=now)
    except apsw.CorruptError as error:
        examination.find(Invariant.FILE, f"reading ended early: {error}")


def _examine_jobs(connection: apsw.Connection, examination: Examination) -> None:
    last_queue_times: dict[str, int] = {}
    for name, last_queue_time, paused, *others in connection.execute(_QUEUES):
        ageing, retention, max_in_flight, create_time, update_time, revision = others
        queue = Queue(
            name=_text(name),
            paused=bool(paused),
            ageing=ageing,
            retention=retention,
            max_in_flight=max_in_flight,
            create_time=create_time,
            update_time=update_time,
            revision=revision,
        )
        last_queue_times[queue.name] = last_queue_time
        examination.see_queue(queue)
    workers = {_text(id) for (id,) in connection.execute("SELECT CAST(id AS BLOB) FROM worker")}
    examination.workers = len(workers)
    for job in _jobs(connection, examination):
        sighting = Sighting(
            id=job.id,
            job=job,
            queue_listed=job.queue in last_queue_times,
            last_queue_time=last_queue_times.get(job.queue),
            holder_listed=job.worker_id in workers,
        )
        examination.see(sighting)
    if sharers := examination.shared():
        for job in _jobs(connection, examination):
            sharers.see(job)
        sharers.tell(examination)


def _examine_beside(connection: apsw.Connection, examination: Examination, *, now: int) -> None:
    for table in ("submission", "detail"):
        for (number,) in connection.execute(_ORPHANS.format(table=table)):
            examination.find(Invariant.ORPHAN, f"number {number}: {table}")
    for key, counted, are_there in connection.execute(_COUNTERS):
        examination.find(Invariant.COUNTER, f"{_text(key)}: counted {counted}, there are {are_there}")
    _examine_tallies(connection, examination)
    for id, held, leases in connection.execute(_CREDIT):
        broken = Invariant.CREDIT if held < leases else Invariant.CREDIT_STRAY
        examination.find(broken, f"{_text(id)}: counted {held}, there are {leases}")
    for key, job_id, expire_time in connection.execute(_REMEMBERED, (now + REMEMBERED + _CLOCKS,)):
        what = f"request {key} of {_text(job_id)}: until {expire_time}, later than a day from now"
        examination.find(Invariant.REMEMBERED, what)


def _examine_tallies(connection: apsw.Connection, examination: Examination) -> None:
    tallies = {_text(name): Tally(*counted) for name, *counted in connection.execute(_TALLIES)}
    marks: defaultdict[str, list[Tally]] = defaultdict(list)
    for name, *counted in connection.execute(_MARKS):
        marks[_text(name)].append(Tally(*counted))
    there: defaultdict[str, dict[JobState, int]] = defaultdict(dict)
    for name, state, number in connection.execute(_ENDED):
        there[_text(name)][JobState(state)] = number
    for queue in sorted({*tallies, *marks}):
        if queue not in tallies:
            examination.find(Invariant.TALLY, f"{queue}: marks of no queue")
        examination.see_tally(queue, tallies.get(queue, Tally()), there[queue], marks[queue])


def _jobs(connection: apsw.Connection, examination: Examination) -> Iterator[Job]:
    """All jobs that can be read, in bites; the others are found."""
    last = -(2**63)
    while numbers := cast("list[tuple[int, bytes]]", connection.execute(_NUMBERS, (last, _BITE)).fetchall()):
        (first, _), (last, _) = numbers[0], numbers[-1]
        try:
            jobs = [codec.decode(row)[1] for row in connection.execute(_JOBS, (first, last))]
        except codec.UNREADABLE:
            jobs = list(_readable(connection, examination, numbers))
        yield from jobs
        examination.progress(examination.jobs)


def _readable(
    connection: apsw.Connection, examination: Examination, numbers: Sequence[tuple[int, bytes]]
) -> Iterator[Job]:
    for number, id in numbers:
        try:
            (row,) = connection.execute(_JOBS, (number, number))
            yield codec.decode(row)[1]
        except codec.UNREADABLE as error:
            examination.find(Invariant.UNREADABLE, f"{_text(id)}: {error!r}")


def _text(raw: bytes) -> str:
    """Text that is read as bytes, since its UTF-8 may be what is broken."""
    return raw.decode(errors="backslashreplace")
