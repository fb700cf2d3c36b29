"""The verb `create`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from jobwire_server.domain.activity import Event
from jobwire_server.domain.job import DAY, JobState, NewJob
from jobwire_server.domain.queue import next_queue_time, rank
from jobwire_server.store.base import Created, CreateOutcome, Standing
from jobwire_server.store.sqlite import bulk, codec, rows
from jobwire_server.store.sqlite.transaction import QueueRow, Transaction

REMEMBERED: Final = DAY
"""How long a request id is remembered, whatever became of its job."""

_REQUESTS: Final = """
WITH given (key) AS ({values}) SELECT key, job_id, digest FROM given JOIN request USING (key) WHERE expire_time > ?1
"""
_DIGESTS: Final = "WITH given (id) AS ({values}) SELECT id, digest FROM given JOIN job USING (id)"
# ?1 is when they are forgotten. What is replaced was to be forgotten already.
_REMEMBER: Final = """
WITH given (key, job_id, digest) AS ({values})
INSERT OR REPLACE INTO request SELECT key, job_id, digest, ?1 FROM given WHERE key IS NOT NULL
"""

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

_WEBHOOK: Final = "UPDATE job SET webhook_events = ? WHERE number = ?"
"""Few jobs have one: a column more in each insert would cost all of them."""

_BORN: Final = itemgetter(*map(_COLUMNS.index, ("id", "queue", "user_id")))


def create(transaction: Transaction, jobs: Sequence[NewJob], *, brief: bool = False) -> list[Created]:
    requests = _requests(transaction, jobs)
    digests = _digests(transaction, jobs)
    news: list[bulk.Row] = []

    def remember(new: NewJob) -> None:
        if new.request_key is not None:
            requests[new.request_key] = (new.id, new.digest)
            news.append((new.request_key, new.id, new.digest))

    entering = _Entering(transaction, brief=brief)
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
            remember(new)
            answers.append(entering.enter(new))
            continue
        if outcome is CreateOutcome.EXISTED:
            entering.write()  # it may be one of them
            if remembered is None:
                remember(new)
            answers.append(_existed(transaction, job_id))
        else:
            answers.append(Created(outcome, job_id))
    entering.write()
    bulk.given(transaction.connection, _REMEMBER, news, transaction.now + REMEMBERED)
    return answers


@dataclass(slots=True)
class _Line:
    """A queue, as new jobs see it."""

    queue: QueueRow
    ageing: int
    waiting: int
    """Jobs QUEUED, the new ones included."""
    queued: int = 0
    scheduled: int = 0
    """Of the new ones."""


class _Entering:
    """New jobs that are not written yet."""

    def __init__(self, transaction: Transaction, *, brief: bool) -> None:
        self._transaction = transaction
        self._brief = brief
        self._now = transaction.now
        self._lines: dict[str, _Line] = {}
        self._rows: list[bulk.Row] = []
        self._submissions: list[bulk.Row] = []
        self._webhooks: list[tuple[int, int]] = []

    def enter(self, new: NewJob) -> Created:
        # Hot: each step in it is taken for every job.
        (id_, queue, type_, user_id, priority, submission, digest, _, _, retry, *times) = new
        execution_timeout, retention, schedule_time, expire_time, webhook_events = times
        now, number = self._now, self._transaction.next_number()
        line = self._lines.get(queue) or self._line(queue)
        queue_time: int | None = None
        position = 0
        if schedule_time is not None and schedule_time > now:
            state, score = JobState.SCHEDULED, schedule_time
            line.scheduled += 1
        else:
            state = JobState.QUEUED
            queue_time = line.queue.last_queue_time = next_queue_time(now, line.queue.last_queue_time)
            score = rank(queue_time, priority, line.ageing)
            line.queued += 1
            line.waiting = position = line.waiting + 1
        self._rows.append(
            (
                number,
                id_,
                digest,
                queue,
                type_,
                user_id,
                priority,
                codec.encode_retry(retry),
                execution_timeout,
                retention,
                schedule_time,
                expire_time,
                state,
                score,
                now,
                now,
                queue_time,
            )
        )
        if submission:
            self._submissions.append((number, submission))
        if webhook_events:
            self._webhooks.append((webhook_events, number))
        if self._brief:
            return Created(CreateOutcome.CREATED, id_)
        standing = Standing(id_, queue, state, score, 1, 1, 0, 0, now, now, queue_time, None)
        return Created(CreateOutcome.CREATED, id_, position, standing)

    def write(self) -> None:
        transaction = self._transaction
        bulk.insert(transaction.connection, "job", _COLUMNS, self._rows)
        bulk.insert(transaction.connection, "submission", ("number", "content"), self._submissions)
        if self._webhooks:
            transaction.executemany(_WEBHOOK, self._webhooks)
        for name, line in self._lines.items():
            line.queue.changed = line.queue.changed or line.queued > 0
            transaction.counted(name, None, JobState.QUEUED, line.queued)
            transaction.counted(name, None, JobState.SCHEDULED, line.scheduled)
            transaction.happened(name, Event.CREATED, line.queued + line.scheduled)
        transaction.tell_born(map(_BORN, self._rows))
        self._rows, self._submissions, self._webhooks, self._lines = [], [], [], {}

    def _line(self, name: str) -> _Line:
        queue = self._transaction.add_queue(name)
        waiting = self._transaction.count(name, JobState.QUEUED)
        line = self._lines[name] = _Line(queue, queue.settings.ageing, waiting)
        return line


def _requests(transaction: Transaction, jobs: Iterable[NewJob]) -> dict[bytes, tuple[str, bytes]]:
    """Request key → job id and digest, of those that are remembered."""
    keys = [(new.request_key,) for new in jobs if new.request_key is not None]
    found = bulk.given(transaction.connection, _REQUESTS, keys, transaction.now)
    return {key: (job_id, digest) for key, job_id, digest in found}


def _digests(transaction: Transaction, jobs: Iterable[NewJob]) -> dict[str, bytes]:
    """Id → digest, of those that are stored."""
    return dict(bulk.given(transaction.connection, _DIGESTS, [(new.id,) for new in jobs]))


def _existed(transaction: Transaction, job_id: str) -> Created:
    stored = rows.read(transaction, [job_id], whole=True).get(job_id)
    if stored is None:
        return Created(CreateOutcome.EXISTED, job_id)
    job = stored[1]
    return Created(CreateOutcome.EXISTED, job_id, _position(transaction, job.queue, job.state), job=job)


def _position(transaction: Transaction, queue: str, state: JobState) -> int:
    return transaction.count(queue, JobState.QUEUED) if state is JobState.QUEUED else 0
