"""What a job costs in Redis and how its keys look. That no key is left behind is looked at after every test."""

from __future__ import annotations

from hashlib import sha256

import pytest
from tests.store.making import START, Clock, claim, get, new_job, put
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, SECOND, JobError, JobState, RetryPolicy
from jobwire_server.store.base import Renewal, Store
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.store import RedisStore


def size_of_record(keyspace: Keyspace, id: str) -> int:
    with keyspace.server.client() as client:
        size: int = client.strlen(f"{Keys(keyspace.prefix).tag}:job:{id}")
    return size


async def test_every_key_bears_the_tag_of_its_prefix(keyspace: Keyspace) -> None:
    store = RedisStore(keyspace.url)
    await store.open()  # here, not in a fixture: Valkey, being a Cluster, lets nobody write a key of another tag
    await store.create([new_job("j", user_id="ann", request_key=b"k")])
    await claim(store)
    await store.close()
    with keyspace.server.client() as client:
        keys = client.keys()
    assert len(keys) > 5
    assert {key.partition(b"}")[0] for key in keys} == {f"{{{keyspace.prefix}:0".encode()}


async def test_whatever_may_grow_stands_beside_the_record(store: Store, clock: Clock, keyspace: Keyspace) -> None:
    """Each change writes the record anew."""
    id = "j" * 128
    asked = new_job(
        id,
        type="t" * 64,
        user_id="u" * 64,
        submission=b"x" * 10_000,
        retry=RetryPolicy(7, SECOND, 1.5, DAY, 0.25, 9),
        execution_timeout=DAY,
        retention=DAY,
        schedule_time=START - 1,
        expire_time=START + DAY,
        request_key=b"k" * 32,
    )
    await store.create([asked])
    assert 0 < size_of_record(keyspace, id) < 700
    error = JobError("E" * 100, "broke " * 1000, (("k", "v" * 100),))
    for _ in range(3):
        (job,) = (await claim(store)).jobs
        assert job.token
        (renewed,) = await store.renew([Renewal(job_id=id, token=job.token, fraction=1 / 3, message="m" * 256)])
        assert renewed.outcome is Outcome.OK
        running = await get(store, job.id)
        cancel = policy.cancel(running, reason="r" * 256, grace=DAY, etag=None, now=clock.now)
        assert cancel
        failed = policy.fail(running, job.token, error, permanent=False, retry_delay=0, now=clock.now, random=0.5)
        assert [moved.outcome for moved in await store.move([failed])] == [Outcome.OK]
        assert await store.promote(limit=1) == 1
    (job,) = (await claim(store)).jobs
    assert job.token
    await store.move([policy.complete(id, job.token, b"r" * 10_000)])
    assert 0 < size_of_record(keyspace, id) < 1200


async def test_what_a_queued_job_costs_is_printed(store: Store, keyspace: Keyspace) -> None:
    """Page 6 wants 900 B at most and aims at 600 B; a figure of one machine is no assertion."""
    ids = [f"0190c7b2-7d3e-7c1a-9f00-{number:012d}" for number in range(1000)]
    with keyspace.server.client() as client:
        before = client.info("memory")["used_memory"]
        await store.create([new_job(id, submission=b"x" * 200, digest=sha256(id.encode()).digest()) for id in ids])
        after = client.info("memory")["used_memory"]
        tag = Keys(keyspace.prefix).tag
        record, spec = (client.memory_usage(f"{tag}:{kind}:{ids[0]}") for kind in ("job", "spec"))
        index = client.memory_usage(f"{tag}:q:default:queued", samples=0) / len(ids)
        requests = client.keys(f"{tag}:call:*")
    print(  # noqa: T201  # a figure to look at: pytest -rP
        f"a queued job: record {record} + submission {spec} + index {index:.0f} B;"
        f" {(after - before) / len(ids):.0f} B in all"
    )
    assert len(requests) == 2, "one for each part of the batch"


@pytest.mark.parametrize("user", ["ann", "*", "a b", "{x}:job:j", "𝕁", "\r\n"])
async def test_text_of_users_reaches_a_key_hashed_only(store: Store, keyspace: Keyspace, user: str) -> None:
    await store.create([new_job("j", user_id=user, type=user, request_key=user.encode(), retention=0)])
    with keyspace.server.client() as client:
        keys = sorted(key.decode() for key in client.scan_iter(count=1000))
    assert not [key for key in keys if user in key.removeprefix(f"{{{keyspace.prefix}:0}}:")]
    (job,) = (await claim(store)).jobs
    assert job.token
    await store.move([policy.complete("j", job.token, None)])
    with keyspace.server.client() as client:
        assert not list(client.scan_iter(f"{Keys(keyspace.prefix).tag}:u:*"))


async def test_an_entry_of_no_job_does_not_hold_up_its_queue(store: Store, clock: Clock, keyspace: Keyspace) -> None:
    """A key that somebody deleted by hand must not stop the jobs behind it."""
    await put(store, "gone", submission=b"x")
    await put(store, "later", JobState.SCHEDULED, schedule_time=START + SECOND)
    await put(store, "here")
    tag = Keys(keyspace.prefix).tag
    with keyspace.server.client() as client:
        client.delete(*(f"{tag}:{kind}:{id}" for kind in ("job", "spec") for id in ("gone", "later")))
    assert (await claim(store)).jobs == []
    assert [job.id for job in (await claim(store)).jobs] == ["here"]
    clock.advance(10**7)
    assert await store.promote(limit=9) == 0
