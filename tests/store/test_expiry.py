"""`expire_time`: whoever has not been started by then is not handed out any more, and is ended by the sweeper."""

from __future__ import annotations

import pytest
from tests.store.making import (
    START,
    Clock,
    claim,
    get,
    ids,
    is_there,
    move,
    new_job,
    put,
    queue,
    rang,
    shove,
    wish,
)

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, HOUR, MINUTE, SECOND, Job, JobState
from jobwire_server.domain.move import Deletion, JobChanges
from jobwire_server.store.base import Hints, Renewal, Store

EXPIRY = START + MINUTE


async def overdue(store: Store) -> list[str | None]:
    return ids((await store.overdue(limit=99)).jobs)


async def expire(store: Store, id: str) -> Outcome:
    return await move(store, policy.expire(await get(store, id)))


async def edited(store: Store, clock: Clock, job: Job, changes: JobChanges) -> Job:
    assert await move(store, policy.edit(job, changes, payload=False, etag=None, now=clock.now)) is Outcome.OK
    return await get(store, job.id)


@pytest.mark.parametrize("schedule_time", [None, START + DAY])
async def test_a_job_is_expired_at_its_time_and_not_before(
    store: Store, clock: Clock, schedule_time: int | None
) -> None:
    await put(store, "j", expire_time=EXPIRY, schedule_time=schedule_time, retention=HOUR)
    clock.now = EXPIRY - 1
    assert await overdue(store) == []
    clock.now = EXPIRY
    assert await overdue(store) == ["j"]
    assert await expire(store, "j") is Outcome.OK
    job = await get(store, "j")
    assert (job.state, job.finish_time, job.purge_time) == (JobState.EXPIRED, EXPIRY, EXPIRY + HOUR)
    assert (job.expire_time, job.start_time, job.attempt) == (EXPIRY, None, 0)
    assert await overdue(store) == []
    clock.now += HOUR
    assert await store.purge(limit=9) == 1


async def test_a_claim_takes_a_job_until_its_time_and_not_from_then_on(store: Store, clock: Clock) -> None:
    await store.create([new_job("a", expire_time=EXPIRY), new_job("b", expire_time=EXPIRY)])
    clock.now = EXPIRY - 1
    assert ids((await claim(store)).jobs) == ["a"]
    clock.now = EXPIRY
    assert (await claim(store)).jobs == []
    assert (await get(store, "b")).state is JobState.QUEUED, "the claim leaves it to the sweeper"


async def test_expired_jobs_in_the_midst_of_a_queue_are_left_where_they_are(store: Store, clock: Clock) -> None:
    for n in range(9):
        await put(store, f"j{n}", expire_time=EXPIRY if n % 3 == 1 else None)
    clock.now = EXPIRY
    claims = await store.claim("default", [wish("v", 3), wish("w", 2)])
    assert [ids(each.jobs) for each in claims.claimed] == [["j0", "j2", "j3"], ["j5", "j6"]]
    assert await overdue(store) == ["j1", "j4", "j7"]


async def test_an_expired_job_that_nobody_has_swept_yet_counts_as_waiting(store: Store, clock: Clock) -> None:
    await put(store, "j", expire_time=EXPIRY)
    clock.now = EXPIRY
    assert (await store.count(JobFilter())).by_state == {JobState.QUEUED: 1}
    await expire(store, "j")
    assert (await store.count(JobFilter())).by_state == {JobState.EXPIRED: 1}
    assert (await queue(store)).head_queue_time is None


@pytest.mark.parametrize("acknowledged_by", ["claim", "renewal", "settlement"])
async def test_a_job_that_was_started_never_expires(store: Store, clock: Clock, acknowledged_by: str) -> None:
    await put(store, "j", expire_time=EXPIRY)
    (job,) = (await claim(store, wish(delivery=0 if acknowledged_by == "claim" else 10))).jobs
    token = job.token or b""
    if acknowledged_by == "renewal":
        await store.renew([Renewal(job_id="j", token=token)])
        job = await get(store, "j")
    release = policy.release(job, token, delay=0, now=clock.now, random=0)
    assert await move(store, release) is Outcome.OK
    clock.now = EXPIRY + DAY
    assert await overdue(store) == []
    assert ids((await claim(store)).jobs) == ["j"]


