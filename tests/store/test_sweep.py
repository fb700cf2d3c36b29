from __future__ import annotations

from collections.abc import Callable

from tests.store.making import START, Clock, claim, get, is_there, move, new_job, put, shove, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, MINUTE, SECOND, Job, JobError, JobState
from jobwire_server.store.base import CreateOutcome, Renewal, Store


async def test_due_jobs_are_promoted_in_all_queues_in_the_order_of_their_due_times(store: Store, clock: Clock) -> None:
    for id, seconds, queue in (("c", 3, "default"), ("a", 1, "default"), ("b", 2, "other"), ("z", 9, "default")):
        await store.create([new_job(id, schedule_time=START + seconds * SECOND, queue=queue)])
    clock.advance(3)
    assert await store.promote(limit=10) == 3
    a, b, c = [await get(store, id) for id in ("a", "b", "c")]
    assert {a.state, b.state, c.state} == {JobState.QUEUED}
    assert (a.version, a.revision, a.update_time) == (2, 2, clock.now)
    assert a.queue_time == clock.now
    assert c.queue_time == clock.now + 1
    assert (await get(store, "z")).state is JobState.SCHEDULED
    assert await store.promote(limit=10) == 0


async def test_promotion_keeps_to_its_limit(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"j{n}", schedule_time=START + 1) for n in range(5)])
    clock.advance(1)
    assert [await store.promote(limit=3), await store.promote(limit=3)] == [3, 2]


async def test_a_promoted_retry_keeps_its_queue_time(store: Store, clock: Clock) -> None:
    job = await put(store, "j")
    await shove(store, "j", JobState.SCHEDULED, schedule_time=START + 1)
    clock.advance(1)
    assert await store.promote(limit=1) == 1
    again = await get(store, "j")
    assert (again.queue_time, again.score) == (job.queue_time, job.score)


async def test_a_repeated_failure_is_known_after_the_job_was_promoted(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    assert job.token
    error = JobError("E", "")
    failed = policy.fail(job, job.token, error, permanent=False, retry_delay=1, now=clock.now, random=0)
    await move(store, failed)
    clock.advance(1)
    await store.promote(limit=1)
    before = await get(store, "j")
    assert await move(store, failed) is Outcome.OK
    assert await get(store, "j") == before


async def test_a_lease_is_overdue_at_its_deadline_and_not_before(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    clock.now += 10 * SECOND - 1
    assert (await store.overdue(limit=9)).jobs == []
    clock.now += 1
    snapshot = await store.overdue(limit=9)
    assert (snapshot.now, snapshot.jobs) == (clock.now, [job])
    assert await move(store, policy.reap(job, now=clock.now, random=0)) is Outcome.OK
    assert (await store.overdue(limit=9)).jobs == []


async def test_after_an_outage_a_lease_has_its_own_time_again_before_it_is_overdue(
    store: Store, clock: Clock, outage: Callable[[], None]
) -> None:
    await store.create([new_job("a"), new_job("b"), new_job("c")])
    (delivery,) = (await claim(store, wish("d", lease=60, delivery=5))).jobs
    (short,) = (await claim(store, wish("s", lease=20, delivery=0))).jobs
    (long,) = (await claim(store, wish("l", lease=60, delivery=0))).jobs
    clock.advance(100)
    outage()
    due: list[Job] = []
    for job, seconds in ((delivery, 5), (short, 15), (long, 40)):
        clock.now += seconds * SECOND - 1
        assert job not in (await store.overdue(limit=9)).jobs
        assert await move(store, policy.reap(job, now=clock.now, random=0)) is Outcome.STALE
        clock.now += 1
        due.append(job)
        assert (await store.overdue(limit=9)).jobs == due
    assert await move(store, policy.reap(long, now=clock.now, random=0)) is Outcome.OK


async def test_leases_that_wait_out_an_outage_do_not_hide_others(
    store: Store, clock: Clock, outage: Callable[[], None]
) -> None:
    await store.create([new_job(f"long{n}") for n in range(3)])
    await claim(store, wish("l", 3, lease=60, delivery=0))
    await put(store, "short")
    await claim(store, wish("s", lease=5, delivery=0))
    clock.advance(100)
    outage()
    clock.advance(5)
    assert [job.id for job in (await store.overdue(limit=1)).jobs if job] == ["short"]


async def test_overdue_looks_at_the_named_queues_only(store: Store, clock: Clock) -> None:
    for queue in ("a", "b", "c"):
        await put(store, f"lease-{queue}", JobState.IN_PROGRESS, queue=queue)
        await put(store, f"waits-{queue}", queue=queue, expire_time=START + 1)
    clock.advance(30)
    due = (await store.overdue(queues=["c", "a", "unknown"], limit=9)).jobs
    assert [job.id for job in due if job] == ["lease-a", "lease-c", "waits-a", "waits-c"]


async def test_waiting_jobs_past_their_expire_time_are_overdue(store: Store, clock: Clock) -> None:
    await put(store, "queued", expire_time=START + 2)
    await put(store, "later", expire_time=START + 9)
    await put(store, "never")
    await put(store, "scheduled", schedule_time=START + DAY, expire_time=START + 1)
    await put(store, "started", expire_time=START + 1)
    await shove(store, "started", JobState.QUEUED, start_time=START)
    await put(store, "ended", JobState.CANCELED, expire_time=START + 1)
    clock.now += 2
    due = (await store.overdue(limit=9)).jobs
    assert [job.id for job in due if job] == ["scheduled", "queued"]
    for job in due:
        assert job
        assert await move(store, policy.expire(job)) is Outcome.OK
    assert (await get(store, "queued")).state is JobState.EXPIRED
    assert (await store.overdue(limit=9)).jobs == []


async def test_overdue_keeps_to_its_limit(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"l{n}") for n in range(3)])
    await claim(store, wish(number=3))
    await store.create([new_job(f"e{n}", expire_time=START) for n in range(3)])
    clock.advance(30)
    assert len((await store.overdue(limit=2)).jobs) == 2
    assert len((await store.overdue(limit=4)).jobs) == 4
    assert len((await store.overdue(limit=9)).jobs) == 6


