"""The verbs by which workers keep what they hold: `renew` and `beat`."""

from __future__ import annotations

from collections.abc import Sequence

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState, Progress
from jobwire_server.store.base import Renewal, Renewed, WorkerInfo
from jobwire_server.store.sqlite import codec, rows
from jobwire_server.store.sqlite.codec import Fields
from jobwire_server.store.sqlite.move import deadline
from jobwire_server.store.sqlite.transaction import Transaction


def renew(transaction: Transaction, renewals: Sequence[Renewal]) -> list[Renewed]:
    return [_renew(transaction, renewal) for renewal in renewals]


def _renew(transaction: Transaction, renewal: Renewal) -> Renewed:
    stored = rows.read(transaction, renewal.job_id)
    if stored is None:
        return Renewed(Outcome.GONE)
    fields = stored[1]
    if fields["state"] is not JobState.IN_PROGRESS or fields["token"] != renewal.token:
        return Renewed(Outcome.LOST, job=codec.job_of(fields))
    job = rows.write(transaction, stored, _renewed(fields, renewal, transaction.now))
    transaction.acknowledged(job.worker_id)
    return Renewed(
        Outcome.OK,
        remaining=max(0, job.score - transaction.now),
        cancel_requested=job.cancel_requested,
        cancel_reason=job.cancel_reason,
        job=job,
    )


def _renewed(fields: Fields, renewal: Renewal, now: int) -> Fields:
    changes: Fields = {}
    limit_time = fields["limit_time"]
    if not fields["acknowledged"]:
        changes |= {"acknowledged": True, "return_count": 0}
        if fields["start_time"] is None:
            changes["start_time"] = fields["claim_time"]
        if fields["execution_timeout"] is not None:
            # A cancel that came before the acknowledgment may have set a sooner limit.
            limit_time = deadline(now + fields["execution_timeout"], limit_time)
            changes["limit_time"] = limit_time
    if renewal.has_progress:
        changes["progress"] = Progress(renewal.fraction, renewal.message, now)
    if changes:  # a mere renewal tells watchers nothing new
        changes |= {"version": fields["version"] + 1, "update_time": now}
    end = deadline(now + fields["lease_duration"], limit_time)
    changes |= {"lease_expire_time": end, "score": end}
    return changes


def beat(transaction: Transaction, worker: WorkerInfo) -> bool:
    row = transaction.worker(worker.id)
    if worker.session and worker.session < row.session:
        return False
    row.info = worker
    row.last_beat = transaction.now
    row.changed = True
    if worker.session:
        row.session = worker.session
    transaction.end_silence(row)
    return True
