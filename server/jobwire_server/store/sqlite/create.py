"""The verb `create`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from jobwire_server.domain.job import DAY, Job, JobState, NewJob
from jobwire_server.store.base import Created, CreateOutcome
from jobwire_server.store.sqlite import codec, rows
from jobwire_server.store.sqlite.codec import Fields
from jobwire_server.store.sqlite.transaction import Transaction

REMEMBERED: Final = DAY
"""How long a request id is remembered, whatever became of its job."""

_REQUEST: Final = "SELECT job_id, digest FROM request WHERE key = ? AND expire_time > ?"
_DIGEST: Final = "SELECT digest FROM job WHERE id = ?"
_INSERT_SUBMISSION: Final = "INSERT INTO submission VALUES (?, ?)"
_REMEMBER: Final = "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?)"


def create(transaction: Transaction, jobs: Sequence[NewJob]) -> list[Created]:
    return [_create(transaction, new) for new in jobs]


def _create(transaction: Transaction, new: NewJob) -> Created:
    if new.request_key is not None:
        remembered = transaction.execute(_REQUEST, (new.request_key, transaction.now)).fetchone()
        if remembered is not None:
            job_id, digest = remembered
            if digest != new.digest:
                return Created(CreateOutcome.REQUEST_REUSED, job_id, None, 0)
            return _existed(transaction, job_id)
    stored = transaction.execute(_DIGEST, (new.id,)).fetchone()
    if stored is not None:
        if not new.id_given or stored[0] != new.digest:
            return Created(CreateOutcome.ID_TAKEN, new.id, None, 0)
        _remember(transaction, new)
        return _existed(transaction, new.id)
    job = _insert(transaction, new)
    _remember(transaction, new)
    return Created(CreateOutcome.CREATED, job.id, job, _position(transaction, job))


def _existed(transaction: Transaction, job_id: str) -> Created:
    found = rows.read(transaction, job_id)
    if found is None:
        return Created(CreateOutcome.EXISTED, job_id, None, 0)
    job = codec.job_of(found[1])
    return Created(CreateOutcome.EXISTED, job_id, job, _position(transaction, job))


def _position(transaction: Transaction, job: Job) -> int:
    return transaction.count(job.queue, JobState.QUEUED) if job.state is JobState.QUEUED else 0


def _remember(transaction: Transaction, new: NewJob) -> None:
    if new.request_key is not None:
        request = (new.request_key, new.id, new.digest, transaction.now + REMEMBERED)
        transaction.execute(_REMEMBER, request)


@cache
def _insert_into(columns: tuple[str, ...]) -> str:
    return f"INSERT INTO job ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _insert(transaction: Transaction, new: NewJob) -> Job:
    now = transaction.now
    queue_time: int | None = None
    if new.schedule_time is not None and new.schedule_time > now:
        state, score = JobState.SCHEDULED, new.schedule_time
    else:
        state = JobState.QUEUED
        queue_time, score = transaction.enter(new.queue, queue_time=None, priority=new.priority)
    fields: Fields = {
        "id": new.id,
        "queue": new.queue,
        "type": new.type,
        "user_id": new.user_id,
        "priority": new.priority,
        "submission": new.submission,
        "retry": new.retry,
        "execution_timeout": new.execution_timeout,
        "retention": new.retention,
        "schedule_time": new.schedule_time,
        "expire_time": new.expire_time,
        "state": state,
        "score": score,
        "version": 1,
        "revision": 1,
        "last_operation": b"",
        "create_time": now,
        "update_time": now,
        "queue_time": queue_time,
        "start_time": None,
        "finish_time": None,
        "attempt": 0,
        "retry_count": 0,
        "interruption_count": 0,
        "release_count": 0,
        "return_count": 0,
        "token": None,
        "fence": 0,
        "worker_id": "",
        "claim_time": None,
        "acknowledged": False,
        "lease_duration": 0,
        "lease_expire_time": None,
        "limit_time": None,
        "outcome": None,
        "end_time": None,
        "progress": None,
        "result": None,
        "error": None,
        "history": (),
        "cancel_requested": False,
        "cancel_reason": "",
    }
    columns = codec.encode(fields)
    columns["digest"] = new.digest
    transaction.execute(_insert_into(tuple(columns)), tuple(columns.values()))
    if new.submission:
        transaction.execute(_INSERT_SUBMISSION, (transaction.connection.last_insert_rowid(), new.submission))
    transaction.add_queue(new.queue)
    transaction.counted(new.queue, None, state)
    return codec.job_of(fields)