async def test_leased_lists_old_leases_oldest_first(store: Store, clock: Clock) -> None:
    for id, queue in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "x")):
        await put(store, id, JobState.IN_PROGRESS, queue=queue)
        clock.advance(1)
    await put(store, "queued", queue="x")

    async def ids(*queues: str, limit: int = 9) -> list[str]:
        snapshot = await store.leased(queues=queues, longer_than=SECOND, limit=limit)
        return [job.id for job in snapshot.jobs if job]

    assert await ids() == ["a", "b", "c"], "d was claimed exactly so long ago, not more"
    assert await ids("x") == ["a", "c"]
    assert await ids("y", "x", "unknown") == ["a", "b", "c"]
    assert await ids(limit=2) == ["a", "b"]


async def test_ended_jobs_are_purged_when_their_retention_has_passed(store: Store, clock: Clock) -> None:
    for state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED):
        await put(store, state, state, retention=SECOND, submission=b"x", queue=f"q-{state}")
        await shove(store, state, state, result=b"r", error=JobError("E", ""))
    await put(store, "waiting", retention=SECOND)
    clock.now += SECOND - 1
    assert await store.purge(limit=9) == 0
    clock.now += 1
    assert await store.purge(limit=9) == 4
    assert not await is_there(store, JobState.FAILED)
    assert await is_there(store, "waiting")


async def test_purge_keeps_to_its_limit(store: Store, clock: Clock) -> None:
    for n in range(3):
        await put(store, f"j{n}", JobState.CANCELED, retention=SECOND)
    clock.now += DAY
    assert [await store.purge(limit=2), await store.purge(limit=2), await store.purge(limit=2)] == [2, 1, 0]


async def test_purge_forgets_requests_too(store: Store, clock: Clock) -> None:
    for n in range(3):
        await put(store, f"j{n}", JobState.CANCELED, retention=SECOND, request_key=bytes([n]))
    clock.now += DAY
    assert [await store.purge(limit=4), await store.purge(limit=4), await store.purge(limit=4)] == [4, 2, 0]


async def test_nothing_is_purged_for_a_minute_after_an_outage(
    store: Store, clock: Clock, outage: Callable[[], None]
) -> None:
    await put(store, "j", JobState.CANCELED, retention=1)
    clock.advance(1)
    outage()
    clock.now += MINUTE - 1
    assert await store.purge(limit=9) == 0
    clock.now += 1
    assert await store.purge(limit=9) == 1


async def test_a_purged_job_can_be_created_again_and_its_fence_still_rises(store: Store, clock: Clock) -> None:
    first = await put(store, "j", JobState.IN_PROGRESS, retention=1)
    await shove(store, "j", JobState.CANCELED)
    clock.advance(1)
    await store.purge(limit=9)
    (created,) = await store.create([new_job("j", retention=1)])
    assert created.outcome is CreateOutcome.CREATED
    (again,) = (await claim(store)).jobs
    assert again.fence > first.fence
    (late,) = await store.renew([Renewal(job_id="j", token=first.token or b"")])
    assert late.outcome is Outcome.LOST
