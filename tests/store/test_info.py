"""What a store says of itself."""

from __future__ import annotations

from tests.store.making import Clock, new_job

from jobwire_server.store.base import Store
from jobwire_server.store.redis import store as redis
from jobwire_server.store.sqlite import opening
from jobwire_server.store.sqlite.store import SqliteStore


async def test_a_store_says_which_schema_it_has_and_how_much_it_holds(store: Store, clock: Clock) -> None:
    before = await store.info()
    assert before.now == clock.now
    is_file = isinstance(store, SqliteStore)
    assert before.schema_version == (opening.SCHEMA_VERSION if is_file else redis.SCHEMA_VERSION)
    await store.create([new_job(f"j{n}", submission=b"x" * 1000) for n in range(1000)])
    after = await store.info()
    assert after.used_bytes > before.used_bytes + 1_000_000
    assert (after.client_count > 0) is not is_file
