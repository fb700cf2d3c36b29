"""Reading and writing jobs: their rows, what stands beside them, and the rows that have become unreadable."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

from jobwire_server.domain.job import DEFAULT_RETENTION, Job, JobError, JobState
from jobwire_server.store import parts
from jobwire_server.store.changes import Gone
from jobwire_server.store.sqlite import bulk, codec
from jobwire_server.store.sqlite.codec import SELECT, SELECT_ROW, UNREADABLE
from jobwire_server.store.sqlite.transaction import Transaction

Stored = tuple[int, Job]
"""A job as it was read: its number and what it says."""

CORRUPT_JOB: Final = "CORRUPT_JOB"

_log = logging.getLogger(__name__)

_REMOVE: Final = "DELETE FROM job WHERE number = ?"
_WRITE_SUBMISSION: Final = "INSERT OR REPLACE INTO submission VALUES (?, ?)"
_WRITE_ERROR: Final = """
INSERT INTO detail VALUES (?1, ?2, '[]') ON CONFLICT DO UPDATE SET error = excluded.error
"""
_WRITE_HISTORY: Final = """
INSERT INTO detail VALUES (?1, NULL, ?2) ON CONFLICT DO UPDATE SET history = excluded.history
"""
_CLEAR_ERROR: Final = "UPDATE detail SET error = NULL WHERE number = ? AND error IS NOT NULL"


def read(transaction: Transaction, job_ids: Sequence[str], *, whole: bool) -> dict[str, Stored]:
    """The jobs with these ids that exist; not `whole` = without what stands beside the row. One that cannot be read is
    set aside first, and answered as it then is."""
    if len(job_ids) == 1:  # by far the commonest of the small ones
        found = select(transaction, "WHERE job.id = ?", job_ids, whole=whole)
    else:
        found = []
        for first in range(0, len(job_ids), bulk.ROWS):
            ids = [*job_ids[first : first + bulk.ROWS]]
            found += select(transaction, _BY_IDS, ids + [""] * (bulk.ROWS - len(ids)), whole=whole)
    return {stored[1].id: stored for stored in found}


_BY_IDS: Final = f"WHERE job.id IN ({bulk.values(1, bulk.ROWS)})"


def select(transaction: Transaction, where: str, bindings: Sequence[Any], *, whole: bool = True) -> list[Stored]:
    """The jobs that `where` (down to the LIMIT) names. Those that cannot be read are set aside on the way.

    Where the connection cannot write, an unreadable row raises one of UNREADABLE.
    """
    statement = (SELECT if whole else SELECT_ROW) + where
    try:
        return [codec.decode(row) for row in transaction.execute(statement, bindings).fetchall()]
    except UNREADABLE:
        if transaction.connection.readonly("main"):
            raise
    numbers = [row[0] for row in transaction.execute(f"SELECT job.number FROM job {where}", bindings)]
    for number in numbers:
        try:
            for row in transaction.execute(SELECT + "WHERE job.number = ?", (number,)):
                codec.decode(row)
        except UNREADABLE:
            _set_aside(transaction, number)
    return [codec.decode(row) for row in transaction.execute(statement, bindings).fetchall()]


def write(transaction: Transaction, changed: Iterable[tuple[Stored, Mapping[str, Any]]]) -> None:
    """Writes these fields of these jobs, and only where they stand. No job may come twice."""
    by_fields: dict[tuple[str, ...], list[bulk.Row]] = {}
    for (number, job), changes in changed:
        transaction.tell_changed([job.id], rewritten=[job.id] if "submission" in changes else ())
        names = tuple(changes)
        rows = by_fields.get(names)
        if rows is None:
            rows = by_fields[names] = []
        spelling = codec.spelling(names)
        rows.append((number, *spelling.encode(changes)))
        if spelling.stands_beside:
            _write_beside(transaction, number, job, changes)
    for names, rows in by_fields.items():
        bulk.given(transaction.connection, _update(codec.spelling(names).columns), rows)


def clear_errors(transaction: Transaction, numbers: Sequence[int]) -> None:
    """The last error of these jobs goes. A first attempt has none before it: most jobs need no such thing."""
    if numbers:
        transaction.executemany(_CLEAR_ERROR, [(number,) for number in numbers])


class _OfJob(Protocol):
    @property
    def job_id(self) -> str: ...


Item = TypeVar("Item", bound=_OfJob)


def rounds(items: Sequence[Item]) -> list[Sequence[Item]]:
    """In order, and in none of them a job twice: one statement sees a job as it was before it."""
    if len({item.job_id for item in items}) == len(items):
        return [items]
    parted: list[list[Item]] = [[]]
    seen: set[str] = set()
    for item in items:
        if item.job_id in seen:
            parted.append([])
            seen = set()
        seen.add(item.job_id)
        parted[-1].append(item)
    return [*parted]


def remove(transaction: Transaction, stored: Stored, *, ended: Mapping[str, Any] | None = None) -> None:
    """The job goes, with all that stands beside it; `ended` = the changes that ended it, which nobody could read."""
    number, job = stored
    if transaction.is_watched:
        last = None
        if ended is not None:
            last = read(transaction, [job.id], whole=True)[job.id][1]._replace(**ended)
        transaction.tell_gone([Gone(job.id, job.queue, job.type, job.user_id, job.create_time)], last=last)
    transaction.execute(_REMOVE, (number,))


@lru_cache(maxsize=256)  # one text for each set of columns, so that SQLite prepares each once
def _update(columns: tuple[str, ...]) -> str:
    assignments = ", ".join(f"{column} = given.{column}" for column in columns)
    return (
        f"WITH given (number, {', '.join(columns)}) AS ({{values}}) "
        f"UPDATE job SET {assignments} FROM given WHERE job.number = given.number"
    )


def _write_beside(transaction: Transaction, number: int, job: Job, changes: Mapping[str, Any]) -> None:
    if "submission" in changes:
        transaction.execute(_WRITE_SUBMISSION, (number, changes["submission"]))
    if "history" in changes:
        transaction.execute(_WRITE_HISTORY, (number, parts.encode_history(changes["history"])))
    if changes.get("error") is not None:
        transaction.execute(_WRITE_ERROR, (number, parts.encode_error(changes["error"])))
    elif "error" in changes and (job.attempt != 1 or job.state is not JobState.IN_PROGRESS):
        clear_errors(transaction, [number])


_TEXTS: Final = ("id", "type", "user_id", "worker_id", "cancel_reason")

_SET_ASIDE: Final = """
UPDATE job SET state = 'failed', score = ?, update_time = ?, finish_time = ?, version = version + 1,
    revision = revision + 1, retry = NULL, type = ?, user_id = ?, worker_id = ?, cancel_reason = ?, token = NULL,
    acknowledged = 0, lease_expire_time = NULL, limit_time = NULL, outcome = NULL, end_time = NULL, progress = NULL
