"""What is planted in the keys by plain commands is named; and what only moves while it is read is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from redis import Redis
from tests.faults.proxy import Fault, Proxy
from tests.store import invariants
from tests.store.making import claim, get, move, new_job, put
from tests.store.planting import drop_field, record_of, set_field
from tests.store.stocked import stock
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.store.base import CannotOpen, Store, StoreUnavailable
from jobwire_server.store.examination import Examination
from jobwire_server.store.invariants import Invariant, Place
from jobwire_server.store.redis import inspection, keys, looking
from jobwire_server.store.redis.inspection import KINDS, RedisInspection
from jobwire_server.store.redis.keys import Keys

Plant = Callable[[Any, str], object]
"""Given a client and what all keys begin with."""

_TWICE = '{"history":"[[2,\\"w\\",0,0,\\"failed\\",\\"\\",null],[1,\\"w\\",0,0,\\"failed\\",\\"\\",null]]"}'


def _field(id: str, name: str, value: str) -> Plant:
    return lambda client, tag: set_field(client, tag, id, name, value)


def _no_field(id: str, name: str) -> Plant:
    return lambda client, tag: drop_field(client, tag, id, name)


def _of_the_other(name: str) -> Plant:
    """`held` has this field of `held2`."""
    return lambda client, tag: set_field(client, tag, "held", name, record_of(client, tag, "held2")[name])


PLANTS: dict[Invariant, list[tuple[Plant, str]]] = {
    # what to do, and how the finding goes on
    Invariant.STATE_INDEX: [
        (lambda c, t: c.zrem(f"{t}:q:default:queued", "waits"), "waits: state default:queued has nothing"),
        (lambda c, t: c.zadd(f"{t}:q:default:queued", {"waits": 5}), "waits: state default:queued has 5"),
    ],
    Invariant.STATE_STRAY: [
        (lambda c, t: c.zadd(f"{t}:q:default:failed", {"waits": 5}), "waits, queued in default: state default:failed"),
        (lambda c, t: c.zadd(f"{t}:q:other:queued", {"waits": 5}), "waits, queued in default: state other:queued"),
    ],
    Invariant.EXPIRY_INDEX: [(lambda c, t: c.delete(f"{t}:expiry"), "later: expiry has nothing")],
    Invariant.EXPIRY_STRAY: [(lambda c, t: c.zadd(f"{t}:expiry", {"waits": 5}), "waits, queued in default: expiry")],
    Invariant.CREDIT: [(lambda c, t: c.zrem(f"{t}:w:w", "held"), "held: lease w has nothing")],
    Invariant.CREDIT_STRAY: [
        (lambda c, t: c.zadd(f"{t}:w:w", {"done": 5}), "done, completed in default: lease w"),
        (lambda c, t: c.zadd(f"{t}:w:v", {"held": 5}), "held, in_progress in default: lease v"),
    ],
    Invariant.USER_INDEX: [(lambda c, t: c.delete(*c.keys(f"{t}:u:*")), "waits: user ann has nothing")],
    Invariant.USER_STRAY: [
        (lambda c, t: c.zadd(f"{t}:u:{'0' * 40}", {"waits": 5}), "waits, queued in default: user 0")
    ],
    Invariant.INDEX_OF_NOTHING: [
        (lambda c, t: c.zadd(f"{t}:u:{'0' * 40}", {"x": 5}), f"x: user {'0' * 40}"),
        (lambda c, t: c.zadd(f"{t}:q:default:queued", {b"\xff\x1b": 5}), "\\xff\x1b: state default:queued"),
    ],
    Invariant.ORPHAN: [
        (lambda c, t: c.set(f"{t}:spec:x", "1"), "x: submission"),
        (lambda c, t: c.set(f"{t}:result:x", "1"), "x: result"),
        (lambda c, t: c.set(f"{t}:detail:x", "{}"), "x: detail"),
    ],
    Invariant.BESIDE: [
        (lambda c, t: c.delete(f"{t}:result:done"), "done: says detail, result, there is detail"),
        (_no_field("done", "beside"), "done: says nothing, there is detail, result"),
    ],
    Invariant.UNREADABLE: [
        (_field("waits", "score", "x"), "waits: ValueError"),
        (_field("waits", "state", "eaten"), "waits: KeyError"),
        (lambda c, t: c.set(f"{t}:job:waits", '{"state"'), "waits: JSONDecodeError"),
        (_no_field("waits", "queue"), "waits: ValueError"),
        (_no_field("held", "token"), "held: ValueError"),
        (lambda c, t: c.set(f"{t}:detail:done", "{"), "done: JSONDecodeError"),
        (lambda c, t: c.hset(f"{t}:queue:default", "ageing", "x"), "queue default: ValueError"),
        (lambda c, t: c.hset(f"{t}:queue:default", "created", "x"), "tally of default: ValueError"),
        (lambda c, t: c.hset(f"{t}:marks:default", "60:2", "60000000 2 x"), "tally of default: "),
        (lambda c, t: c.hset(f"{t}:worker:w", "session", "x"), "worker w: ValueError"),
    ],
    Invariant.VERSION: [(_field("held", "revision", "7"), "held: version 2, revision 7")],
    Invariant.ORDER: [(_no_field("waits", "queue_time"), "waits: queue_time None")],
    Invariant.DUE: [(_field("later", "schedule_time", "5"), "later: due at")],
    Invariant.LEASE: [
        (_no_field("held", "fence"), "held: no fence"),
        (_field("held", "limit_time", "5"), "held: ends at 5"),
    ],
    Invariant.NO_LEASE: [(_field("done", "acknowledged", "1"), "done: completed")],
    Invariant.FINISH: [(_no_field("done", "finish_time"), "done: completed at None")],
    Invariant.ATTEMPT: [(_field("done", "attempt", "1"), "done: attempt 1 stands after attempt 1")],
    Invariant.HISTORY: [(lambda c, t: c.set(f"{t}:detail:done", _TWICE), "done: attempts [2, 1]")],
    Invariant.BUDGET: [(_field("held", "retry_count", "-1"), "held: retry_count -1")],
    Invariant.QUEUE_TIME_TWICE: [(_of_the_other("queue_time"), "held, held2: default at")],
    Invariant.TOKEN_TWICE: [(_of_the_other("token"), "held, held2")],
    Invariant.QUEUE_UNLISTED: [(lambda c, t: c.delete(f"{t}:queues", f"{t}:queue:default"), "waits: default")],
    Invariant.QUEUE_LAST: [(lambda c, t: c.hset(f"{t}:queue:default", "last_queue_time", "5"), "waits: ")],
    Invariant.QUEUE_HALF: [
        (lambda c, t: c.srem(f"{t}:queues", "default"), "default: only kept"),
        (lambda c, t: c.sadd(f"{t}:queues", "x"), "x: only listed"),
    ],
    Invariant.QUEUE_SETTINGS: [
        (lambda c, t: c.hset(f"{t}:queue:default", "ageing", "-1"), "default: ageing -1"),
        (lambda c, t: c.hset(f"{t}:queue:default", "max_in_flight", "0"), "default: max_in_flight 0"),
    ],
    Invariant.TALLY: [
        (lambda c, t: c.hdel(f"{t}:queue:default", "completed"), "default: completed 0, there are 1"),
        (
            lambda c, t: c.hset(f"{t}:marks:default", "60:1", "60000000 1 6 0 0 0 0 0 0"),
            "default: created 5, at a mark 6",
        ),
        (lambda c, t: c.hset(f"{t}:queue:default", "retried", "-1"), "default: retried -1, at a mark "),
        (lambda c, t: c.rename(f"{t}:marks:default", f"{t}:marks:x"), "x: marks of no queue"),
    ],
    Invariant.HOLDER: [(lambda c, t: (c.delete(f"{t}:worker:w"), c.srem(f"{t}:workers", "w")), "held: w")],
    Invariant.WORKER_HALF: [
        (lambda c, t: c.delete(f"{t}:worker:w"), "w: only listed"),
        (lambda c, t: c.srem(f"{t}:workers", "w"), "w: only kept"),
    ],
    Invariant.REMEMBERED: [
        (lambda c, t: [c.persist(key) for key in c.keys(f"{t}:request:*")], "{test}:request:6b6579: for ever"),
        (lambda c, t: [c.expire(key, 99999) for key in c.keys(f"{t}:request:*")], "{test}:request:6b6579: 9999"),
        (lambda c, t: c.set(f"{t}:call:ab", "1"), "{test}:call:ab: for ever"),
    ],
    Invariant.PASSING: [(lambda c, t: c.expire(f"{t}:job:waits", 1000), "{test}:job:waits: in ")],
    Invariant.FOREIGN: [
        (lambda c, t: c.set(f"{t}:jobs:x", "1"), "{test}:jobs:x"),
        (lambda c, t: c.set(f"{t}:job:a b".encode() + b"\xff", "1"), "{test}:job:a b\\xff"),
    ],
    Invariant.KIND: [
        (lambda c, t: (c.delete(f"{t}:queues"), c.set(f"{t}:queues", "1")), "{test}:queues is a string, not a set"),
        (lambda c, t: (c.delete(f"{t}:job:waits"), c.hset(f"{t}:job:waits", "a", "1")), "{test}:job:waits is a hash"),
        (lambda c, t: (c.delete(f"{t}:w:w"), c.set(f"{t}:w:w", "1")), "{test}:w:w is a string, not a zset"),
    ],
}

NOT_HERE = {
    Invariant.COUNTER,  # the size of an index is its counter
    Invariant.FILE,
}


@pytest.fixture
async def stocked(store: Store, keyspace: Keyspace | None) -> Store:
    """A job for each thing that can be broken, and nothing broken."""
    await stock(store)
    assert await invariants.broken(store, keyspace) == []
    return store


async def examined(keyspace: Keyspace) -> Examination:
    return await asyncio.to_thread(RedisInspection(keyspace.url).run, lambda _: None)


async def findings(keyspace: Keyspace) -> list[str]:
    return invariants.findings(await examined(keyspace))


def test_every_invariant_has_a_plant_or_cannot_be_broken_here() -> None:
    assert PLANTS.keys() | NOT_HERE == set(Invariant)
    assert not PLANTS.keys() & NOT_HERE


def test_every_name_of_a_key_is_explained() -> None:
    channels = {"HINTS", "CHANGES"}
    assert KINDS.keys() | channels == keys._NAMES.keys()


async def test_what_is_seen_is_counted(stocked: Store, keyspace: Keyspace) -> None:
    examination = await examined(keyspace)
    assert (examination.jobs, examination.queues, examination.workers) == (5, 1, 1)


@pytest.mark.parametrize(
    ("invariant", "plant", "what"),
    [
        pytest.param(invariant, plant, what, id=f"{invariant.name}-{what}")
        for invariant, plants in PLANTS.items()
        for plant, what in plants
    ],
)
async def test_a_plant_is_named(
    stocked: Store, keyspace: Keyspace, invariant: Invariant, plant: Plant, what: str
) -> None:
    tag = Keys(keyspace.prefix).tag
    with keyspace.server.client() as client:
        plant(client, tag)
        found = await findings(keyspace)
        # What was planted must not be held against the store.
        meta = client.hgetall(f"{tag}:meta")
        client.flushall()
        client.hset(f"{tag}:meta", mapping=meta)
    assert [each for each in found if each.startswith(f"{invariant}: {what.replace('{test}', tag)}")], found


async def test_keys_of_others_in_the_same_database_are_nobodys_business(stocked: Store, keyspace: Keyspace) -> None:
    with keyspace.server.client() as client:
        client.set("x", "1")
        client.set(f"{Keys(keyspace.prefix + '2').tag}:job:x", "1")
        found = await findings(keyspace)
        client.delete("x")
        client.delete(f"{Keys(keyspace.prefix + '2').tag}:job:x")
    assert found == []


async def test_what_fills_many_bites_is_read_whole(store: Store, keyspace: Keyspace) -> None:
    await store.create([new_job(f"j{n}", user_id="ann", submission=b"x", queue=f"q{n % 60}") for n in range(2500)])
    with keyspace.server.client() as client:
        client.zadd(f"{Keys(keyspace.prefix).tag}:expiry", {"j2": 5, "j2400": 5})
        examination = await examined(keyspace)
        client.delete(f"{Keys(keyspace.prefix).tag}:expiry")
    assert (examination.jobs, examination.queues) == (2500, 60)
    assert sorted(examination.broken[Invariant.EXPIRY_STRAY].first) == [
        "j2, queued in q2: expiry",
        "j2400, queued in q0: expiry",
    ]


# --- while servers are at work ------------------------------------------------------------------------------


class Between:
    """Calls on the loop of the test, from the thread that reads, in the middle of its reading."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.happened = False

    def happen(self, what: Any) -> None:
        """Once."""
        if not self.happened:
            self.happened = True
            asyncio.run_coroutine_threadsafe(what(), self._loop).result(30)


