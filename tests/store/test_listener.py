from __future__ import annotations

import gc

from tests.store.making import put

from jobwire_server.store.base import Hints, Store, WorkerNotice
from jobwire_server.store.listener import MAX_NOTICES, Listener
from jobwire_server.store.sqlite.store import SqliteStore


async def test_a_listener_that_never_comes_keeps_a_bounded_number_of_notices() -> None:
    listener = Listener()
    for n in range(MAX_NOTICES // 1000 + 5):
        notices = tuple(WorkerNotice(f"w{n}", f"j{m}", m) for m in range(1000))
        listener.ring(Hints(cancels=notices, lost=notices, heard=tuple(f"{n}-{m}" for m in range(1000))))
    heard = await anext(listener)
    assert len(heard.cancels) == len(heard.lost) == len(heard.heard) == MAX_NOTICES
    assert heard.lost[-1] == WorkerNotice(f"w{MAX_NOTICES // 1000 + 4}", "j999", 999), "the oldest go first"


async def test_a_listener_that_was_dropped_is_forgotten(store: Store) -> None:
    assert isinstance(store, SqliteStore)
    listener = store.hints()
    await put(store, "j")
    await anext(listener)
    assert len(store._listeners) == 1
    del listener
    gc.collect()
    assert len(store._listeners) == 0
