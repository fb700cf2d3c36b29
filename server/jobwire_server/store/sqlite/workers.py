"""The verbs of the registry: `workers`, `seen` and `direct`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from jobwire_server.domain.webhook import RESERVED
from jobwire_server.domain.worker import Directive, WorkerInfo, WorkerRecord
from jobwire_server.store.base import Workers
from jobwire_server.store.sqlite import codec
from jobwire_server.store.sqlite.transaction import Transaction

_SELECT: Final = """
SELECT id, session, host, pid, runtime, version, labels, queues, max_in_flight, register_time, last_beat, held,
    directive, last_seen
FROM worker
"""
_NAMED: Final = _SELECT + "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
_BEHIND: Final = _SELECT + f"WHERE id > ? AND id NOT GLOB '{RESERVED}*' ORDER BY id LIMIT ?"

# No index knows the leases of a worker: this looks at every running job.
_HELD: Final = """
SELECT worker_id, id FROM (
    SELECT lease.worker_id, lease.id,
        row_number() OVER (PARTITION BY lease.worker_id ORDER BY lease.claim_time, lease.id) AS place
    FROM queue CROSS JOIN job AS lease INDEXED BY job_by_state
        ON lease.queue = queue.name AND lease.state = 'in_progress'
    WHERE lease.worker_id IN (SELECT value FROM json_each(?))
) WHERE place <= ? ORDER BY worker_id, place
"""

_KNOWN: Final = "SELECT 1 FROM worker WHERE id = ?"
_SEEN: Final = "UPDATE worker SET last_seen = ? WHERE id IN (SELECT value FROM json_each(?))"


def workers(transaction: Transaction, ids: Sequence[str], after: str, limit: int, jobs: int) -> Workers:
    transaction.flush()
    if ids:
        found = transaction.execute(_NAMED, (json.dumps(list(ids)),))
    else:
        found = transaction.execute(_BEHIND, (after, limit))
    records = [_record(row) for row in found]
    if jobs:
        held = _held(transaction, [record.info.id for record in records if record.held], jobs)
        records = [replace(record, held_job_ids=tuple(held.get(record.info.id, ()))) for record in records]
    return Workers(transaction.now, records)


def seen(transaction: Transaction, worker_ids: Sequence[str]) -> None:
    transaction.flush()  # what another call of this transaction has registered is known
    transaction.execute(_SEEN, (transaction.now, json.dumps(list(worker_ids))))


def direct(transaction: Transaction, worker_id: str, directive: Directive) -> bool:
    transaction.flush()
    if transaction.execute(_KNOWN, (worker_id,)).fetchone() is None:
        return False
    row = transaction.worker(worker_id)
    if row.directive is not directive:
        row.directive = directive
        row.changed = True
        transaction.tell_directive(worker_id, directive)
    return True


def _held(transaction: Transaction, ids: Sequence[str], jobs: int) -> dict[str, list[str]]:
    held: dict[str, list[str]] = {}
    if ids:
        for worker_id, job_id in transaction.execute(_HELD, (json.dumps(list(ids)), jobs)):
            held.setdefault(worker_id, []).append(job_id)
    return held


def _record(row: Any) -> WorkerRecord:
    id, session, host, pid, runtime, version, labels, queues, max_in_flight, register_time, last_beat, held, *told = row
    directive, last_seen = told
    info = WorkerInfo(
        id=id,
        session=session,
        host=host,
        pid=pid,
        runtime=runtime,
        version=version,
        labels=codec.decode_labels(labels),
        queues=codec.decode_queues(queues),
        max_in_flight=max_in_flight,
    )
    return WorkerRecord(info, register_time, last_beat, held, Directive(directive), last_seen)
