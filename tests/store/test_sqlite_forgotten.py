"""What a purge leaves of the queues and workers it forgets: nothing, a bite at a time."""

from __future__ import annotations

from tests.store.making import Clock, new_job, put, shove

from jobwire_server.domain.job import DAY, SECOND, JobState
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import Store
from jobwire_server.store.sqlite.store import SqliteStore


async def rows_of(store: Store, table: str) -> int:
    assert isinstance(store, SqliteStore)
    number: int = await store._write(lambda transaction: transaction.execute(f"SELECT count(*) FROM {table}").get)
    return number


async def test_nothing_is_left_of_a_queue_that_is_forgotten(store: Store, clock: Clock) -> None:
    await put(store, "j", JobState.IN_PROGRESS, queue="gone", submission=b"x", retention=SECOND)
    await shove(store, "j", JobState.CANCELED, result=b"r")
    assert await rows_of(store, "queue_count") == 3
    clock.now += DAY
    await store.purge(limit=9)
    for table in ("job", "submission", "detail", "queue", "queue_count", "worker"):
        assert await rows_of(store, table) == 0, table


async def test_what_is_forgotten_goes_a_bite_at_a_time(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"j{n}", queue=f"q{n}", retention=0) for n in range(150)])
    for n in range(150):
        await shove(store, f"j{n}", JobState.CANCELED)
        await store.beat(WorkerInfo(id=f"w{n}"))
    clock.now += DAY
    left = []
    for _ in range(2):
        assert await store.purge(limit=9) == 0, "these do not count"
        left += [await rows_of(store, "queue"), await rows_of(store, "worker")]
    assert left == [50, 50, 0, 0]
