"""The statements that must stay cheap in a store of millions use the index that was made for them, and sort nothing."""

from __future__ import annotations

import pytest

from jobwire_server.store.base import Store
from jobwire_server.store.sqlite import claim, codec, sweep, transaction
from jobwire_server.store.sqlite.store import SqliteStore

_TABLES = {"job", "due", "ended", "lease", "request", "submission", "result", "detail"}

HOT = {
    "head of a queue": (codec.SELECT + claim._HEAD, 2, "job_by_state"),
    "one job": (codec.SELECT + "WHERE job.id = ?", 1, "sqlite_autoindex_job_1"),
    "credit": (transaction._HELD, 1, "job_by_worker"),
    "due jobs": (codec.SELECT + sweep._DUE, 2, "job_by_state"),
    "leases overdue": (codec.SELECT + sweep._LEASES_OVERDUE, 4, "job_by_state"),
    "expired jobs": (codec.SELECT + sweep._EXPIRED, 3, "job_by_expiry"),
    "leases": (codec.SELECT + sweep._LEASED, 3, "job_by_worker"),
    "purge": (sweep._PURGE, 2, "job_by_state"),
    "forgotten requests": (sweep._FORGET, 2, "request_by_expiry"),
}


@pytest.mark.parametrize("name", HOT)
async def test_the_statement_seeks_in_its_index(store: Store, name: str) -> None:
    assert isinstance(store, SqliteStore)
    sql, parameters, index = HOT[name]
    rows = await store._write(lambda each: each.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * parameters).fetchall())
    plan = [str(row[3]) for row in rows]
    assert any(index in step for step in plan), plan
    # A scan of the index by worker is one of the leases, not of all jobs.
    assert not [step for step in plan if step.startswith("SCAN") and step.split()[1] in _TABLES and index not in step]
    if name in ("head of a queue", "credit"):
        assert not [step for step in plan if "TEMP B-TREE" in step], plan
