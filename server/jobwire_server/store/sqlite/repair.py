"""Mends what is derived from the rows of jobs: in one transaction, and while nobody else has the database open."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Final

import apsw

from jobwire_server.domain.activity import ENDED_BY, Tally
from jobwire_server.domain.limits import NAME
from jobwire_server.store.base import CannotOpen, StoreUnavailable
from jobwire_server.store.examination import Progress
from jobwire_server.store.invariants import Invariant
from jobwire_server.store.sqlite.opening import FileLock, open_file
from jobwire_server.store.sqlite.transaction import Transaction

_ENTRIES_OF_AN_INDEX: Final = re.compile(r"(?:row -?\d+ missing from|wrong # of entries in) index (\w+)", re.ASCII)
"""What SQLite says of an index that does not agree with its table."""

_ORPHANS: Final = "DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.number = {table}.number)"

_QUEUES: Final = """
SELECT CAST(queue AS BLOB), coalesce(max(queue_time) FILTER (WHERE queue_time <= ?), 0) FROM job GROUP BY queue
"""

_HOLDERS: Final = """
SELECT DISTINCT CAST(worker_id AS BLOB) FROM job
WHERE state = 'in_progress' AND worker_id NOT IN (SELECT id FROM worker)
"""

_COUNTERS: Final = """
INSERT INTO queue_count SELECT queue, state, count(*) FROM job WHERE true GROUP BY queue, state
ON CONFLICT DO UPDATE SET n = excluded.n WHERE n != excluded.n;
DELETE FROM queue_count WHERE n != 0 AND NOT EXISTS (
    SELECT 1 FROM job WHERE job.queue = queue_count.queue AND job.state = queue_count.state
);
"""

_CREDIT: Final = """
WITH leases AS (SELECT worker_id, count(*) AS n FROM job WHERE state = 'in_progress' GROUP BY worker_id),
    counted AS (SELECT id, coalesce(n, 0) AS n FROM worker LEFT JOIN leases ON leases.worker_id = worker.id)
UPDATE worker SET held = counted.n FROM counted WHERE counted.id = worker.id AND held != counted.n
"""

_MARKS_OF_NOTHING: Final = "DELETE FROM mark WHERE queue NOT IN (SELECT name FROM queue)"

# A tally never shrinks: it has counted what its marks say, and what has ended and is still there.
_TALLY: Final = """
UPDATE queue SET {event} = 0 WHERE {event} < 0;
UPDATE queue SET {event} = marked.most
FROM (SELECT queue AS name, max({event}) AS most FROM mark GROUP BY queue) AS marked
WHERE marked.name = queue.name AND {event} < marked.most;
"""
_ENDED: Final = """
UPDATE queue SET {event} = n FROM queue_count
WHERE queue_count.queue = queue.name AND queue_count.state = ? AND {event} < n
"""

MENDS: Final = frozenset(
    {
        *(Invariant.COUNTER, Invariant.CREDIT, Invariant.CREDIT_STRAY, Invariant.ORPHAN),
        *(Invariant.QUEUE_UNLISTED, Invariant.QUEUE_LAST, Invariant.HOLDER, Invariant.TALLY, Invariant.FILE),
    }
)


class SqliteRepair:
    """Of the database in a file; see `examination.Repair`. A server that has it open is in the way."""

    mends: Final = MENDS

    def __init__(self, path: str) -> None:
        self._path = Path(path).resolve()

    def run(self, progress: Progress) -> None:
        lock = FileLock(self._path)
        try:
            lock.acquire()
        except CannotOpen as error:
            raise CannotOpen(f"{error}; stop it, then repair. Nothing was changed") from None
        try:
            self._mend(time.time_ns() // 1000)
        finally:
            lock.release()

    def _mend(self, now: int) -> None:
        connection = open_file(self._path, now=now).connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                is_whole = _mend_indices(connection)
                if is_whole:
                    _mend_rows(Transaction(connection, now=now, recovered_at=0, is_watched=False))
            except (apsw.CorruptError, apsw.ConstraintError):  # the file is worse than it said: it is named once more
                is_whole = False
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT" if is_whole else "ROLLBACK")
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot write {self._path}: {error}") from error
        finally:
            connection.close()


def _mend_indices(connection: apsw.Connection) -> bool:
    """Makes those anew that lack entries; False where the file is damaged otherwise: then nothing may be written."""
    said = _integrity(connection)
    for name in sorted({match[1] for line in said if (match := _ENTRIES_OF_AN_INDEX.fullmatch(line))}):
        connection.execute(f'REINDEX "{name}"')
    return not said or not _integrity(connection)  # it tells a hundred at a time, the worst perhaps not among them


def _integrity(connection: apsw.Connection) -> list[str]:
    return [said for (said,) in connection.execute("PRAGMA integrity_check") if said != "ok"]


def _mend_rows(transaction: Transaction) -> None:
    execute = transaction.execute
    for table in ("submission", "detail"):
        execute(_ORPHANS.format(table=table))
    entered: Any = execute(_QUEUES, (transaction.now,)).fetchall()
    for raw, last_queue_time in entered:
        if name := _name(raw):
            queue = transaction.add_queue(name)
            if queue.last_queue_time < last_queue_time:
                queue.last_queue_time, queue.changed = last_queue_time, True
    for (raw,) in execute(_HOLDERS).fetchall():
        if name := _name(raw):
            transaction.worker(name)
    transaction.flush()
    execute(_COUNTERS)
    execute(_CREDIT)
    execute(_MARKS_OF_NOTHING)
    for event in Tally._fields:
        execute(_TALLY.format(event=event))
    for state, event in ENDED_BY.items():
        execute(_ENDED.format(event=event), (state,))


def _name(raw: Any) -> str:
    """Of a queue or a worker; empty for what is none, in a job that is damaged."""
    name: str = raw.decode(errors="replace")
    return name if NAME.fullmatch(name) else ""
