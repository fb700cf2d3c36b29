"""What is planted in the keys is found by the reading that every test of a store ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.store import invariants
from tests.store.making import START, put
from tests.valkey_process import Keyspace

from jobwire_server.domain.job import SECOND, JobState
from jobwire_server.store.base import Store
from jobwire_server.store.redis.keys import Keys

REDIS: dict[str, Callable[[Any, str], object]] = {
    "a job is not in its index: q: state default:queued": lambda c, t: c.zrem(f"{t}:q:default:queued", "q"),
    "a job is not in its index: l: lease w": lambda c, t: c.delete(f"{t}:w:w"),
    "a job is not in its index: s: expiry": lambda c, t: c.zadd(f"{t}:expiry", {"s": 5}),
    "a job is not in its index: q: user ann": lambda c, t: c.delete(*c.keys(f"{t}:u:*")),
    "a job is in an index of others: l": lambda c, t: c.zadd(f"{t}:q:other:failed", {"l": 5}),
    "an index names no job: x": lambda c, t: c.zadd(f"{t}:u:{'0' * 40}", {"x": 5}),
    "something beside no job: spec of x": lambda c, t: c.set(f"{t}:spec:x", "1"),
    "something beside no job: detail of x": lambda c, t: c.set(f"{t}:detail:x", "{}"),
    "a queue that is listed or stored, not both: default": lambda c, t: c.srem(f"{t}:queues", "default"),
    "a worker that holds leases is unknown: w": lambda c, t: (c.delete(f"{t}:worker:w"), c.srem(f"{t}:workers", "w")),
    "a key that nothing has put there": lambda c, t: c.set(f"{t}:jobs:x", "1"),
    "a key that nothing has put there: jw": lambda c, t: c.set("jw", "1"),
    "a key of another type": lambda c, t: (c.delete(f"{t}:queues"), c.set(f"{t}:queues", "1")),
    "a key that stays for ever": lambda c, t: [c.persist(key) for key in c.keys(f"{t}:request:*")],
    "a key that passes away": lambda c, t: c.expire(f"{t}:job:q", 1000),
    "a job that cannot be read: q": lambda c, t: c.hset(f"{t}:job:q", "score", "x"),
    "a job that cannot be read: l": lambda c, t: c.set(f"{t}:detail:l", "{"),
    "a history that is none: q": lambda c, t: c.set(
        f"{t}:detail:q", '{"history":"[[2,0,0,0,0,\\"\\",0],[1,0,0,0,0,\\"\\",0]]"}'
    ),
}


@pytest.fixture
async def stocked(store: Store, keyspace: Keyspace | None) -> Store:
    """A job in each kind of index, and nothing broken."""
    await put(store, "l", JobState.IN_PROGRESS)
    await put(store, "q", user_id="ann", request_key=b"key", submission=b"x")
    await put(store, "s", schedule_time=START + SECOND, expire_time=START + 2 * SECOND)
    assert await invariants.broken(store, keyspace) == []
    return store


@pytest.mark.parametrize("name", REDIS)
async def test_a_plant_in_the_keys_is_found(stocked: Store, keyspace: Keyspace, name: str) -> None:
    with keyspace.server.client() as client:
        REDIS[name](client, Keys(keyspace.prefix).tag)
        found = await invariants.broken(stocked, keyspace)
        client.flushall()  # what was planted must not be held against the store
    assert [each for each in found if each.startswith(name)], found
