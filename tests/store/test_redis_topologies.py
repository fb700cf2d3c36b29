"""Engines that stand in for each other: calls go to the primary, wherever it is, and what was acknowledged is there."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Connection as RedisConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from tests.conftest import missing
from tests.store import invariants
from tests.store.making import claim, new_job, wish
from tests.valkey_process import ValkeyProcess, redis_binary, running, valkey_binary
from tests.valkey_topologies import Cluster, Sentinels, as_cluster, node_id, until, with_sentinels

from jobwire_server.domain import policy
from jobwire_server.domain.queue import QueueChanges
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import CannotOpen, CreateOutcome, Renewal, StoreUnavailable
from jobwire_server.store.redis import link, looking, route
from jobwire_server.store.redis.connection import Connection
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.repair import RedisRepair
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.redis.topology import Node, parse

SLOT: Final = key_slot(Keys("jw").meta.encode())

PATIENCE: Final = 60

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def binary(engine: str) -> Path:
    found = valkey_binary() if engine == "valkey" else redis_binary()
    assert found is not None, "the engines that are missing are skipped before"
    return found


@pytest.fixture
def sentinels(binary: Path, tmp_path: Path) -> Iterator[Sentinels]:
    with with_sentinels(binary, tmp_path) as started:
        yield started


@pytest.fixture
def cluster(binary: Path, tmp_path: Path) -> Iterator[Cluster]:
    with as_cluster(binary, tmp_path, key=Keys("jw").meta) as started:
        yield started


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Load:
    """Creates one job after the other, each until it is acknowledged."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._changed = asyncio.Event()
        self.acknowledged: list[str] = []

    async def run(self) -> None:
        while True:
            id = f"j{len(self.acknowledged):05}"
            while True:
                try:
                    await self._store.create([new_job(id)])
                    break
                except StoreUnavailable:
                    continue
            self.acknowledged.append(id)
            self._changed.set()

    async def more(self, jobs: int = 50) -> list[str]:
        """Returns when so many have been acknowledged from now on; answers which."""
        start = len(self.acknowledged)
        async with asyncio.timeout(PATIENCE):
            while len(self.acknowledged) < start + jobs:
                self._changed.clear()
                await self._changed.wait()
        return self.acknowledged[start:]


@asynccontextmanager
async def under_load(store: RedisStore) -> AsyncIterator[Load]:
    load = Load(store)
    running = asyncio.create_task(load.run())
    try:
        await load.more()
        yield load
    finally:
        running.cancel()
        await asyncio.wait([running])


async def check_all_there(url: str, ids: list[str]) -> None:
    async with opened(url) as other:
        found = (await other.get(ids)).jobs
    assert [job.id for job in found if job is not None] == ids
    assert await asyncio.to_thread(invariants.broken_at, url) == []


def has_taken_over(engines: Sentinels | Cluster, old: ValkeyProcess) -> bool:
    """Another than the old one is the primary."""
    try:
        return engines.primary is not old
    except ValueError:  # nobody is, just now
        return False


def is_left_but_for_the_primary(engines: Sentinels | Cluster) -> bool:
    """On a busy machine the first may have taken over again."""
    try:
        primary = engines.primary
    except ValueError:
        return False
    return all(is_left(each) for each in engines.processes if each is not primary)


def is_left(engine: ValkeyProcess) -> bool:
    """No server has a connection to it."""
    with engine.client() as client:
        return not [each for each in client.client_list() if each["name"] == "jobwire"]


async def check_failover(engines: Sentinels | Cluster, how: str) -> None:
    url = f"{engines.url}?replicas=1"
    async with opened(url) as store, opened(url) as other, under_load(store) as load:
        assert (await store.info()).durability == "replicated"
        old, hints = engines.primary, other.hints()
        if how == "killed":
            old.kill()
        else:
            engines.fail_over()
        await asyncio.to_thread(until, lambda: has_taken_over(engines, old), "another takes over")
        if how == "killed":
            old.start()
        await load.more()
        async with asyncio.timeout(PATIENCE):
            while (await anext(hints)).queued != {"elsewhere": 1}:
                await other.create([new_job(f"hint-{os.urandom(4).hex()}", queue="elsewhere")])
        await asyncio.to_thread(until, lambda: is_left_but_for_the_primary(engines), "all have left")
    await check_all_there(url, load.acknowledged)


# --- failover -----------------------------------------------------------------------------------------------


async def test_what_sentinels_agree_on_is_followed_and_nothing_acknowledged_is_lost(sentinels: Sentinels) -> None:
    await check_failover(sentinels, "killed")


async def test_a_primary_is_left_before_it_learns_that_it_is_none_any_more(sentinels: Sentinels) -> None:
    """Sentinels tell it eight seconds later, and what it was told till then is lost."""
    async with opened(sentinels.url) as store, under_load(store) as load:
        old = sentinels.primary
        sentinels.fail_over()
        await asyncio.to_thread(until, lambda: has_taken_over(sentinels, old), "another takes over")
        await asyncio.to_thread(until, lambda: is_left(old), "all have left")
        with old.client() as client:
            assert client.role()[0] == b"master", "it was told, and has closed the connections itself"
        later = await load.more()
    await check_all_there(sentinels.url, later)


