"""A store with a job for each thing that can be broken, before anything is."""

from __future__ import annotations

from tests.store.making import START, claim, move, new_job, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, JobError
from jobwire_server.store.base import Store


async def stock(store: Store, now: int = START) -> None:
    """`done` at its second attempt, `held` and `held2` by w, `waits` of ann, and `later`, which may expire."""
    await store.create([new_job("done", submission=b"x")])
    (job,) = (await claim(store)).jobs
    assert job.token
    failed = policy.fail(job, job.token, JobError("E", ""), permanent=False, retry_delay=0, now=now, random=0)
    assert await move(store, failed) is Outcome.OK
    await store.promote(limit=1)
    (job,) = (await claim(store)).jobs
    assert job.token
    assert await move(store, policy.complete("done", job.token, b"result" * 100)) is Outcome.OK
    await store.create([new_job("held"), new_job("held2")])
    assert len((await claim(store, wish("w", 2))).jobs) == 2
    await store.create([new_job("waits", user_id="ann", request_key=b"key", submission=b"x")])
    await store.create([new_job("later", schedule_time=now + 1000 * SECOND, expire_time=now + 2000 * SECOND)])
