"""What a batch costs the engine, counted in statements: each has a price of its own, beside that of its rows."""

from __future__ import annotations

from typing import Any

import pytest
from tests.store.making import claim, new_job, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.store.base import Store
from jobwire_server.store.sqlite import bulk
from jobwire_server.store.sqlite.store import SqliteStore

JOBS = 4 * bulk.ROWS


class Statements:
    """Counts those that were begun since it was last asked."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, *_: Any) -> bool:
        self._count += 1
        return True

    def since(self) -> int:
        count, self._count = self._count, 0
        return count


@pytest.fixture
async def statements(store: Store) -> Statements:
    assert isinstance(store, SqliteStore)
    counter = Statements()
    await store._write(lambda transaction: transaction.connection.set_exec_trace(counter))
    return counter


async def test_a_batch_takes_statements_by_the_fifty_and_not_by_the_job(store: Store, statements: Statements) -> None:
    lists = JOBS // bulk.ROWS
    statements.since()
    await store.create([new_job(f"job-{n}", submission=b"x") for n in range(JOBS)])
    # By lists: are the ids taken, the jobs, the submissions. Once: begin, last number, queue, count, commit, …
    # and the marks of the first event in ten seconds, and in a minute.
    assert statements.since() == 3 * lists + 9

    jobs = (await claim(store, wish(number=JOBS))).jobs
    assert len(jobs) == JOBS
    assert statements.since() == lists + 10

    moved = await store.move([policy.complete(job.id, job.token or b"", b"result") for job in jobs])
    assert {each.outcome for each in moved} == {Outcome.OK}
    assert statements.since() == lists + 8