async def complete(store: Store, id: str) -> None:
    job = await get(store, id)
    assert job.token
    assert await move(store, policy.complete(id, job.token, b"result")) is Outcome.OK


async def test_a_job_that_moves_after_its_entry_was_read_breaks_nothing(
    stocked: Store, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    between, read = Between(), looking.out_of_place
    suspects: list[bytes] = []

    def out_of_place(client: Redis, own: Keys, place: Place, ids: Sequence[bytes]) -> list[bytes]:
        if b"held" in ids:
            between.happen(lambda: complete(stocked, "held"))
        found = read(client, own, place, ids)
        suspects.extend(found)
        return found

    monkeypatch.setattr(looking, "out_of_place", out_of_place)
    assert await findings(keyspace) == []
    assert b"held" in suspects, "nothing looked wrong: the test proves nothing"


async def test_a_job_that_is_removed_while_what_stands_beside_it_is_read_leaves_no_orphan(
    store: Store, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, "brief", submission=b"x", retention=0)
    (job,) = (await claim(store)).jobs
    between, see_beside = Between(), inspection.Reading._see_beside

    def removed_meanwhile(reading: inspection.Reading, ids: set[bytes]) -> None:
        assert ids == {b"brief"} or between.happened
        between.happen(lambda: complete(store, job.id))
        see_beside(reading, ids)

    monkeypatch.setattr(inspection.Reading, "_see_beside", removed_meanwhile)
    assert await findings(keyspace) == []
    assert between.happened


async def test_keys_that_a_scan_shows_twice_break_nothing(
    stocked: Store, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bites = inspection.Reading._bites

    def twice(reading: inspection.Reading) -> Iterator[dict[str, list[bytes]]]:
        for bite in bites(reading):
            yield bite
            yield bite

    monkeypatch.setattr(inspection.Reading, "_bites", twice)
    assert await findings(keyspace) == []


async def test_reading_works_after_the_engine_has_forgotten_the_scripts(stocked: Store, keyspace: Keyspace) -> None:
    with keyspace.server.client() as client:
        client.script_flush()
    assert await findings(keyspace) == []


async def test_an_answer_that_got_lost_is_asked_for_again(stocked: Store, keyspace: Keyspace) -> None:
    async with Proxy(keyspace.server.port) as proxy:
        strike = proxy.strike(Fault.LOSE_REPLY, lambda request: b"EVALSHA" in request)
        reading = RedisInspection(f"redis://{proxy.address}/0?prefix={keyspace.prefix}")
        examination = await asyncio.to_thread(reading.run, lambda _: None)
    assert strike.struck.is_set()
    assert (examination.jobs, invariants.findings(examination)) == (5, [])


# --- what cannot be read ------------------------------------------------------------------------------------


async def test_a_prefix_that_holds_no_store_is_said_so(keyspace: Keyspace) -> None:
    with pytest.raises(CannotOpen, match="there is no store at"):
        await findings(keyspace)


async def test_a_store_of_another_schema_is_refused(store: Store, keyspace: Keyspace) -> None:
    with keyspace.server.client() as client:
        schema = client.hget(Keys(keyspace.prefix).meta, "schema")
        client.hset(Keys(keyspace.prefix).meta, "schema", "99")
        with pytest.raises(CannotOpen, match="schema 99"):
            await findings(keyspace)
        client.hset(Keys(keyspace.prefix).meta, "schema", schema)


def test_an_engine_that_is_not_there_is_said_without_its_password() -> None:
    with pytest.raises(StoreUnavailable, match="cannot read") as refused:
        RedisInspection("redis://ann:secret@127.0.0.1:1").run(lambda _: None)
    assert "secret" not in str(refused.value)