@pytest.mark.parametrize("how", ["asked for", "killed"])
async def test_a_slot_that_another_node_takes_over_is_followed_and_nothing_acknowledged_is_lost(
    cluster: Cluster, how: str
) -> None:
    await check_failover(cluster, how)


async def test_a_primary_that_falls_silent_is_left_and_not_returned_to(
    sentinels: Sentinels, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(sentinels.url) as store, under_load(store) as load:
        old = sentinels.primary
        sentinels.sentinels[2].kill()  # two will do
        os.kill(old.pid, signal.SIGSTOP)
        await asyncio.to_thread(until, lambda: has_taken_over(sentinels, old), "another takes over")
        later = await load.more()
        os.kill(old.pid, signal.SIGCONT)
        later += await load.more(200)
    missed = [record for record in caplog.records if record.name == link.__name__ and record.levelname == "WARNING"]
    assert missed, "nothing was under way when it fell silent"
    await check_all_there(sentinels.url, later[1:])  # the first may have been sent before


async def test_what_the_sentinels_name_is_no_primary_before_it_says_so_itself(sentinels: Sentinels) -> None:
    primary, replica = sentinels.primary, sentinels.replica
    with primary.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", replica.port)
    with pytest.raises(RedisConnectionError, match="is none yet"):
        await Route(parse(sentinels.url)).open(Connection(lambda _: None, lambda _: None))


async def test_an_engine_that_becomes_a_replica_is_unavailable_until_it_is_none(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody says who else is the primary."""
    with running(binary, tmp_path) as engine, engine.client() as client:
        async with opened(engine.url) as store:
            with monkeypatch.context() as patch:
                patch.setattr(link, "DEADLINE", 0.1)
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                with pytest.raises(StoreUnavailable, match="ReadOnlyError"):
                    await store.create([new_job("j")])
            client.execute_command("REPLICAOF", "NO", "ONE")
            (created,) = await store.create([new_job("j")])
    assert created.outcome is CreateOutcome.CREATED


@pytest.mark.parametrize("silent", [(), ("b",)], ids=["all are slow", "one never answers"])
async def test_whoever_says_where_the_primary_is_is_waited_for_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, silent: tuple[str, ...]
) -> None:
    async def ask(told: RedisConnection, *_: str) -> Any:
        await asyncio.sleep(PATIENCE if told.host in silent else 0.05)
        return [[0, 16383, [b"primary", 1]]]

    monkeypatch.setattr(route, "ask", ask)
    monkeypatch.setattr(route, "_TOLD_WITHIN", 0.1 if silent else 0.001)
    async with asyncio.timeout(PATIENCE / 2):
        assert await Route(parse("redis+cluster://a,b")).find() == Node("primary", 1)


# --- replicas -----------------------------------------------------------------------------------------------


async def test_what_too_few_replicas_have_is_acknowledged_to_nobody(
    sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not to whoever repeats it either, on a connection that has written nothing itself. What only reads is answered,
    and does not make the log say that all is well."""
    caplog.set_level("INFO", link.__name__)
    monkeypatch.setattr(link, "DEADLINE", 1.5)
    url = f"{sentinels.url}?replicas=1"
    async with opened(url) as store, opened(url) as other:
        await store.create([new_job("before")])
        replica = sentinels.replica
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await store.create([new_job("j")])
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await other.create([new_job("j")])
            assert (await store.get(["before"])).jobs[0] is not None
            assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"], "one for each store"
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        await asyncio.to_thread(sentinels.until_whole)
        (again,) = await other.create([new_job("j")])
    assert again.outcome is CreateOutcome.EXISTED
    assert caplog.records[-1].getMessage().endswith("answers again")
    with replica.client() as client:
        assert client.exists(f"{Keys('jw').tag}:job:j")


# --- a slot that moves --------------------------------------------------------------------------------------


@contextmanager
def moving(source: ValkeyProcess, target: ValkeyProcess) -> Iterator[Callable[[int], bool]]:
    """While the slot moves, as `redis-cli --cluster reshard` does it; call it to take so many keys along: whether any
    are left."""
    with source.client() as here, target.client() as there:
        there.execute_command("CLUSTER", "SETSLOT", SLOT, "IMPORTING", node_id(source))
        here.execute_command("CLUSTER", "SETSLOT", SLOT, "MIGRATING", node_id(target))

        def take(keys: int) -> bool:
            found: list[bytes] = here.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, keys)
            if found:
                here.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *found)
            return bool(found)

        yield take
        while take(100):
            pass
        for client in (there, here):
            client.execute_command("CLUSTER", "SETSLOT", SLOT, "NODE", node_id(target))


