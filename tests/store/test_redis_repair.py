"""Of what test_redis_invariants.py plants, what is derived is mended, and everything else stays as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from tests.store import invariants
from tests.store.making import Clock, claim, get, move, new_job
from tests.store.planting import record_of, set_field, write_record
from tests.store.stocked import stock
from tests.store.test_redis_invariants import PLANTS, Plant
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import HOUR, JobState
from jobwire_server.store.base import Store
from jobwire_server.store.invariants import Invariant
from jobwire_server.store.redis import looking
from jobwire_server.store.redis.inspection import RedisInspection
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.repair import MENDS, RedisRepair


@pytest.fixture
def clock() -> Clock:
    """The engine's own time, nearly: a repair goes by that."""
    clock = Clock()
    clock.now = time.time_ns() // 1000
    return clock


@pytest.fixture
async def stocked(store: Store, clock: Clock) -> Store:
    await stock(store, clock())
    return store


def findings(keyspace: Keyspace) -> list[str]:
    return invariants.findings(RedisInspection(keyspace.url).run(lambda _: None))


def repair(keyspace: Keyspace) -> None:
    RedisRepair(keyspace.url).run(lambda _: None)


def dump(keyspace: Keyspace, names: str = "*") -> dict[bytes, tuple[bytes, bool]]:
    """Every key with what it holds, as the engine keeps it, and whether it passes away."""
    with keyspace.server.client() as client:
        found: Any = sorted(client.scan_iter(f"{Keys(keyspace.prefix).tag}{names}", count=1000))
        held: Any = [(client.dump(key), client.pttl(key)) for key in found]
        return {key: (value, left >= 0) for key, (value, left) in zip(found, held, strict=True)}


def empty(keyspace: Keyspace) -> None:
    """What was planted must not be held against the store."""
    meta = Keys(keyspace.prefix).meta
    with keyspace.server.client() as client:
        client.delete(*(key for key in client.scan_iter(f"{Keys(keyspace.prefix).tag}*") if key != meta.encode()))


def planted(*, mended: bool) -> list[Any]:
    return [
        pytest.param(plant, what, id=f"{invariant.name}-{what}")
        for invariant, plants in PLANTS.items()
        if (invariant in MENDS) is mended
        for plant, what in plants
    ]


@pytest.mark.parametrize(("plant", "what"), planted(mended=True))
async def test_what_is_derived_is_mended_and_no_record_changes(
    stocked: Store, keyspace: Keyspace, plant: Plant, what: str
) -> None:
    with keyspace.server.client() as client:
        plant(client, Keys(keyspace.prefix).tag)
    records = dump(keyspace, ":job:*")
    assert any(what in each for each in findings(keyspace))
    repair(keyspace)
    assert findings(keyspace) == []
    assert dump(keyspace, ":job:*") == records


@pytest.mark.parametrize(("plant", "what"), planted(mended=False))
async def test_what_is_not_derived_stays_as_it_is(stocked: Store, keyspace: Keyspace, plant: Plant, what: str) -> None:
    with keyspace.server.client() as client:
        plant(client, Keys(keyspace.prefix).tag)
    before, found = dump(keyspace), findings(keyspace)
    assert any(what.replace("{test}", Keys(keyspace.prefix).tag) in each for each in found)
    repair(keyspace)
    after, left = dump(keyspace), findings(keyspace)
    empty(keyspace)
    assert after == before
    assert [without_times(each) for each in left] == [without_times(each) for each in found]


def without_times(finding: str) -> str:
    passes = finding.startswith((Invariant.PASSING, Invariant.REMEMBERED))
    return finding.rpartition(":")[0] if passes else finding


async def test_of_a_sound_store_nothing_changes(stocked: Store, keyspace: Keyspace) -> None:
    before = dump(keyspace)
    repair(keyspace)
    assert dump(keyspace) == before


async def test_what_fills_many_bites_is_mended_whole(store: Store, keyspace: Keyspace) -> None:
    await store.create([new_job(f"j{n}", user_id="ann", submission=b"x", queue=f"q{n % 60}") for n in range(500)])
    with keyspace.server.client() as client:
        client.delete(
            *client.keys(f"{Keys(keyspace.prefix).tag}:q:*"), *client.keys(f"{Keys(keyspace.prefix).tag}:u:*")
        )
        client.delete(f"{Keys(keyspace.prefix).tag}:queues")
    repair(keyspace)
    assert findings(keyspace) == []


