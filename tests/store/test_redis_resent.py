"""A call whose answer was lost is sent again: the cases in which the rows alone do not tell what it had done.

The plain ones, on every verb and with an engine that is killed, stand in tests/faults/test_lost_replies.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.faults.proxy import Fault, Proxy
from tests.store.making import Clock, claim, get, is_there, new_job, put, standing_of, wish
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Guard, Outcome
from jobwire_server.domain.job import JobState, Verb
from jobwire_server.domain.move import Deletion, Move
from jobwire_server.store.base import ClaimOutcome, CreateOutcome, Hints, Store
from jobwire_server.store.redis import calls, scripts
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.link import Link
from jobwire_server.store.redis.route import Route
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.redis.topology import Node

Answer = TypeVar("Answer")


@pytest.fixture
async def proxy(keyspace: Keyspace) -> AsyncIterator[Proxy]:
    async with Proxy(keyspace.server.port) as proxy:
        yield proxy


@pytest.fixture
async def lossy(
    store: Store, proxy: Proxy, keyspace: Keyspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RedisStore]:
    """A second server on the same keys, whose answers may get lost; no answer is that a script is unknown."""

    async def find(_: Route) -> Node:
        host, port = proxy.address.split(":")
        return Node(host, int(port))

    monkeypatch.setattr(Route, "find", find)
    with keyspace.server.client() as client:
        for path in (Path(scripts.__file__).parent / "lua").glob("*.lua"):
            client.script_load(scripts.script(path.stem).source)
    lossy = RedisStore(keyspace.url, clock=clock, outage_gap=None)
    await lossy.open()
    yield lossy
    await lossy.close()


async def losing(proxy: Proxy, call: Callable[[], Awaitable[Answer]]) -> Answer:
    strike = proxy.strike(Fault.LOSE_REPLY, lambda request: b"EVAL" in request)
    answer = await call()
    assert strike.struck.is_set(), "no answer was lost: the test proves nothing"
    return answer


async def test_a_create_with_an_id_of_the_server_is_not_taken_for_a_clash(lossy: RedisStore, proxy: Proxy) -> None:
    batch = [new_job("a", id_given=False), new_job("b"), new_job("b"), new_job("c", request_key=b"k")]
    made = await losing(proxy, lambda: lossy.create(batch))
    assert [each.outcome for each in made] == ["created", "created", "existed", "created"]
    assert [each.standing for each in made[:2]] == [standing_of(await get(lossy, id)) for id in ("a", "b")]
    assert (await lossy.create([new_job("x", request_key=b"k", digest=batch[3].digest)]))[0].job_id == "c"


async def test_a_brief_answer_that_got_lost_is_told_again(lossy: RedisStore, proxy: Proxy) -> None:
    made = await losing(proxy, lambda: lossy.create([new_job("j"), new_job("x", id_given=False)], brief=True))
    assert [(each.outcome, each.job_id) for each in made] == [("created", "j"), ("created", "x")]
    (job, _) = (await claim(lossy, wish(number=2))).jobs
    assert job.token
    done = policy.complete(job.id, job.token, None)
    (moved,) = await losing(proxy, lambda: lossy.move([done], brief=True))
    assert (moved.outcome, (await get(lossy, job.id)).state) == (Outcome.OK, JobState.COMPLETED)


async def test_a_completion_that_removed_its_job_is_ok_and_not_gone(lossy: RedisStore, proxy: Proxy) -> None:
    job = await put(lossy, "j", JobState.IN_PROGRESS, retention=0)
    assert job.token
    done = policy.complete("j", job.token, None)
    (moved,) = await losing(proxy, lambda: lossy.move([done]))
    assert (moved.outcome, moved.standing) == (Outcome.OK, None)
    assert not await is_there(lossy, "j")


async def test_two_moves_of_one_job_in_one_call_answer_as_they_did(lossy: RedisStore, proxy: Proxy) -> None:
    job = await put(lossy, "j")
    moves = [
        Move(job_id="j", verb=Verb.EDIT, guard=Guard(version=version), to=job.state, changes={"priority": priority})
        for version, priority in ((job.version, 1), (job.version + 1, 2), (job.version, 3))
    ]
    moved = await losing(proxy, lambda: lossy.move(moves))
    assert [each.outcome for each in moved] == [Outcome.OK, Outcome.OK, Outcome.STALE]
    assert (await get(lossy, "j")).priority == 2
    assert (await get(lossy, "j")).version == job.version + 2


async def test_a_claim_for_many_workers_finds_what_each_of_them_took(lossy: RedisStore, proxy: Proxy) -> None:
    await lossy.create([new_job(f"j{n}") for n in range(9)])
    wishes = [wish("a", 2), wish("b", 2, delivery=0), wish("a", 2), wish("c", 0)]
    claims = await losing(proxy, lambda: lossy.claim("default", wishes))
    assert [[job.id for job in each.jobs] for each in claims.claimed] == [["j0", "j1"], ["j2", "j3"], ["j4", "j5"], []]
    assert [each.held for each in claims.claimed] == [4, 2, 4, 0]
    assert {each.outcome for each in claims.claimed} == {ClaimOutcome.OK}
    assert claims.remaining == 3


async def test_a_deletion_is_ok_and_not_gone(lossy: RedisStore, proxy: Proxy) -> None:
    lease, waiting = await put(lossy, "lease", JobState.IN_PROGRESS), await put(lossy, "waiting")
    deletions = [Deletion("lease", lease.version), Deletion("none", 1), Deletion("waiting", waiting.version + 1)]
    hints = lossy.hints()
    outcomes = await losing(proxy, lambda: lossy.delete(deletions))
    assert outcomes == [Outcome.OK, Outcome.GONE, Outcome.STALE]
    async with asyncio.timeout(10):
        assert (await anext(hints)).freed == {"w": 1}, "once"
    assert [await is_there(lossy, id) for id in ("lease", "waiting")] == [False, True]


async def test_a_change_of_settings_is_ok_and_not_stale(lossy: RedisStore, proxy: Proxy) -> None:
    await put(lossy, "j")
    changed = await losing(proxy, lambda: lossy.put_queue("default", {"paused": True}, revision=0))
    assert changed.outcome is Outcome.OK
    assert changed.queue
    assert (changed.queue.settings.revision, changed.queue.settings.paused) == (1, True)
    made = await losing(proxy, lambda: lossy.put_queue("new", {"ageing": 7}, create=True))
    assert (made.outcome, made.queue and made.queue.settings.revision) == (Outcome.OK, 1)


async def test_a_deletion_that_comes_after_its_repeat_takes_no_second_life(
    store: RedisStore, keyspace: Keyspace
) -> None:
    job = await put(store, "j")
    call = calls.delete([Deletion("j", job.version)])
    link = store._link
    assert isinstance(link, Link)
    sent = call.arguments.encode()
    assert call.read(await link._evaluate(call, "dead", sent, True)) == [Outcome.OK]
    await put(store, "j")
    assert call.read(await link._evaluate(call, "dead", sent, False)) == [Outcome.OK]
    assert await is_there(store, "j")


async def test_what_was_changed_is_told_although_the_answer_was_lost(lossy: RedisStore, proxy: Proxy) -> None:
    hints = lossy.hints()
    await losing(proxy, lambda: lossy.create([new_job("j")]))
    async with asyncio.timeout(10):
        assert await anext(hints) == Hints(queued={"default": 1})


async def twice(keyspace: Keyspace, store: RedisStore, call: scripts.Call[Any]) -> tuple[Any, Any]:
    """What the call answers as a repeat, and what its first sending does that was held up on its way meanwhile."""
    link = store._link
    assert isinstance(link, Link)
    sent = call.arguments.encode()
    repeated = await link._evaluate(call, "0123456789abcdef", sent, True)
    late = await link._evaluate(call, "0123456789abcdef", sent, False)
    return call.read(repeated), call.read(late)


async def test_a_first_sending_that_comes_after_its_repeat_takes_no_second_job(
    store: RedisStore, keyspace: Keyspace
) -> None:
    await store.create([new_job(id) for id in "ab"])
    first, late = await twice(keyspace, store, calls.claim("default", [wish("w", 1, max_in_flight=9)]))
    assert first.claimed[0].jobs == late.claimed[0].jobs
    assert late.claimed[0].held == 1


async def test_a_first_sending_that_comes_after_a_repeat_that_found_nothing_takes_nothing(
    store: RedisStore, keyspace: Keyspace
) -> None:
    link = store._link
    assert isinstance(link, Link)
    call = calls.claim("default", [wish()])
    assert call.read(await link._evaluate(call, "fedc", call.arguments.encode(), True)).claimed[0].jobs == []
    await store.create([new_job("j")])
    assert call.read(await link._evaluate(call, "fedc", call.arguments.encode(), False)).claimed[0].jobs == []
    assert len((await claim(store)).jobs) == 1


async def test_a_create_that_comes_after_its_repeat_brings_no_finished_job_back(
    store: RedisStore, keyspace: Keyspace
) -> None:
    link = store._link
    assert isinstance(link, Link)
    call = calls.create([new_job("j", retention=0)])
    await link._evaluate(call, "abcd", call.arguments.encode(), True)
    (job,) = (await claim(store)).jobs
    assert job.token
    await store.move([policy.complete("j", job.token, None)])
    (late,) = call.read(await link._evaluate(call, "abcd", call.arguments.encode(), False))
    assert (late.outcome, late.job) == (CreateOutcome.CREATED, None)
    assert not await is_there(store, "j")


async def test_what_calls_did_is_forgotten_by_itself(store: Store, keyspace: Keyspace) -> None:
    await store.create([new_job("j")])
    with keyspace.server.client() as client:
        (key,) = client.scan_iter(f"{Keys(keyspace.prefix).tag}:call:*")
        assert 0 < client.pttl(key) <= scripts.RESENT_WITHIN // 1000


async def test_a_caller_that_goes_away_stops_nothing(store: RedisStore) -> None:
    calling = asyncio.create_task(store.create([new_job("j")]))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await store.close()
    await store.open()
    assert await is_there(store, "j")
