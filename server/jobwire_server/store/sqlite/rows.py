"""Reading and writing single jobs: their row, what stands beside it, and the rows that have become unreadable."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from jobwire_server.domain.job import DEFAULT_RETENTION, Job, JobError, JobState, RetryPolicy
from jobwire_server.store import parts
from jobwire_server.store.sqlite import codec
from jobwire_server.store.sqlite.codec import SELECT, UNREADABLE, Fields
from jobwire_server.store.sqlite.transaction import Transaction

Stored = tuple[int, Fields]
"""A job as it was read: its number and its fields."""

CORRUPT_JOB: Final = "CORRUPT_JOB"

_log = logging.getLogger(__name__)

_REMOVE: Final = "DELETE FROM job WHERE number = ?"
_WRITE_SUBMISSION: Final = "INSERT OR REPLACE INTO submission VALUES (?, ?)"
_WRITE_RESULT: Final = "INSERT OR REPLACE INTO result VALUES (?, ?)"
_REMOVE_RESULT: Final = "DELETE FROM result WHERE number = ?"
_WRITE_DETAIL: Final = "INSERT OR REPLACE INTO detail VALUES (?, ?, ?)"
_REMOVE_DETAIL: Final = "DELETE FROM detail WHERE number = ?"


def read(transaction: Transaction, job_id: str) -> Stored | None:
    """One job by its id. A row that cannot be read is set aside first, and answered as it then is."""
    rows = select(transaction, "WHERE job.id = ?", (job_id,))
    return rows[0] if rows else None


def select(transaction: Transaction, where: str, bindings: Sequence[Any]) -> list[Stored]:
    """The jobs that `where` (down to the LIMIT) names. Those that cannot be read are set aside on the way.

    Where the connection cannot write, an unreadable row raises one of UNREADABLE.
    """
    try:
        return [codec.decode(row) for row in transaction.execute(SELECT + where, bindings)]
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
    return [codec.decode(row) for row in transaction.execute(SELECT + where, bindings)]


def write(transaction: Transaction, stored: Stored, changes: Fields) -> Job:
    """Writes these fields, and only where they stand; answers the job after it."""
    number, before = stored
    after = {**before, **changes}
    columns = codec.encode(changes)
    transaction.execute(update(tuple(columns)), (*columns.values(), number))
    if after["submission"] != before["submission"]:
        transaction.execute(_WRITE_SUBMISSION, (number, after["submission"]))
    if after["result"] != before["result"]:
        if after["result"] is None:
            transaction.execute(_REMOVE_RESULT, (number,))
        else:
            transaction.execute(_WRITE_RESULT, (number, after["result"]))
    if after["error"] != before["error"] or after["history"] != before["history"]:
        _write_detail(transaction, number, after)
    return codec.job_of(after)


def remove(transaction: Transaction, number: int) -> None:
    transaction.execute(_REMOVE, (number,))


@lru_cache(maxsize=256)  # one text for each set of columns, so that SQLite prepares each once
def update(columns: tuple[str, ...]) -> str:
    """Takes the values of these columns, then the number of the job."""
    return f"UPDATE job SET {', '.join(f'{column} = ?' for column in columns)} WHERE number = ?"


def _write_detail(transaction: Transaction, number: int, after: Fields) -> None:
    error, history = after["error"], after["history"]
    if error is None and not history:
        transaction.execute(_REMOVE_DETAIL, (number,))
    else:
        detail = (number, None if error is None else parts.encode_error(error), parts.encode_history(history))
        transaction.execute(_WRITE_DETAIL, detail)


_TEXTS: Final = ("id", "type", "user_id", "worker_id", "cancel_reason")

_SET_ASIDE: Final = """
UPDATE job SET state = 'failed', score = ?, update_time = ?, finish_time = ?, version = version + 1,
    revision = revision + 1, retry = ?, type = ?, user_id = ?, worker_id = ?, cancel_reason = ?, token = NULL,
    acknowledged = 0, lease_expire_time = NULL, limit_time = NULL, outcome = NULL, end_time = NULL, progress = NULL
WHERE number = ?
"""


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
    retry = parts.encode_retry(RetryPolicy())
    changed = (texts[name] for name in _TEXTS if name != "id")
    transaction.execute(_SET_ASIDE, (purge_time, now, now, retry, *changed, number))
    error = JobError(CORRUPT_JOB, "the stored record of this job could not be read; its payload may be intact")
    transaction.execute(_WRITE_DETAIL, (number, parts.encode_error(error), _readable_history(transaction, number)))
    transaction.counted(queue, state, JobState.FAILED)
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
    return [codec.job_of(fields) for _, fields in found]
