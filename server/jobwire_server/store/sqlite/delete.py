"""The verb `delete`."""

from __future__ import annotations

from collections.abc import Sequence

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.store.sqlite import rows
from jobwire_server.store.sqlite.transaction import Transaction


def delete(transaction: Transaction, deletions: Sequence[Deletion]) -> list[Outcome]:
    return [_delete(transaction, deletion) for deletion in deletions]


def _delete(transaction: Transaction, deletion: Deletion) -> Outcome:
    stored = rows.read(transaction, [deletion.job_id], whole=False).get(deletion.job_id)
    if stored is None:
        return Outcome.GONE
    _, job = stored
    if job.version != deletion.version or deletion.create_time not in (None, job.create_time):
        return Outcome.STALE
    transaction.counted(job.queue, job.state, None)
    if job.state is JobState.IN_PROGRESS:
        transaction.freed(job.worker_id)
        transaction.tell_lost(job.worker_id, job.id, job.fence)
    rows.remove(transaction, stored)
    return Outcome.OK
