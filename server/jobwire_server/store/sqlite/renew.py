"""The verbs by which workers keep what they hold: `renew` and `beat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import Job, JobState, Progress
from jobwire_server.store.base import Renewal, Renewed, Standing, WorkerInfo
from jobwire_server.store.sqlite import rows
from jobwire_server.store.sqlite.move import deadline
from jobwire_server.store.sqlite.rows import Stored
from jobwire_server.store.sqlite.transaction import Transaction


def renew(transaction: Transaction, renewals: Sequence[Renewal]) -> list[Renewed]:
    jobs = rows.read(transaction, [renewal.job_id for renewal in renewals], whole=False)
    changed: dict[str, tuple[Stored, dict[str, Any]]] = {}
    answers = [_renew(transaction, renewal, jobs, changed) for renewal in renewals]
    rows.write(transaction, changed.values())
    return answers


def _renew(
    transaction: Transaction,
    renewal: Renewal,
    jobs: dict[str, Stored],
    changed: dict[str, tuple[Stored, dict[str, Any]]],
) -> Renewed:
    stored = jobs.get(renewal.job_id)
    if stored is None:
        return Renewed(Outcome.GONE)
    job = stored[1]
    if job.state is not JobState.IN_PROGRESS or job.token != renewal.token:
        return Renewed(Outcome.LOST)
    changes = _changes(job, renewal, transaction.now)
    job = job._replace(**changes)
    before = changed.get(job.id, (stored, {}))[1]
    changed[job.id] = (stored, {**before, **changes})
    jobs[job.id] = (stored[0], job)  # a later renewal of it in this call goes on from there
    transaction.acknowledged(job.worker_id)
    return Renewed(
        Outcome.OK,
        max(0, job.score - transaction.now),
        job.cancel_requested,
        job.cancel_reason,
        Standing.of(job),
    )


def _changes(job: Job, renewal: Renewal, now: int) -> Mapping[str, Any]:
    changes: dict[str, Any] = {}
    limit_time = job.limit_time
    if not job.acknowledged:
        changes |= {"acknowledged": True, "return_count": 0}
        if job.start_time is None:
            changes["start_time"] = job.claim_time
        if job.execution_timeout is not None:
            # A cancel that came before the acknowledgment may have set a sooner limit.
            limit_time = deadline(now + job.execution_timeout, limit_time)
            changes["limit_time"] = limit_time
    if renewal.has_progress:
        changes["progress"] = Progress(renewal.fraction, renewal.message, now)
    if changes:  # a mere renewal tells watchers nothing new
        changes |= {"version": job.version + 1, "update_time": now}
    end = deadline(now + job.lease_duration, limit_time)
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
