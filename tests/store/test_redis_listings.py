"""What listings cost the engine, and what stands in their way there."""

from __future__ import annotations

import pytest
from tests.store.making import START, Clock, claim, get, ids, new_job, put, queue, shove_all, stock, walk
from tests.valkey_process import Keyspace

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import HOUR, SECOND, JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.store.base import Store
from jobwire_server.store.redis.keys import Keys

SCHEDULED = JobFilter(queues=frozenset({"default"}), states=frozenset({JobState.SCHEDULED}))
ANN = JobFilter(user_id="ann")


@pytest.mark.parametrize("wanted", [SCHEDULED, ANN], ids=["of a state", "of a user"])
async def test_going_on_behind_a_job_that_has_gone_looks_at_few_of_its_score(
    store: Store, keyspace: Keyspace, wanted: JobFilter
) -> None:
    """A batch scheduled for midnight: skipping over it, page by page, would be quadratic."""
    await stock(store, 3000, schedule_time=START + HOUR, user_id="ann")
    gone = await get(store, "j1500")
    await store.delete([Deletion("j1500", gone.version)])
    with keyspace.server.client() as client:
        client.config_resetstat()
        found = await store.find(wanted, after=wanted.position_of(gone), limit=1)
        calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
    assert ids(found.jobs) == ["j1499" if wanted is ANN else "j1501"]
    assert 0 < calls["cmdstat_zrange"] < 16, "halving 3,000 takes 12"
    assert calls["cmdstat_mget"] == 1, "only what matches is loaded"


async def test_a_place_of_any_score_and_id_is_one(store: Store) -> None:
    """Page tokens come from callers: they may say anything that fits."""
    await stock(store, 3, schedule_time=START + HOUR)
    for score in (-(2**63), -1, 0, 2**63 - 1):
        for id in ("", "j0001", "z" * 128):
            for where in ("default", "a", "z"):
                at = Position(where, JobState.SCHEDULED, score, id)
                is_before = where == "a" or (where == "default" and score <= 0)
                assert len(await walk(store, SCHEDULED, after=at)) == (3 if is_before else 0), at


async def test_entries_of_no_job_and_of_jobs_that_stand_elsewhere_are_passed_over(
    store: Store, keyspace: Keyspace
) -> None:
    await put(store, "here", user_id="ann")
    await put(store, "elsewhere", queue="other", user_id="bob")
    tag = Keys(keyspace.prefix).tag
    strays = {"gone": START, "elsewhere": START}
    with keyspace.server.client() as client:
        (user,) = (key for key in client.scan_iter(f"{tag}:u:*") if client.zscore(key, "here"))
        for index in (f"{tag}:q:default:queued", user):
            client.zadd(index, strays)
        for wanted in (JobFilter(queues=frozenset({"default"})), ANN):
            assert ids((await store.find(wanted, limit=9)).jobs) == ["here"]
            assert (await store.count(JobFilter(user_id=wanted.user_id, created_from=0))).by_state == {
                JobState.QUEUED: 1 if wanted.user_id else 2
            }
        assert (await queue(store)).head_queue_time == (await get(store, "here")).queue_time
        for index in (f"{tag}:q:default:queued", user):
            client.zrem(index, *strays)


async def test_the_head_of_a_queue_is_the_first_that_has_not_expired(store: Store, clock: Clock) -> None:
    await put(store, "late", expire_time=START + SECOND, priority=1)
    clock.advance(1)
    job = await put(store, "next")
    assert (await queue(store)).head_queue_time == job.queue_time
    assert ids((await claim(store)).jobs) == ["next"]


async def test_a_purge_looks_into_some_of_very_many_queues_and_in_time_into_all(
    store: Store, clock: Clock, keyspace: Keyspace
) -> None:
    names = [f"j{n}" for n in range(1500)]
    await store.create([new_job(id, queue=f"q-{id}", retention=1) for id in names])
    await shove_all(store, dict.fromkeys(names[::15], JobState.CANCELED))
    clock.advance(1)
    with keyspace.server.client() as client:
        client.config_resetstat()
        purged = await store.purge(limit=500)
        assert client.info("commandstats")["cmdstat_zrangebyscore"]["calls"] == 4 * 1000, "four states of each queue"
    for _ in range(400):
        if purged == 100:
            return
        purged += await store.purge(limit=500)
    raise AssertionError(f"{purged} of 100 were purged")


async def test_the_registry_is_read_in_bites_of_any_size(store: Store, keyspace: Keyspace) -> None:
    names = sorted(f"q{n}" for n in range(1203))
    await store.create([new_job(f"j-{name}", queue=name) for name in names])
    assert [each.settings.name for each in (await store.queues(limit=5000)).queues] == names
    assert [each.settings.name for each in (await store.queues(after="q5", limit=700)).queues] == [
        name for name in names if name > "q5"
    ][:700]
    with keyspace.server.client() as client:
        client.sadd(f"{Keys(keyspace.prefix).tag}:workers", "half", b"\xff")
        assert (await store.workers()).workers == [], "what is listed only is none"
        client.delete(f"{Keys(keyspace.prefix).tag}:workers")
