"""What must hold of a SQLite store whatever has been done to it."""

from __future__ import annotations

from jobwire_server.store.sqlite.store import SqliteStore
from jobwire_server.store.sqlite.transaction import Transaction

_BROKEN_WHEN_FOUND = {
    "a count is not the count": """
        SELECT coalesce(c.queue, r.queue), coalesce(c.state, r.state), c.n, r.n
        FROM (SELECT * FROM queue_count WHERE n <> 0) c
        FULL JOIN (SELECT queue, state, count(*) AS n FROM job GROUP BY queue, state) r
            ON r.queue = c.queue AND r.state = c.state
        WHERE c.n IS NOT r.n
    """,
    "a submission without a job": "SELECT number FROM submission WHERE number NOT IN (SELECT number FROM job)",
    "a result without a job": "SELECT number FROM result WHERE number NOT IN (SELECT number FROM job)",
    "details without a job": "SELECT number FROM detail WHERE number NOT IN (SELECT number FROM job)",
    "a queue that is not listed": "SELECT id FROM job WHERE queue NOT IN (SELECT name FROM queue)",
    "a lease without its parts": """
        SELECT id FROM job WHERE state = 'in_progress'
            AND (token IS NULL OR worker_id = '' OR claim_time IS NULL OR lease_expire_time IS NULL
                 OR score > lease_expire_time)
    """,
    "a lease of nobody": """
        SELECT id FROM job WHERE state <> 'in_progress' AND (lease_expire_time IS NOT NULL OR acknowledged)
    """,
    "a worker that holds leases is unknown": """
        SELECT id FROM job WHERE state = 'in_progress' AND worker_id NOT IN (SELECT id FROM worker)
    """,
    "a queued job without a queue_time": "SELECT id FROM job WHERE state = 'queued' AND queue_time IS NULL",
    "a queue_time twice": "SELECT queue_time FROM job GROUP BY queue, queue_time HAVING count(queue_time) > 1",
    "a queue's last time is not the last": """
        SELECT id FROM job JOIN queue ON queue.name = job.queue WHERE queue_time > last_queue_time
    """,
    "an ended job without a finish_time": """
        SELECT id FROM job WHERE state IN ('completed', 'failed', 'canceled', 'expired') AND finish_time IS NULL
    """,
    "SQLite's own check": "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
}


async def broken(store: SqliteStore) -> list[str]:
    """Every broken invariant with what breaks it; empty = all is well."""

    def look(transaction: Transaction) -> list[str]:
        return [
            f"{name}: {row}" for name, sql in _BROKEN_WHEN_FOUND.items() for row in transaction.execute(sql).fetchall()
        ]

    return await store._write(look)
