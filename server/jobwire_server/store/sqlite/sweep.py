"""The verbs of maintenance: `promote`, `overdue`, `leased`, `purge`. They take heads of indexes and scan no jobs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from jobwire_server.domain.job import MINUTE, JobState
from jobwire_server.domain.queue import FORGOTTEN_AFTER
from jobwire_server.store.base import WORKER_FORGOTTEN_AFTER, Snapshot
from jobwire_server.store.changes import Gone
from jobwire_server.store.sqlite import rows
from jobwire_server.store.sqlite.transaction import Transaction

_DUE: Final = """
WHERE job.number IN (
    SELECT due.number FROM queue CROSS JOIN job AS due INDEXED BY job_by_state
        ON due.queue = queue.name AND due.state = 'scheduled' AND due.score <= ?
    LIMIT ?
) ORDER BY job.score, job.id
"""

# NULL = all queues.
_OF_QUEUES: Final = "(?1 IS NULL OR {column} IN (SELECT value FROM json_each(?1)))"

# domain.guard.is_overdue, as SQL.
_LEASES_OVERDUE: Final = f"""
WHERE job.number IN (
    SELECT due.number FROM queue CROSS JOIN job AS due INDEXED BY job_by_state
        ON due.queue = queue.name AND due.state = 'in_progress' AND due.score <= ?2
        AND ?3 + iif(due.acknowledged, due.lease_duration, due.lease_expire_time - due.claim_time) <= ?2
    WHERE {_OF_QUEUES.format(column="queue.name")}
    LIMIT ?4
) ORDER BY job.score, job.id
"""

# Job.is_expired, as SQL, in the words of the index.
_EXPIRED: Final = f"""
WHERE job.number IN (
    SELECT due.number FROM job AS due INDEXED BY job_by_expiry
    WHERE due.expire_time IS NOT NULL AND due.start_time IS NULL AND due.state IN ('scheduled', 'queued')
        AND due.expire_time <= ?2 AND {_OF_QUEUES.format(column="due.queue")}
    ORDER BY due.expire_time LIMIT ?3
) ORDER BY job.expire_time, job.id
"""

_LEASED: Final = f"""
WHERE job.number IN (
    SELECT lease.number FROM queue CROSS JOIN job AS lease INDEXED BY job_by_state
        ON lease.queue = queue.name AND lease.state = 'in_progress' AND lease.claim_time < ?2
    WHERE {_OF_QUEUES.format(column="queue.name")}
    ORDER BY lease.claim_time, lease.id LIMIT ?3
) ORDER BY job.claim_time, job.id
"""

_PURGE: Final = """
DELETE FROM job WHERE number IN (
    SELECT ended.number FROM queue CROSS JOIN job AS ended INDEXED BY job_by_state
        ON ended.queue = queue.name AND ended.state IN ('completed', 'failed', 'canceled', 'expired')
        AND ended.score <= ?
    LIMIT ?
) RETURNING queue, state
"""
# As bytes: what is damaged must not keep them from being purged.
_PURGE_WATCHED: Final = f"{_PURGE.rstrip()}, id, CAST(type AS BLOB), CAST(user_id AS BLOB), create_time"

_FORGET: Final = """
DELETE FROM request WHERE key IN (
    SELECT key FROM request INDEXED BY request_by_expiry WHERE expire_time <= ? LIMIT ?
)
"""

_FORGOTTEN: Final = 100
"""Queues, and workers, that one purge forgets at most."""

_FORGET_QUEUES: Final = """
DELETE FROM queue WHERE name IN (
    SELECT name FROM queue WHERE revision = 0 AND max(last_queue_time, create_time) <= ?
        AND NOT EXISTS (SELECT 1 FROM job INDEXED BY job_by_state WHERE job.queue = queue.name)
    LIMIT ?
) RETURNING name
"""
_FORGET_COUNTS: Final = "DELETE FROM queue_count WHERE queue = ?"
_FORGET_MARKS: Final = "DELETE FROM mark WHERE queue = ?"

_FORGET_WORKERS: Final = """
DELETE FROM worker WHERE id IN (
    SELECT id FROM worker INDEXED BY worker_by_sign WHERE max(last_beat, last_seen) <= ? AND held = 0 LIMIT ?
)
"""


def promote(transaction: Transaction, limit: int) -> int:
    now = transaction.now
    due = rows.select(transaction, _DUE, (now, limit), whole=False)
    changed = []
    for stored in due:
        job = stored[1]
        queue_time, score = transaction.enter(job.queue, queue_time=job.queue_time, priority=job.priority)
        changes = {
            "state": JobState.QUEUED,
            "score": score,
            "queue_time": queue_time,
            "version": job.version + 1,
            "revision": job.revision + 1,
            "update_time": now,
        }
        changed.append((stored, changes))
        transaction.counted(job.queue, JobState.SCHEDULED, JobState.QUEUED)
    rows.write(transaction, changed)
    return len(due)


def overdue(transaction: Transaction, queues: Sequence[str], limit: int) -> Snapshot:
    now, named = transaction.now, _named(queues)
    leases = rows.select(transaction, _LEASES_OVERDUE, (named, now, transaction.recovered_at, limit))
    expired = rows.select(transaction, _EXPIRED, (named, now, limit - len(leases)))
    return Snapshot(now, [*rows.jobs_of(leases), *rows.jobs_of(expired)])


def leased(transaction: Transaction, queues: Sequence[str], longer_than: int, limit: int) -> Snapshot:
    found = rows.select(transaction, _LEASED, (_named(queues), transaction.now - longer_than, limit))
    return Snapshot(transaction.now, [*rows.jobs_of(found)])


def _named(queues: Sequence[str]) -> str | None:
    return json.dumps(list(queues)) if queues else None


def purge(transaction: Transaction, limit: int) -> int:
    now = transaction.now
    if transaction.recovered_at and now < transaction.recovered_at + MINUTE:
        return 0
    removed: Counter[Any]
    if transaction.is_watched:
        ended: list[Any] = transaction.execute(_PURGE_WATCHED, (now, limit)).fetchall()
        transaction.tell_gone(
            Gone(id, queue, kind.decode(errors="replace"), user_id.decode(errors="replace"), create_time)
            for queue, _, id, kind, user_id, create_time in ended
        )
        removed = Counter((queue, state) for queue, state, *_ in ended)
    else:
        removed = Counter(transaction.execute(_PURGE, (now, limit)))
    for (queue, state), number in removed.items():
        transaction.counted(queue, JobState(state), None, number)
    purged = removed.total()
    transaction.execute(_FORGET, (now, limit - purged))
    purged += transaction.connection.changes()
    _forget(transaction)
    return purged


def _forget(transaction: Transaction) -> None:
    """Queues and workers that nobody has used for long."""
    transaction.flush()  # what other calls of this transaction have just used is no older than it
    forgotten = transaction.execute(_FORGET_QUEUES, (transaction.now - FORGOTTEN_AFTER, _FORGOTTEN)).fetchall()
    if forgotten:
        transaction.executemany(_FORGET_COUNTS, forgotten)
        transaction.executemany(_FORGET_MARKS, forgotten)
    transaction.execute(_FORGET_WORKERS, (transaction.now - WORKER_FORGOTTEN_AFTER, _FORGOTTEN))
