"""Changes on their way to those who watch at other servers: what gets lost is told as a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.store.making import Clock, put
from tests.valkey_process import Keyspace

from jobwire_server.store.base import Store, StoreUnavailable
from jobwire_server.store.changes import Changes
from jobwire_server.store.redis import telling
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.scripts import WATCHED_FOR
from jobwire_server.store.redis.store import RedisStore

GAP = Changes(is_gap=True)


class Heard:
    """What was told, and a way to wait for more."""

    def __init__(self) -> None:
        self.all: list[Changes] = []
        self._more = asyncio.Event()

    def __call__(self, changes: Changes) -> None:
        self.all.append(changes)
        self._more.set()

    @property
    def ids(self) -> list[str]:
        return [id for changes in self.all for id in changes.changed]

    @property
    def gaps(self) -> int:
        return self.all.count(GAP)

    async def gap(self) -> None:
        async with asyncio.timeout(20):
            while GAP not in self.all:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
async def second(store: Store, keyspace: Keyspace, clock: Clock) -> AsyncIterator[RedisStore]:
    """Another server on the same keys."""
    second = RedisStore(keyspace.url, clock=clock, outage_gap=None)
    await second.open()
    yield second
    await second.close()


async def test_what_any_server_changes_is_told_at_each_that_watches(store: Store, second: RedisStore) -> None:
    here, there = Heard(), Heard()
    await store.watch(here)
    await second.watch(there)
    await put(store, "a")
    await put(second, "b")
    await store.caught_up()
    await second.caught_up()
    assert here.ids == there.ids == ["a", "b"]
    assert here.gaps == there.gaps == 0


async def test_a_call_that_only_rings_a_bell_is_no_gap(store: Store, second: RedisStore) -> None:
    heard = Heard()
    await second.watch(heard)
    await store.put_queue("q", {"paused": True}, create=True)
    await put(store, "j", queue="q")
    await store.put_queue("q", {"paused": False})
    await put(store, "k", queue="q")
    await second.caught_up()
    assert (heard.ids, heard.gaps) == (["j", "k"], 0)


async def test_changes_made_while_nobody_knew_of_a_watcher_are_a_gap(
    store: Store, second: RedisStore, keyspace: Keyspace
) -> None:
    """A server that stood still has not asked for changes for long."""
    heard = Heard()
    await second.watch(heard)
    with keyspace.server.client() as client:
        client.delete(Keys(keyspace.prefix).tag + ":watched")
    await put(store, "unheard")
    assert not heard.all
    await second.caught_up()
    assert (heard.ids, heard.gaps) == ([], 1), "the mark shows what is missing at the end"
    await put(store, "heard")
    await second.caught_up()
    assert (heard.ids, heard.gaps) == (["heard"], 1)


async def test_a_message_that_follows_a_lost_one_is_preceded_by_a_gap(
    store: Store, second: RedisStore, keyspace: Keyspace
) -> None:
    heard = Heard()
    await second.watch(heard)
    with keyspace.server.client() as client:
        client.incr(Keys(keyspace.prefix).tag + ":change")  # somebody's message got lost
    await put(store, "j")
    await second.caught_up()
    assert heard.all[0] == GAP
    assert (heard.ids, heard.gaps) == (["j"], 1)


async def test_a_message_of_somebody_else_is_a_gap_and_breaks_nothing(
    store: Store, second: RedisStore, keyspace: Keyspace
) -> None:
    heard = Heard()
    await second.watch(heard)
    with keyspace.server.client() as client:
        for nonsense in (b"", b"x", b"1\n2", b"1\n[1]\n", b"1\n[[],[],[[]],[]]\n", b"1\n{\n"):
            client.publish(Keys(keyspace.prefix).changes, nonsense)
    await second.caught_up()
    await put(store, "j")
    await second.caught_up()
    assert (heard.ids, heard.gaps) == (["j"], 6)


async def test_a_broken_connection_is_a_gap_and_then_changes_are_heard_again(
    store: Store, second: RedisStore, keyspace: Keyspace
) -> None:
    heard = Heard()
    await second.watch(heard)
    with keyspace.server.client() as client:
        client.client_kill_filter(_type="pubsub")
    await heard.gap()
    await put(store, "j")
    await second.caught_up()
    assert heard.ids == ["j"]


async def test_an_engine_that_comes_back_without_its_last_changes_is_a_gap(
    store: Store, second: RedisStore, keyspace: Keyspace
) -> None:
    heard = Heard()
    await second.watch(heard)
    await put(store, "j")
    await second.caught_up()
    with keyspace.server.client() as client:
        client.decr(Keys(keyspace.prefix).tag + ":change")
    await second.caught_up()
    assert heard.gaps == 1


async def test_changes_are_told_for_as_long_as_somebody_asks_for_them(store: Store, keyspace: Keyspace) -> None:
    with keyspace.server.client() as client:
        watched = Keys(keyspace.prefix).tag + ":watched"
        await put(store, "j")
        assert not client.exists(watched)
        await store.watch(lambda _: None)
        assert 0 < client.pttl(watched) <= WATCHED_FOR // 1000
        client.pexpire(watched, 1_000)
        await store.caught_up()
        assert client.pttl(watched) > 1_000


async def test_who_hears_nothing_says_so(
    store: Store, second: RedisStore, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await second.watch(lambda _: None)
    monkeypatch.setattr(telling, "DEADLINE", 0.1)
    monkeypatch.setattr(telling, "_MARK_AGAIN", 0.01)
    monkeypatch.setattr(telling.Telling, "_heard_mark", lambda *_: None)
    with pytest.raises(StoreUnavailable, match="not heard"):
        await second.caught_up()
