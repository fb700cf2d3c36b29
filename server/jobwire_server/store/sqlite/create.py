"""The verb `create`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from jobwire_server.domain.job import DAY, JobState, NewJob
from jobwire_server.store.base import Created, CreateOutcome, Standing
from jobwire_server.store.sqlite import bulk, codec, rows
from jobwire_server.store.sqlite.transaction import Transaction

REMEMBERED: Final = DAY
"""How long a request id is remembered, whatever became of its job."""

_REQUESTS: Final = """
WITH given (key) AS ({values}) SELECT key, job_id, digest FROM given JOIN request USING (key) WHERE expire_time > ?
"""
_DIGESTS: Final = "WITH given (id) AS ({values}) SELECT id, digest FROM given JOIN job USING (id)"
_REMEMBER: Final = "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?)"

_COLUMNS: Final = (
    "number",
    "id",
    "digest",
    "queue",
    "type",
    "user_id",
    "priority",
    "retry",
    "execution_timeout",
    "retention",
    "schedule_time",
    "expire_time",
    "state",
    "score",
    "create_time",
    "update_time",
    "queue_time",
)
"""What a create says; all other columns begin with their defaults."""


def create(transaction: Transaction, jobs: Sequence[NewJob]) -> list[Created]:
    requests = _requests(transaction, jobs)
    digests = _digests(transaction, jobs)
    entering = _Entering()
    answers: list[Created] = []
    for new in jobs:
        remembered = None if new.request_key is None else requests.get(new.request_key)
        digest = digests.get(new.id)
        if remembered is not None:
            job_id, digest = remembered
            outcome = CreateOutcome.EXISTED if digest == new.digest else CreateOutcome.REQUEST_REUSED
        elif digest is not None:
            job_id = new.id
            is_same = new.id_given and digest == new.digest
            outcome = CreateOutcome.EXISTED if is_same else CreateOutcome.ID_TAKEN
        else:
            digests[new.id] = new.digest
            _remember(transaction, new, requests)
            answers.append(_enter(transaction, new, entering))
            continue
        if outcome is CreateOutcome.EXISTED:
            entering.write(transaction)  # it may be one of them
            if remembered is None:
                _remember(transaction, new, requests)
            answers.append(_existed(transaction, job_id))
        else:
            answers.append(Created(outcome, job_id))
    entering.write(transaction)
    return answers


@dataclass(slots=True)
class _Entering:
    """New jobs that are not written yet."""

    rows: list[bulk.Row] = field(default_factory=list)
    submissions: list[bulk.Row] = field(default_factory=list)

    def write(self, transaction: Transaction) -> None:
        bulk.insert(transaction.connection, "job", _COLUMNS, self.rows)
        bulk.insert(transaction.connection, "submission", ("number", "content"), self.submissions)
        self.rows, self.submissions = [], []


def _requests(transaction: Transaction, jobs: Iterable[NewJob]) -> dict[bytes, tuple[str, bytes]]:
    """Request key → job id and digest, of those that are remembered."""
    keys = [(new.request_key,) for new in jobs if new.request_key is not None]
    found = bulk.given(transaction.connection, _REQUESTS, keys, transaction.now)
    return {key: (job_id, digest) for key, job_id, digest in found}


def _digests(transaction: Transaction, jobs: Iterable[NewJob]) -> dict[str, bytes]:
    """Id → digest, of those that are stored."""
    return dict(bulk.given(transaction.connection, _DIGESTS, [(new.id,) for new in jobs]))


def _remember(transaction: Transaction, new: NewJob, requests: dict[bytes, tuple[str, bytes]]) -> None:
    if new.request_key is not None:
        requests[new.request_key] = (new.id, new.digest)
        transaction.execute(_REMEMBER, (new.request_key, new.id, new.digest, transaction.now + REMEMBERED))


def _existed(transaction: Transaction, job_id: str) -> Created:
    stored = rows.read(transaction, [job_id], whole=True).get(job_id)
    if stored is None:
        return Created(CreateOutcome.EXISTED, job_id)
    job = stored[1]
    return Created(CreateOutcome.EXISTED, job_id, _position(transaction, job.queue, job.state), job=job)


def _position(transaction: Transaction, queue: str, state: JobState) -> int:
    return transaction.count(queue, JobState.QUEUED) if state is JobState.QUEUED else 0


def _enter(transaction: Transaction, new: NewJob, entering: _Entering) -> Created:
    now, number = transaction.now, transaction.next_number()
    queue_time: int | None = None
    if new.schedule_time is not None and new.schedule_time > now:
        state, score = JobState.SCHEDULED, new.schedule_time
    else:
        state = JobState.QUEUED
        queue_time, score = transaction.enter(new.queue, queue_time=None, priority=new.priority)
    transaction.add_queue(new.queue)
    transaction.counted(new.queue, None, state)
    entering.rows.append(
        (
            number,
            new.id,
            new.digest,
            new.queue,
            new.type,
            new.user_id,
            new.priority,
            codec.encode_retry(new.retry),
            new.execution_timeout,
            new.retention,
            new.schedule_time,
            new.expire_time,
            state,
            score,
            now,
            now,
            queue_time,
        )
    )
    if new.submission:
        entering.submissions.append((number, new.submission))
    standing = Standing(new.id, new.queue, state, score, 1, 1, 0, 0, now, queue_time, None)
    return Created(CreateOutcome.CREATED, new.id, _position(transaction, new.queue, state), standing)