async def test_a_job_that_was_lost_to_its_queue_is_claimed_again(stocked: Store, keyspace: Keyspace) -> None:
    with keyspace.server.client() as client:
        client.delete(f"{Keys(keyspace.prefix).tag}:q:default:queued")
    assert (await claim(stocked)).jobs == []
    await asyncio.to_thread(repair, keyspace)
    assert [job.id for job in (await claim(stocked)).jobs] == ["waits"]


# --- what must not be believed ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("queue", "a b"), ("queue_time", None)], ids=["no name", "the future"])
async def test_a_record_that_cannot_be_is_not_spread(
    stocked: Store, keyspace: Keyspace, clock: Clock, name: str, value: str | None
) -> None:
    tag = Keys(keyspace.prefix).tag
    with keyspace.server.client() as client:
        set_field(client, tag, "held", name, value or str(clock() + HOUR))
    before, found = dump(keyspace), findings(keyspace)
    repair(keyspace)
    after = dump(keyspace)
    empty(keyspace)
    assert found
    assert after == before


# --- while servers are at work ------------------------------------------------------------------------------


class Meanwhile:
    """Something happens once, between the look at a job and its mending."""

    def __init__(self, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]) -> None:
        self.left: list[str] | None = None
        """The findings right after that mending; None = it has not come to it."""
        self._keyspace = keyspace
        self._loop = asyncio.get_running_loop()
        self._call = looking.call
        self._what = what
        monkeypatch.setattr(looking, "call", self._called)

    def _called(self, client: Redis, name: str, own: Keys, arguments: Any, blob: bytes) -> tuple[Any, bytes]:
        if name != "mend" or self.left is not None:
            return self._call(client, name, own, arguments, blob)
        asyncio.run_coroutine_threadsafe(self._what(), self._loop).result(30)
        answer = self._call(client, name, own, arguments, blob)
        self.left = []  # what follows is no mending of this one
        self.left = findings(self._keyspace)
        return answer


async def complete(store: Store, id: str) -> None:
    job = await get(store, id)
    assert job.token
    assert await move(store, policy.complete(id, job.token, b"result")) is Outcome.OK


async def test_a_job_that_moves_before_it_is_mended_stands_where_it_went(
    stocked: Store, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keyspace.server.client() as client:
        client.zrem(f"{Keys(keyspace.prefix).tag}:w:w", "held")
    meanwhile = Meanwhile(keyspace, monkeypatch, lambda: complete(stocked, "held"))
    await asyncio.to_thread(repair, keyspace)
    assert meanwhile.left == [], "what it was to stand in was written after it had gone from there"
    assert (await get(stocked, "held")).state is JobState.COMPLETED
    assert findings(keyspace) == []


async def test_what_is_kept_for_a_job_that_comes_to_be_meanwhile_stays(
    stocked: Store, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keyspace.server.client() as client:
        client.set(f"{Keys(keyspace.prefix).tag}:spec:new", "1")
    meanwhile = Meanwhile(keyspace, monkeypatch, lambda: stocked.create([new_job("new", submission=b"work")]))
    await asyncio.to_thread(repair, keyspace)
    assert meanwhile.left == []
    assert (await get(stocked, "new")).submission == b"work"


async def test_a_job_that_never_rests_is_left_alone(
    stocked: Store, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag, call = Keys(keyspace.prefix).tag, looking.call
    tries: list[int] = []

    def renewed(client: Redis, name: str, own: Keys, arguments: Any, blob: bytes) -> tuple[Any, bytes]:
        if name == "mend" and arguments[0]:
            tries.append(1)
            with keyspace.server.client() as other:
                record = record_of(other, tag, "waits")
                write_record(other, tag, "waits", {**record, "version": str(len(tries) + 1)})
        return call(client, name, own, arguments, blob)

    with keyspace.server.client() as client:
        client.zrem(f"{tag}:q:default:queued", "waits")
    monkeypatch.setattr(looking, "call", renewed)
    repair(keyspace)
    assert 1 < len(tries) < 50
    assert any("waits" in each for each in findings(keyspace))
    monkeypatch.undo()
    repair(keyspace)
    assert findings(keyspace) == []
