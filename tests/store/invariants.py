"""What every test of a store ends with: nothing of it is broken."""

from __future__ import annotations

import asyncio
import time

from tests.valkey_process import Keyspace

from jobwire_server.app import inspection_of
from jobwire_server.store.base import Store
from jobwire_server.store.examination import Examination
from jobwire_server.store.redis.inspection import RedisInspection
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.sqlite import inspection
from jobwire_server.store.sqlite.store import SqliteStore
from jobwire_server.store.sqlite.transaction import Transaction


def findings(examination: Examination) -> list[str]:
    return [f"{invariant}: {what}" for invariant, broken in examination.broken.items() for what in broken.first]


async def broken(store: Store, keyspace: Keyspace | None = None) -> list[str]:
    """The findings about an open store; `keyspace` is where it keeps its keys, if it does."""
    if isinstance(store, SqliteStore):
        return await store._write(_examined)
    assert keyspace is not None, "where does it keep its jobs?"
    examination = await asyncio.to_thread(RedisInspection(keyspace.url).run, _tell_nobody)
    return [*findings(examination), *_keys_of_nobody(keyspace)]


def broken_at(url: str) -> list[str]:
    """The findings about the store of this URL, whoever is at work on it."""
    return findings(inspection_of(url).run(_tell_nobody))


def _examined(transaction: Transaction) -> list[str]:
    examination = Examination(_tell_nobody)
    # Some stores of a test lived under the real clock before, others live ahead of it.
    inspection.examine(transaction.connection, examination, now=max(transaction.now, time.time_ns() // 1000))
    return findings(examination)


def _keys_of_nobody(keyspace: Keyspace) -> list[str]:
    """The server of a test holds one store and nothing else."""
    own = Keys(keyspace.prefix).tag.encode()
    with keyspace.server.client() as client:
        return [f"a key beside the store: {key!r}" for key in client.scan_iter(count=1000) if not key.startswith(own)]


def _tell_nobody(jobs: int) -> None:
    pass
