"""The store under test. Tests of the contract take `store` and name no engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.conftest import ENGINES
from tests.store import invariants
from tests.store.making import Clock
from tests.valkey_process import Keyspace

from jobwire_server.store.base import Store
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.sqlite.store import SqliteStore

ONLY = {
    "test_sqlite_": ("memory", "sqlite"),
    "test_redis_": ("valkey", "redis"),
    "test_listener": ("memory", "sqlite"),  # it looks into that store
    "test_copying": ("sqlite", "valkey", "redis"),  # what has an address
}
"""How the name begins of a file of tests that are about some engines → these."""

DIFFERS = {
    "test_purge_forgets_requests_too": (
        ("valkey", "redis"),
        "request ids pass away by the engine's own expiry there, and purge neither removes nor counts them",
    ),
}
"""Test → the engines that do otherwise, and why they may. A way of skipping that has to be answered for."""

_IDS = {"sqlite": "file"}
"""What an engine is called in the names of these tests, by which mutants name them."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        file = Path(metafunc.definition.path).name
        engines = next((only for start, only in ONLY.items() if file.startswith(start)), ENGINES)
        otherwise, reason = DIFFERS.get(metafunc.definition.originalname, ((), ""))
        metafunc.parametrize(
            "engine",
            [
                pytest.param(
                    engine,
                    id=_IDS.get(engine, engine),
                    marks=[pytest.mark.skip(reason=f"on {engine}: {reason}")] if engine in otherwise else [],
                )
                for engine in engines
            ],
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(engine: str, keyspace: Keyspace | None, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """An open, empty store; whatever a test did to it, its invariants must hold in the end."""
    store: Store
    if keyspace is not None:
        # Tests sweep when they like, and say themselves when there was an outage.
        store = RedisStore(keyspace.url, clock=clock, outage_gap=None)
    else:
        path = None if engine == "memory" else str(tmp_path / "jobwire.db")
        store = SqliteStore(path, clock=clock, outage_gap=None)
    await store.open()
    yield store
    broken = await invariants.broken(store, keyspace)
    await store.close()
    assert not broken


@pytest.fixture
def outage(store: Store, keyspace: Keyspace | None, clock: Clock) -> Callable[[], None]:
    """Call it: the store is just back from an outage. (That opening a file counts as one has its own test.)"""

    def happened() -> None:
        if isinstance(store, SqliteStore):
            store._recovered_at = clock()
        else:
            assert keyspace is not None
            with keyspace.server.client() as client:
                client.hset(Keys(keyspace.prefix).swept, "recovered_at", str(clock()))

    return happened
