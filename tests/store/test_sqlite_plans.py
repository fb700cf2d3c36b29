"""The statements that must stay cheap in a store of millions use the index that was made for them, and sort nothing."""

from __future__ import annotations

import pytest

from jobwire_server.store.base import Store
from jobwire_server.store.sqlite import claim, codec, find, queues, sweep, workers
from jobwire_server.store.sqlite.store import SqliteStore

_TABLES = {"job", "due", "ended", "lease", "request", "submission", "result", "detail", "worker", "queue_count"}

HOT = {
    "head of a queue": (codec.SELECT + claim._HEAD, 2, "job_by_state"),
    "one job": (codec.SELECT + "WHERE job.id = ?", 1, "sqlite_autoindex_job_1"),
    "due jobs": (codec.SELECT + sweep._DUE, 2, "job_by_state"),
    "leases overdue": (codec.SELECT + sweep._LEASES_OVERDUE, 4, "job_by_state"),
    "expired jobs": (codec.SELECT + sweep._EXPIRED, 3, "job_by_expiry"),
    "leases": (codec.SELECT + sweep._LEASED, 3, "job_by_state"),
    "purge": (sweep._PURGE, 2, "job_by_state"),
    "forgotten requests": (sweep._FORGET, 2, "request_by_expiry"),
    "forgotten queues": (sweep._FORGET_QUEUES, 2, "job_by_state"),
    "forgotten workers": (sweep._FORGET_WORKERS, 2, "worker_by_sign"),
    "jobs in a state, behind a place": (find._COLUMNS_IN_STATE + find._IN_STATE, 4, "job_by_state"),
    "jobs of a user, behind a place": (find._COLUMNS_OF_USER + find._OF_USER, 4, "job_by_user"),
    "counts of some queues": (find._COUNTS_OF_QUEUES, 1, "PRIMARY KEY (queue=?)"),
    "counts of a queue": (queues._COUNTS, 1, "PRIMARY KEY (queue=?)"),
    "who is next": (queues._HEAD, 3, "job_by_state"),
    "workers of these ids": (workers._NAMED, 1, "PRIMARY KEY (id=?)"),
    "leases of these workers": (workers._HELD, 2, "job_by_state"),
    "workers seen": (workers._SEEN, 2, "PRIMARY KEY (id=?)"),
    "workers behind a place": (workers._BEHIND, 2, "PRIMARY KEY (id>?)"),
}


@pytest.mark.parametrize("name", HOT)
async def test_the_statement_seeks_in_its_index(store: Store, name: str) -> None:
    assert isinstance(store, SqliteStore)
    sql, parameters, index = HOT[name]
    rows = await store._write(lambda each: each.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * parameters).fetchall())
    plan = [str(row[3]) for row in rows]
    assert any(index in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN") and step.split()[1] in _TABLES and index not in step]
    if name in ("head of a queue", "who is next") or name.endswith("behind a place"):
        assert not [step for step in plan if "TEMP B-TREE" in step], plan
