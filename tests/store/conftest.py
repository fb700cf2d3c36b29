"""The store under test. Tests of the contract take `store` and name no backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.store import invariants
from tests.store.making import Clock

from jobwire_server.store.base import Store
from jobwire_server.store.sqlite.store import SqliteStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """An open, empty store; whatever a test did to it, its invariants must hold in the end."""
    store = SqliteStore(str(tmp_path / "jobwire.db") if request.param == "file" else None, clock=clock)
    await store.open()
    yield store
    broken = await invariants.broken(store)
    await store.close()
    assert not broken


@pytest.fixture
def outage(store: Store, clock: Clock) -> Callable[[], None]:
    """Call it: the store is just back from an outage. (That opening a file counts as one has its own test.)"""
    assert isinstance(store, SqliteStore)

    def happened() -> None:
        store._recovered_at = clock()

    return happened
