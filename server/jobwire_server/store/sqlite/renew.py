"""The verbs by which workers keep what they hold: `renew` and `beat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState, Progress
from jobwire_server.domain.worker import Directive, WorkerInfo
from jobwire_server.store import parts
from jobwire_server.store.base import Renewal, Renewed, Standing
from jobwire_server.store.sqlite import bulk, rows
from jobwire_server.store.sqlite.transaction import Transaction

# ?1 is now. The first renewal acknowledges; a cancel that came before it may have set a sooner limit. A mere renewal is
# no news to watchers.
_RENEW: Final = """
WITH given (id, token, progress) AS ({values}),
held AS (
    SELECT job.number, given.progress, acknowledged = 0 OR given.progress IS NOT NULL AS is_news,
        iif(acknowledged = 0 AND execution_timeout IS NOT NULL,
            min(?1 + execution_timeout, coalesce(limit_time, ?1 + execution_timeout)), limit_time) AS limit_time
    FROM given JOIN job ON job.id = given.id AND job.state = 'in_progress' AND job.token = given.token
)
UPDATE job SET
    acknowledged = 1, return_count = iif(acknowledged, return_count, 0), start_time = coalesce(start_time, claim_time),
    version = version + is_news, update_time = iif(is_news, ?1, update_time),
    progress = coalesce(held.progress, job.progress), limit_time = held.limit_time,
    lease_expire_time = min(?1 + lease_duration, coalesce(held.limit_time, ?1 + lease_duration)),
    score = min(?1 + lease_duration, coalesce(held.limit_time, ?1 + lease_duration))
FROM held WHERE job.number = held.number
RETURNING job.id, score, CAST(worker_id AS BLOB), iif(cancel_requested, CAST(cancel_reason AS BLOB), NULL)
"""

_RENEW_WATCHED: Final = f"{_RENEW.rstrip()}, update_time"
"""The same, and what tells a mere renewal: it leaves the update time alone."""

_RENEW_AND_TELL: Final = (
    f"{_RENEW_WATCHED}, queue, version, revision, attempt, retry_count, create_time, queue_time, finish_time"
)
"""And where each job stands: what a heartbeat does not ask."""

_ID, _UPDATE_TIME = 0, 4
"""Where they stand in both."""


def renew(transaction: Transaction, renewals: Sequence[Renewal], *, brief: bool = False) -> list[Renewed]:
    answers: list[Renewed] = []
    for round_ in rows.rounds(renewals):
        renewed = _renew(transaction, round_, brief=brief)
        missing = [renewal.job_id for renewal in round_ if renewal.job_id not in renewed]
        there = rows.read(transaction, missing, whole=False) if missing else {}
        for job_id in missing:
            renewed[job_id] = Renewed(Outcome.LOST if job_id in there else Outcome.GONE)
        answers += [renewed[renewal.job_id] for renewal in round_]
    return answers


def _renew(transaction: Transaction, renewals: Sequence[Renewal], *, brief: bool) -> dict[str, Renewed]:
    """Renews what is held, and answers that by id. No job may come twice."""
    now = transaction.now
    given = [(renewal.job_id, renewal.token, _progress(renewal, now)) for renewal in renewals]
    renewed: dict[str, Renewed] = {}
    workers: set[bytes] = set()
    statement = _RENEW_WATCHED if transaction.is_watched else _RENEW
    found = bulk.given(transaction.connection, statement if brief else _RENEW_AND_TELL, given, now)
    if transaction.is_watched:
        transaction.tell_changed(row[_ID] for row in found if row[_UPDATE_TIME] == now)
    for row in found:
        job_id, score, worker_id, cancel_reason, *told = row
        workers.add(worker_id)
        standing = None
        if not brief:
            update_time, queue, version, revision, attempt, retry_count, create_time, queue_time, finish_time = told
            standing = Standing(
                job_id,
                queue,
                JobState.IN_PROGRESS,
                score,
                version,
                revision,
                attempt,
                retry_count,
                create_time,
                update_time,
                queue_time,
                finish_time,
            )
        reason = "" if cancel_reason is None else cancel_reason.decode(errors="replace")
        renewed[job_id] = Renewed(Outcome.OK, max(0, score - now), cancel_reason is not None, reason, standing)
    for worker_id in workers:
        transaction.acknowledged(worker_id.decode(errors="replace"))  # as a damaged record is set aside
    return renewed


def _progress(renewal: Renewal, now: int) -> str | None:
    if not renewal.has_progress:
        return None
    return parts.encode_progress(Progress(renewal.fraction, renewal.message, now))


def beat(transaction: Transaction, worker: WorkerInfo) -> Directive | None:
    row = transaction.worker(worker.id)
    if worker.session and worker.session < row.session:
        return None
    row.info = worker
    row.last_beat = transaction.now
    row.changed = True
    if worker.session:
        row.session = worker.session
    transaction.end_silence(row)
    return row.directive