async def test_a_delivery_that_came_back_still_expires(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS, expire_time=EXPIRY)
    clock.now = EXPIRY
    assert await overdue(store) == ["j"], "its delivery has run out"
    assert await move(store, policy.reap(job, now=clock.now, random=0)) is Outcome.OK
    assert await overdue(store) == ["j"], "and so has its time"
    assert (await claim(store, wish("v"))).jobs == []
    assert await expire(store, "j") is Outcome.OK


async def test_a_job_on_its_way_to_a_worker_does_not_expire(store: Store, clock: Clock) -> None:
    job = await put(store, "j", expire_time=EXPIRY)
    clock.now = EXPIRY - 1
    await claim(store)
    clock.now = EXPIRY
    assert await overdue(store) == []
    assert await move(store, policy.expire(job)) is Outcome.STALE
    assert (await get(store, "j")).state is JobState.IN_PROGRESS


async def test_an_edited_time_is_the_one_that_counts(store: Store, clock: Clock) -> None:
    names = ("sooner", "later", "never", "newly")
    jobs = {id: await put(store, id, expire_time=None if id == "newly" else EXPIRY) for id in names}
    await edited(store, clock, jobs["sooner"], {"expire_time": START + 1})
    await edited(store, clock, jobs["later"], {"expire_time": EXPIRY + SECOND})
    await edited(store, clock, jobs["never"], {"expire_time": None})
    await edited(store, clock, jobs["newly"], {"expire_time": START + 2})
    clock.now = START + 2
    assert await overdue(store) == ["sooner", "newly"]
    clock.now = EXPIRY
    assert ids((await claim(store, wish(number=9))).jobs) == ["later", "never"]
    clock.now = EXPIRY + SECOND
    assert set(await overdue(store)) >= {"sooner", "newly"}


async def test_an_expired_job_that_is_given_more_time_is_handed_out_again(store: Store, clock: Clock) -> None:
    job = await put(store, "j", expire_time=EXPIRY)
    clock.now = EXPIRY
    job = await edited(store, clock, job, {"expire_time": EXPIRY + 1})
    assert await overdue(store) == []
    assert ids((await claim(store)).jobs) == ["j"]
    late = policy.expire(job)
    assert await move(store, late) is Outcome.STALE


@pytest.mark.parametrize("to", [JobState.CANCELED, JobState.FAILED])
async def test_what_has_ended_otherwise_does_not_expire(store: Store, clock: Clock, to: JobState) -> None:
    await put(store, "j", expire_time=EXPIRY)
    await shove(store, "j", to)
    await put(store, "gone", expire_time=EXPIRY)
    await store.delete([Deletion("gone", 1)])
    clock.now = EXPIRY
    assert await overdue(store) == []
    assert not await is_there(store, "gone")


async def test_a_replay_of_an_expired_job_has_no_end_of_time(store: Store, clock: Clock) -> None:
    await put(store, "j", expire_time=EXPIRY)
    clock.now = EXPIRY
    await expire(store, "j")
    assert await move(store, policy.replay(await get(store, "j"), etag=None)) is Outcome.OK
    clock.now += DAY
    assert await overdue(store) == []
    job = await get(store, "j")
    assert (job.expire_time, job.finish_time, job.state) == (None, None, JobState.QUEUED)
    assert ids((await claim(store)).jobs) == ["j"]


async def test_an_expired_job_in_a_paused_queue_expires(store: Store, clock: Clock) -> None:
    await put(store, "j", expire_time=EXPIRY)
    await store.put_queue("default", {"paused": True})
    clock.now = EXPIRY
    assert await overdue(store) == ["j"]
    assert await expire(store, "j") is Outcome.OK


async def test_a_promoted_job_keeps_its_time(store: Store, clock: Clock) -> None:
    await put(store, "j", schedule_time=START + 1, expire_time=EXPIRY)
    clock.now = EXPIRY
    await store.promote(limit=9)
    assert await overdue(store) == ["j"]
    assert (await claim(store)).jobs == []


async def test_only_a_claim_that_met_an_expired_job_calls_the_sweeper(store: Store, clock: Clock) -> None:
    await store.create([new_job("a", expire_time=EXPIRY), new_job("b", expire_time=EXPIRY)])
    clock.now = EXPIRY - 1
    hints = store.hints()
    await claim(store)
    assert await rang(store, hints) == Hints()
    clock.now = EXPIRY
    hints = store.hints()
    await claim(store)
    assert await rang(store, hints) == Hints(expired_seen=True)
