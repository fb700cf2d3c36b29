"""What an engine must be, what it may do meanwhile, and how many servers share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.store.making import Clock, claim, is_there, new_job, put, shove_all, wish
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, JobState
from jobwire_server.store.base import CannotOpen, Hints, Store, StoreFull
from jobwire_server.store.redis import ear, link, topology
from jobwire_server.store.redis.connection import Connection
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.store import OUTAGE_GAP, RedisStore
from jobwire_server.store.redis.topology import ANSWER_WITHIN
from jobwire_server.store.redis.wire import Wire


@contextmanager
def configured(keyspace: Keyspace, **settings: object) -> Iterator[None]:
    """The engine with other settings for a while."""
    with keyspace.server.client() as client:
        names = {name.replace("_", "-"): value for name, value in settings.items()}
        before = {name: client.config_get(name)[name] for name in names}
        try:
            for name, value in names.items():
                client.config_set(name, value)
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)


# --- connections --------------------------------------------------------------------------------------------


def test_a_write_to_a_connection_that_has_just_ended_is_an_outage_in_uvloop_too(keyspace: Keyspace) -> None:
    async def write() -> None:
        wire = Wire(Route(topology.parse(keyspace.url)), answer_within=ANSWER_WITHIN)
        assert await wire.call("PING") == b"PONG"
        assert wire._connection is not None
        wire._connection._transport.abort()
        with pytest.raises(RedisConnectionError):
            await wire.call("PING")
        assert await wire.call("PING") == b"PONG", "it connects again"
        await wire.close()

    uvloop.run(write())


# --- opening ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [("schema", "999"), ("partitions", "2")])
async def test_a_store_of_another_schema_is_refused(store: Store, keyspace: Keyspace, field: str, value: str) -> None:
    meta = Keys(keyspace.prefix).meta
    with keyspace.server.client() as client:
        before = client.hget(meta, field)
        client.hset(meta, field, value)
        with pytest.raises(CannotOpen, match=value):
            await RedisStore(keyspace.url).open()
        assert client.hget(meta, field) == value.encode(), "nothing was written"
        client.hset(meta, field, before or b"")


async def test_an_engine_that_evicts_keys_is_refused(store: Store, keyspace: Keyspace) -> None:
    with configured(keyspace, maxmemory_policy="allkeys-lru"), pytest.raises(CannotOpen, match="noeviction"):
        await RedisStore(keyspace.url).open()


@pytest.mark.parametrize(
    ("settings", "durability"),
    [
        ({"appendfsync": "always"}, "fsynced"),
        ({"appendfsync": "everysec"}, "everysec"),
        ({"appendfsync": "no"}, "none"),
        ({"appendonly": "no"}, "none"),
    ],
)
async def test_the_durability_is_what_the_engine_says(
    store: Store, keyspace: Keyspace, settings: dict[str, Any], durability: str
) -> None:
    with configured(keyspace, **settings):
        other = RedisStore(keyspace.url)
        await other.open()
        info = await other.info()
        await other.close()
    assert info.durability == durability
    assert info.kind == "redis"
    assert info.engine.startswith(("Valkey ", "Redis "))


async def test_an_engine_that_forbids_config_still_serves(store: Store, keyspace: Keyspace) -> None:
    with keyspace.server.client() as client:
        client.acl_setuser(
            "few", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], commands=["+@all", "-config"]
        )
        other = RedisStore(keyspace.url_of("few:secret"))
        try:
            await other.open()
            info = await other.info()
            await other.create([new_job("j")])
            await other.close()
        finally:
            client.acl_deluser("few")
    assert info.durability == "unknown"
    assert "secret" not in info.url
    assert "few:***@" in info.url


async def test_a_wrong_password_is_said_at_once_and_not_shown(store: Store, keyspace: Keyspace) -> None:
    with pytest.raises(CannotOpen) as refused:
        await RedisStore(keyspace.url_of("nobody:hunter2")).open()
    assert "hunter2" not in str(refused.value)


async def test_an_engine_that_is_not_there_is_said_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DEADLINE", 0.1)
    with pytest.raises(CannotOpen) as refused:
        await RedisStore("redis://127.0.0.1:1").open()
    assert str(refused.value).count("redis://127.0.0.1:1") == 1


@pytest.mark.parametrize(
    "url",
    ["redis://h?prefix={x}", "redis://h?prefix=", "redis://h?pool=1", "redis://h?socket_timeout=1",
     "redis://h:x", "redis://h/name", "http://h", "redis://h,i", "redis://h?replicas=x", "redis://h?replicas=10",
     "redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel://h/name/x", "redis+sentinel://h,[::1/name",
     "redis+cluster://h/1", "redis+cluster://h/name", "redis+cluster://h?sentinel_password=x"],
)  # fmt: skip  # a list of words
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(CannotOpen):
        topology.parse(url)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://h", "redis://h:6379"),
        ("rediss://u:p@h:1/2?prefix=x&ssl_cert_reqs=none", "rediss://u:***@h:1/2?prefix=x"),
        ("redis://:p%40@[::1]/0", "redis://:***@[::1]:6379/0"),
        ("redis://u@h?replicas=2", "redis://u@h:6379?replicas=2"),
        ("redis+sentinel://u:p@h,[::1]:5,i/name/2", "redis+sentinel://u:***@h:26379,[::1]:5,i:26379/name/2"),
        ("rediss+sentinel://h/name?sentinel_username=s&sentinel_password=p", "rediss+sentinel://h:26379/name"),
        ("redis+cluster://:p@h:1,i/0?prefix=x", "redis+cluster://:***@h:1,i:6379/0?prefix=x"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, masked: str) -> None:
    assert topology.parse(url).masked == masked


def test_sentinels_may_ask_for_another_login_than_the_engine() -> None:
    address = topology.parse("redis+sentinel://u:p%40@h/name/2?sentinel_username=s&sentinel_password=q%2F%40")
    (sentinel,) = address.nodes
    engine = address.told(topology.Node("i", 1))
    assert (engine.host, engine.port, engine.username, engine.password, engine.db) == ("i", 1, "u", "p@", 2)
    asked = address.told_of_sentinel(sentinel)
    assert (asked.host, asked.port, asked.username, asked.password, asked.db) == ("h", 26379, "s", "q/@", 0)


# --- while it runs ------------------------------------------------------------------------------------------


async def test_a_full_engine_refuses_creates_and_still_settles(store: Store, keyspace: Keyspace) -> None:
    await put(store, "j")
    await put(store, "next")
    (job,) = (await claim(store)).jobs
    assert job.token
    with configured(keyspace, maxmemory="1"):
        with pytest.raises(StoreFull):
            await store.create([new_job("no")])
        (moved,) = await store.move([policy.complete("j", job.token, None)])
        assert moved.outcome is Outcome.OK
        assert len((await claim(store)).jobs) == 1
        assert not await is_there(store, "no")
    assert len(await store.create([new_job("yes")])) == 1


async def test_more_than_one_script_takes_are_answered_in_order(store: Store) -> None:
    ids = [f"j{n}" for n in range(1203)]
    created = await store.create([new_job(id) for id in ids])
    assert [each.job_id for each in created] == ids
    assert [each.queue_position for each in created] == list(range(1, 1204))
    claims = await store.claim("default", [wish("a", 1100, max_in_flight=2000), wish("b", 50), wish("a", 50)])
    assert [len(each.jobs) for each in claims.claimed] == [1100, 50, 0], "the last one has no credit left"
    assert [job.id for each in claims.claimed for job in each.jobs] == ids[:1150]
    assert [each.held for each in claims.claimed] == [1100, 50, 1100]
    assert claims.remaining == 53
    assert [job and job.id for job in (await store.get(ids)).jobs] == ids


async def test_that_a_channel_is_not_heard_is_said_once_however_often_it_is_tried_again(
    keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    again, tries = asyncio.Event(), 0
    connect = Route.open

    async def connect_at_last(route: Route, connection: Connection) -> None:
        nonlocal tries
        tries += 1
        if tries <= 5:
            raise ConnectionRefusedError("nobody there")
        await connect(route, connection)

    monkeypatch.setattr(ear, "_RECONNECT_AFTER", 0)
    hearing = ear.Ear(
        Route(topology.parse(keyspace.url)),
        Keys(keyspace.prefix).hints,
        heard=lambda _: None,
        again=again.set,
        what="words",
    )
    await hearing.open()
    monkeypatch.setattr(Route, "open", connect_at_last)
    with caplog.at_level("INFO"), keyspace.server.client() as client:
        client.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(20):
            await again.wait()
    assert [record.getMessage() for record in caplog.records if "words" in record.getMessage()] == [
        "words are not heard: ConnectionError: the engine has closed the connection",
        "words are heard again",
    ]
    await hearing.close()


# --- outages ------------------------------------------------------------------------------------------------


@pytest.fixture
async def minding(store: Store, keyspace: Keyspace, clock: Clock) -> RedisStore:
    """The same keys by a server that minds outages; the other one closes them."""
    minding = RedisStore(keyspace.url, clock=clock)
    await minding.open()
    return minding


async def recovered_at(store: RedisStore) -> int:
    return (await store.info()).recovered_at


async def test_an_outage_is_a_gap_between_sweeps_or_a_clock_that_goes_back(minding: RedisStore, clock: Clock) -> None:
    await put(minding, "j", JobState.IN_PROGRESS)
    clock.advance(1000)
    await minding.overdue(limit=1)
    assert await recovered_at(minding) == 0, "the first sweep of a store follows none"
    clock.now += OUTAGE_GAP
    await minding.purge(limit=1)
    assert await recovered_at(minding) == 0
    clock.now += OUTAGE_GAP + 1
    await minding.overdue(limit=1)
    assert await recovered_at(minding) == clock.now
    clock.now += 1
    await minding.overdue(limit=1)
    assert await recovered_at(minding) == clock.now - 1
    clock.now -= 10
    await minding.purge(limit=1)
    assert await recovered_at(minding) == clock.now
    await minding.close()


async def test_what_was_read_before_an_outage_is_not_reaped_after_it_although_nobody_has_swept(
    minding: RedisStore, clock: Clock
) -> None:
    await put(minding, "j", JobState.IN_PROGRESS)
    clock.advance(10)
    (seen,) = (await minding.overdue(limit=1)).jobs
    assert seen
    clock.advance(100)
    reap = policy.reap(seen, now=clock.now, random=0)
    assert [moved.outcome for moved in await minding.move([reap])] == [Outcome.STALE]
    assert (await minding.overdue(limit=1)).jobs == []
    for _ in range(10):
        clock.advance(1)
        found = (await minding.overdue(limit=1)).jobs
    assert found == [seen], "its delivery time has passed anew"
    assert [moved.outcome for moved in await minding.move([reap])] == [Outcome.OK]
    await minding.close()


# --- many servers -------------------------------------------------------------------------------------------


async def test_what_one_server_changes_is_heard_by_the_others_once(
    store: Store, keyspace: Keyspace, clock: Clock
) -> None:
    other = RedisStore(keyspace.url, clock=clock, outage_gap=None)
    await other.open()
    here, there = store.hints(), other.hints()
    async with asyncio.timeout(10):
        await put(store, "a", queue="a")
        assert await anext(there) == await anext(here) == Hints(queued={"a": 1})
        await put(other, "b", queue="b")
        assert await anext(there) == await anext(here) == Hints(queued={"b": 1})
    await other.close()


@pytest.fixture
async def second(store: Store, keyspace: Keyspace, clock: Clock) -> AsyncIterator[RedisStore]:
    """Another server on the same keys."""
    second = RedisStore(keyspace.url, clock=clock, outage_gap=None)
    await second.open()
    yield second
    await second.close()


async def due_at_once(store: Store, clock: Clock, verb: str, number: int) -> None:
    """So many jobs for that verb of maintenance to handle now."""
    names = [f"{verb}-{clock.now}-{n}" for n in range(number)]
    await store.create([new_job(id, schedule_time=clock.now + 1, retention=1) for id in names])
    if verb == "purge":
        await shove_all(store, dict.fromkeys(names, JobState.CANCELED))
    clock.now += 1


SWEEPS = ["promote", "purge"]


@pytest.mark.parametrize("verb", SWEEPS)
async def test_what_one_server_has_just_swept_no_other_sweeps(
    store: Store, second: RedisStore, clock: Clock, verb: str
) -> None:
    await due_at_once(store, clock, verb, 3)
    assert await getattr(store, verb)(limit=9) == 3
    await due_at_once(store, clock, verb, 2)
    assert await getattr(second, verb)(limit=9) == 0, "the first one will do it"
    assert await getattr(store, verb)(limit=9) == 2
    await due_at_once(store, clock, verb, 1)
    clock.now += SECOND // 2 - 2
    assert await getattr(second, verb)(limit=9) == 0
    clock.now += 1
    assert await getattr(second, verb)(limit=9) == 1, "the first one has ended, it seems"
    await due_at_once(store, clock, verb, 1)
    assert await getattr(store, verb)(limit=9) == 0


@pytest.mark.parametrize("verb", SWEEPS)
async def test_where_one_server_leaves_something_over_another_helps(
    store: Store, second: RedisStore, clock: Clock, verb: str
) -> None:
    await due_at_once(store, clock, verb, 5)
    assert await getattr(store, verb)(limit=9) == 5
    await due_at_once(store, clock, verb, 5)
    assert await getattr(store, verb)(limit=2) == 2
    assert await getattr(second, verb)(limit=2) == 2
    assert await getattr(second, verb)(limit=2) == 1


@pytest.mark.parametrize("verb", SWEEPS)
async def test_a_sweep_in_the_future_keeps_nobody_away(
    store: Store, second: RedisStore, clock: Clock, verb: str
) -> None:
    clock.advance(10)
    assert await getattr(store, verb)(limit=9) == 0
    clock.advance(-10)
    await due_at_once(store, clock, verb, 1)
    assert await getattr(second, verb)(limit=9) == 1


async def test_recovery_reads_what_is_overdue_whoever_has_swept(store: Store, second: RedisStore, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    clock.advance(30)
    assert (await store.overdue(limit=9)).jobs == (await second.overdue(limit=9)).jobs == [job]


async def test_hints_are_heard_again_after_their_connection_broke(
    store: Store, keyspace: Keyspace, clock: Clock
) -> None:
    other = RedisStore(keyspace.url, clock=clock, outage_gap=None)
    await other.open()
    there = other.hints()
    with keyspace.server.client() as client:
        client.client_kill_filter(_type="pubsub")

    async def hear() -> Hints:
        return await anext(there)

    async with asyncio.timeout(20):
        listening = asyncio.create_task(hear())
        number = 0
        while not listening.done():
            number += 1
            await put(store, f"j{number}")
            await asyncio.wait([listening], timeout=0.05)
    assert (await listening).queued["default"] >= 1
    await other.close()
