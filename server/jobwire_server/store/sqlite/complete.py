"""The common end of a life, in one statement for many jobs: what `move` does with Completions, without a read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DEFAULT_RETENTION, JobState
from jobwire_server.domain.move import Completion
from jobwire_server.store.base import Moved, Standing
from jobwire_server.store.sqlite import bulk, rows
from jobwire_server.store.sqlite.transaction import Transaction

_RETENTION: Final = "coalesce(job.retention, (SELECT retention FROM queue WHERE name = job.queue), ?2)"

# ?1 is now, ?2 how long a completed job is kept where nobody says. Guard and changes are those of Completion.as_move. A
# job that goes at its end (retention 0) is left alone.
_COMPLETE: Final = f"""
WITH given (id, token, result, operation) AS ({{values}})
UPDATE job SET
    state = 'completed', score = ?1 + {_RETENTION}, version = version + 1, revision = revision + 1, update_time = ?1,
    last_operation = given.operation, outcome = 'completed', start_time = coalesce(start_time, claim_time),
    end_time = ?1, finish_time = ?1, release_count = 0, return_count = 0, acknowledged = 0, lease_expire_time = NULL,
    result = given.result
FROM given
WHERE job.id = given.id AND job.state = 'in_progress' AND job.token = given.token AND {_RETENTION} > 0
RETURNING number, job.id, queue, CAST(worker_id AS BLOB), score, version, revision, attempt, retry_count,
    create_time, queue_time
"""


def complete(transaction: Transaction, completions: Sequence[Completion]) -> dict[str, Moved]:
    """Completes what can be completed this way, and answers that by id. No job may come twice."""
    now = transaction.now
    done: dict[str, Moved] = {}
    retried: list[int] = []
    queues: Counter[str] = Counter()
    workers: Counter[bytes] = Counter()
    for row in bulk.given(transaction.connection, _COMPLETE, completions, now, DEFAULT_RETENTION[JobState.COMPLETED]):
        number, job_id, queue, worker_id, score, version, revision, attempt, retry_count, create_time, queue_time = row
        if attempt != 1:
            retried.append(number)
        queues[queue] += 1
        workers[worker_id] += 1
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
        done[job_id] = Moved(Outcome.OK, standing)
    rows.clear_errors(transaction, retried)
    for queue, jobs in queues.items():
        transaction.counted(queue, JobState.IN_PROGRESS, JobState.COMPLETED, jobs)
    for raw, leases in workers.items():
        worker_id = raw.decode(errors="replace")  # as a damaged record is set aside
        transaction.freed(worker_id, leases)
        transaction.acknowledged(worker_id)
    return done