WHERE number = ?
"""
_WRITE_DETAIL: Final = "INSERT OR REPLACE INTO detail VALUES (?, ?, ?)"


def _set_aside(transaction: Transaction, number: int) -> None:
    """Makes a row that cannot be read a dead letter that can: one bad row must never hold up its queue."""
    texts: dict[str, str] = {}
    for name in _TEXTS:  # one by one, and as bytes, since their UTF-8 may be what is broken
        raw: bytes = transaction.execute(f"SELECT CAST({name} AS BLOB) FROM job WHERE number = ?", (number,)).get
        texts[name] = raw.decode(errors="replace")
    queue, state_text, fence = transaction.execute(
        "SELECT queue, state, fence FROM job WHERE number = ?", (number,)
    ).get
    state = JobState(state_text)
    now = transaction.now
    purge_time = now + DEFAULT_RETENTION[JobState.FAILED]  # its own may be zero, and somebody should see it
    changed = (texts[name] for name in _TEXTS if name != "id")
    transaction.execute(_SET_ASIDE, (purge_time, now, now, *changed, number))
    error = JobError(CORRUPT_JOB, "the stored record of this job could not be read; its payload may be intact")
    transaction.execute(_WRITE_DETAIL, (number, parts.encode_error(error), _readable_history(transaction, number)))
    transaction.counted(queue, state, JobState.FAILED)
    transaction.tell_changed([texts["id"]])
    if state is JobState.IN_PROGRESS:
        transaction.freed(texts["worker_id"])
        transaction.tell_lost(texts["worker_id"], texts["id"], fence)
    _log.error("job %r of queue %r cannot be read: set aside as FAILED, CORRUPT_JOB", texts["id"], queue)


def _readable_history(transaction: Transaction, number: int) -> str:
    try:
        found: str | None = transaction.execute("SELECT history FROM detail WHERE number = ?", (number,)).get
        return parts.encode_history(codec.decode_history(found))
    except UNREADABLE:
        return parts.encode_history(())


def jobs_of(found: Iterable[Stored]) -> list[Job]:
    return [job for _, job in found]