def content(*nodes: ValkeyProcess) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for node in nodes:
        with node.client() as client:
            keys: list[bytes] = client.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 10_000)
            for key in keys:
                pipeline = client.pipeline(transaction=False)
                pipeline.execute_command("ASKING")
                pipeline.dump(key)
                found[key] = pipeline.execute()[1]
    return found


async def test_while_a_slot_moves_key_by_key_calls_are_refused_whole(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(cluster.url) as store:
        await store.create([new_job(f"j{n}", submission=b"x" * 100) for n in range(100)])
        (job,) = (await claim(store)).jobs
        assert job.token
        later = new_job("later", schedule_time=1)
        verbs: dict[str, Callable[[], Any]] = {
            "create": lambda: store.create([new_job("new", user_id="ann", queue="new")]),
            "get": lambda: store.get(["j1"]),
            "claim": lambda: store.claim("default", [wish("v")]),
            "complete": lambda: store.move([policy.complete(job.id, job.token or b"", b"done")]),
            "renew": lambda: store.renew([Renewal(job_id=job.id, token=job.token or b"", fraction=0.5)]),
            "put_queue": lambda: store.put_queue("another", QueueChanges(paused=True), create=True),
            "beat": lambda: store.beat(WorkerInfo(id="v")),
            "later": lambda: store.create([later]),
        }
        source, (target, _) = cluster.primary, cluster.others
        with monkeypatch.context() as patch, moving(source, target) as take:
            patch.setattr(link, "DEADLINE", 0.05)
            for taken in range(6):
                before = content(source, target)
                for name, verb in verbs.items():
                    (answer,) = await asyncio.gather(*[verb()], return_exceptions=True)
                    assert isinstance(answer, StoreUnavailable), f"{name} after {taken} bites: {answer!r}"
                assert content(source, target) == before, "a refused call has changed something"
                assert take(40), "nothing is left to be on its way"
        assert cluster.primary is target
        async with asyncio.timeout(PATIENCE):
            assert [moved.outcome for moved in await store.move([policy.complete(job.id, job.token, b"done")])] == [
                "ok"
            ]
        await store.create([new_job("after")])
    await check_all_there(cluster.url, [f"j{n}" for n in range(100)] + ["after"])


async def test_while_a_slot_moves_key_by_key_nothing_is_mended(cluster: Cluster) -> None:
    """What has gone ahead is not there any more: a job without its record, an entry of no job."""
    async with opened(cluster.url) as store:
        await store.create([new_job(f"j{n}", user_id="ann", submission=b"x" * 100) for n in range(50)])
    source, (target, _) = cluster.primary, cluster.others
    with source.client() as client, moving(source, target) as take:
        client.delete(f"{Keys('jw').tag}:q:default:queued")
        for _ in range(4):
            before = content(source, target)
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(RedisRepair(cluster.url).run, lambda _: None)
            with pytest.raises(ResponseError):  # also where the slot begins to move after the looks
                looking.call(client, "mend", Keys("jw"), [[[2, False, [], []]], [7], []], b"j1default")
            assert content(source, target) == before
            assert take(25), "nothing is left to be on its way"
    await asyncio.to_thread(RedisRepair(cluster.url).run, lambda _: None)
    await check_all_there(cluster.url, [f"j{n}" for n in range(50)])


async def test_a_slot_that_moves_as_a_whole_is_followed(tmp_path: Path) -> None:
    """As Valkey does it from 9 on."""
    if (binary := valkey_binary()) is None:
        pytest.skip(missing("valkey"))
    with as_cluster(binary, tmp_path, key=Keys("jw").meta) as cluster:
        async with opened(cluster.url) as store, under_load(store) as load:
            source, (target, _) = cluster.primary, cluster.others
            with source.client() as client:
                client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SLOT, SLOT, "NODE", node_id(target))
            await asyncio.to_thread(until, lambda: cluster.primary is target, "the slot has moved")
            await load.more()
        await check_all_there(cluster.url, load.acknowledged)


# --- what a URL says wrongly --------------------------------------------------------------------------------


async def test_an_engine_that_is_something_else_than_the_url_says_is_named_as_what_it_is(
    sentinels: Sentinels, binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "DEADLINE", 0.1)
    node = tmp_path / "node"
    node.mkdir()
    with running(binary, node, cluster=True) as member:
        for port, scheme, said in (
            (sentinels.sentinels[0].port, "redis", "is a Sentinel"),
            (sentinels.replica.port, "redis", f"is a replica of 127.0.0.1:{sentinels.primary.port}"),
            (member.port, "redis", "is a node of a cluster"),
            (member.port, "redis+cluster", f"nobody has slot {SLOT}"),
            (sentinels.primary.port, "redis+cluster", "cluster support disabled"),
        ):
            with pytest.raises(CannotOpen, match=said):
                await RedisStore(f"{scheme}://127.0.0.1:{port}").open()
        with pytest.raises(CannotOpen, match="No such master"):
            await RedisStore(sentinels.url.replace("/jobs", "/another")).open()
