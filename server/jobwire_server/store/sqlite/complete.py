"""The common end of a life, in one statement for many jobs: what `move` does with Completions, without a read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DEFAULT_RETENTION, JobState
from jobwire_server.domain.move import Completion
from jobwire_server.domain.webhook import EVENTS
from jobwire_server.store.base import Moved, Standing
from jobwire_server.store.sqlite import bulk, rows
from jobwire_server.store.sqlite.transaction import Transaction

_RETENTION: Final = "coalesce(job.retention, (SELECT retention FROM queue WHERE name = job.queue), ?2)"

# ?1 is now, ?2 how long a completed job is kept where nobody says. Guard and changes are those of Completion.as_move. A
# job that goes at its end (retention 0), or of whose end somebody is to be told, is left alone.
_COMPLETE: Final = f"""
WITH given (id, token, result, operation) AS ({{values}})
UPDATE job SET
    state = 'completed', score = ?1 + {_RETENTION}, version = version + 1, revision = revision + 1, update_time = ?1,
    last_operation = given.operation, outcome = 'completed', start_time = coalesce(start_time, claim_time),
    end_time = ?1, finish_time = ?1, release_count = 0, return_count = 0, acknowledged = 0, lease_expire_time = NULL,
    result = given.result
FROM given
WHERE job.id = given.id AND job.state = 'in_progress' AND job.token = given.token AND {_RETENTION} > 0
    AND job.webhook_events & {EVENTS[JobState.COMPLETED]} = 0
RETURNING job.id, queue, CAST(worker_id AS BLOB), iif(attempt = 1, NULL, number), max(0, coalesce(?1 - claim_time, 0))
"""

_COMPLETE_AND_TELL: Final = (
    _COMPLETE.rstrip() + ", score, version, revision, attempt, retry_count, create_time, queue_time"
)
"""The same, and where each job stands: what nobody asks for is not worth reading, seven columns of a row."""

_ID, _QUEUE, _WORKER, _RETRIED = map(itemgetter, range(4))
_RUN: Final = itemgetter(1, 4)
"""Queue, and how long the attempt ran."""

_DONE: Final = Moved(Outcome.OK)


def complete(transaction: Transaction, completions: Sequence[Completion], *, brief: bool) -> dict[str, Moved]:
    """Completes what can be completed this way, and answers that by id. No job may come twice."""
    now = transaction.now
    statement = _COMPLETE if brief else _COMPLETE_AND_TELL
    done = bulk.given(transaction.connection, statement, completions, now, DEFAULT_RETENTION[JobState.COMPLETED])
    transaction.tell_changed(map(_ID, done))
    rows.clear_errors(transaction, [number for number in map(_RETRIED, done) if number is not None])
    run_times: Counter[str] = Counter()
    for queue, run_time in map(_RUN, done):
        run_times[queue] += run_time
    for queue, jobs in Counter(map(_QUEUE, done)).items():
        transaction.counted(queue, JobState.IN_PROGRESS, JobState.COMPLETED, jobs)
        transaction.ran(queue, run_times[queue])
    for raw, leases in Counter(map(_WORKER, done)).items():
        worker_id = raw.decode(errors="replace")  # as a damaged record is set aside
        transaction.freed(worker_id, leases)
        transaction.acknowledged(worker_id)
    return dict.fromkeys(map(_ID, done), _DONE) if brief else dict(_told(done, now))


def _told(done: Sequence[Sequence[Any]], now: int) -> Iterator[tuple[str, Moved]]:
    for job_id, queue, _, _, _, score, version, revision, attempt, retry_count, create_time, queue_time in done:
        standing = Standing(
            job_id,
            queue,
            JobState.COMPLETED,
            score,
            version,
            revision,
            attempt,
            retry_count,
            create_time,
            now,
            queue_time,
            now,
        )
        yield job_id, Moved(Outcome.OK, standing)
