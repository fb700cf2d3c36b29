from __future__ import annotations

import pytest
from tests.store.making import (
    START,
    Clock,
    claim,
    count,
    get,
    ids,
    is_there,
    move,
    new_job,
    put,
    queue,
    rang,
    shove,
    stock,
    walk,
    wish,
    worker,
)

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, HOUR, SECOND, Attempt, AttemptOutcome, Job, JobError, JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.store.base import ClaimOutcome, CreateOutcome, Hints, Renewal, Store, WorkerNotice


async def delete(store: Store, *jobs: Job) -> list[Outcome]:
    return await store.delete([Deletion(job.id, job.version, job.create_time) for job in jobs])


@pytest.mark.parametrize("state", JobState)
async def test_a_job_of_any_state_goes_with_all_that_stands_beside_it(
    store: Store, clock: Clock, state: JobState
) -> None:
    """That nothing of it is left beside, in no index and in no count, is among the invariants."""
    await put(store, "j", state, user_id="ann", submission=b"x", expire_time=START + HOUR, retention=SECOND)
    error = JobError("E", "broke")
    history = (Attempt(1, "v", 1, 2, AttemptOutcome.FAILED, b"t" * 16, error),)
    job = await shove(store, "j", state, result=b"r", error=error, attempt=2, history=history)
    assert job
    assert await delete(store, job) == [Outcome.OK]
    assert not await is_there(store, "j")
    assert await walk(store, JobFilter(user_id="ann")) == await walk(store, JobFilter()) == []
    assert await count(store, JobFilter()) == {}
    clock.advance(10**8)
    assert (await store.overdue(limit=9)).jobs == []
    assert (await store.promote(limit=9), await store.purge(limit=9)) == (0, 0)


@pytest.mark.parametrize("state", JobState)
async def test_a_job_that_has_changed_since_it_was_read_stays_as_it_is(store: Store, state: JobState) -> None:
    old = await put(store, "j", state, user_id="ann", submission=b"x")
    now = await shove(store, "j", state, priority=1)
    hints = store.hints()
    assert await delete(store, old) == [Outcome.STALE]
    assert await get(store, "j") == now
    assert await rang(store, hints) == Hints()


async def test_an_acknowledgment_makes_a_deletion_stale_and_a_mere_renewal_does_not(store: Store) -> None:
    delivered = await put(store, "j", JobState.IN_PROGRESS)
    renewal = Renewal(job_id="j", token=delivered.token or b"")
    await store.renew([renewal])
    assert await delete(store, delivered) == [Outcome.STALE]
    acknowledged = await get(store, "j")
    await store.renew([renewal])
    assert await delete(store, acknowledged) == [Outcome.OK]


async def test_deletions_are_judged_one_by_one_and_in_order(store: Store) -> None:
    a, b, c = [await put(store, id) for id in ("a", "b", "c")]
    await shove(store, "b", JobState.QUEUED, priority=1)
    outcomes = await delete(store, a, b, a._replace(id="unknown"), a, c, a)
    assert outcomes == ["ok", "stale", "gone", "gone", "ok", "gone"]
    assert ids((await store.get(["a", "b", "c"])).jobs) == [None, "b", None]
    assert await store.delete([]) == []
    assert await delete(store, a) == [Outcome.GONE]


async def test_thousands_go_in_one_call(store: Store) -> None:
    await stock(store, 2500, user_id="ann", submission=b"x")
    jobs = await walk(store, JobFilter(), limit=1000)
    assert await delete(store, *jobs) == [Outcome.OK] * 2500
    assert await count(store, JobFilter()) == {}


async def test_the_queue_goes_on_without_it(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(4)])
    assert await delete(store, await get(store, "j0"), await get(store, "j2")) == [Outcome.OK] * 2
    claims = await store.claim("default", [wish()])
    assert (ids(claims.claimed[0].jobs), claims.remaining) == (["j1"], 1)
    record = await queue(store)
    assert record.counts == {JobState.QUEUED: 1, JobState.IN_PROGRESS: 1}
    assert record.head_queue_time == (await get(store, "j3")).queue_time


async def test_a_queue_stays_when_its_last_job_is_deleted(store: Store) -> None:
    assert await delete(store, await put(store, "j")) == [Outcome.OK]
    record = await queue(store)
    assert (record.counts, record.head_queue_time) == ({}, None)


async def test_what_nobody_holds_goes_without_a_bell(store: Store) -> None:
    states = [state for state in JobState if state is not JobState.IN_PROGRESS]
    jobs = [await put(store, state, state) for state in states]
    hints = store.hints()
    assert await delete(store, *jobs) == [Outcome.OK] * 6
    assert await rang(store, hints) == Hints()


# --- a lease ------------------------------------------------------------------------------------------------


async def test_a_worker_whose_job_is_deleted_has_its_credit_back_and_is_told(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(4)])
    a, b = (await claim(store, wish(number=2, max_in_flight=2))).jobs
    assert (await claim(store, wish(max_in_flight=2))).jobs == []
    hints = store.hints()
    assert await delete(store, a, b) == [Outcome.OK] * 2
    heard = await rang(store, hints)
    assert heard == Hints(freed={"w": 2}, lost=(WorkerNotice("w", a.id, a.fence), WorkerNotice("w", b.id, b.fence)))
    assert (await worker(store)).held == 0
    claimed = await claim(store, wish(number=9, max_in_flight=2))
    assert (ids(claimed.jobs), claimed.held) == (["j2", "j3"], 2)


async def test_whoever_reports_on_a_deleted_job_hears_that_it_has_gone(store: Store) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    assert await delete(store, job) == [Outcome.OK]
    assert await move(store, policy.complete("j", job.token or b"", b"late")) is Outcome.GONE
    assert [each.outcome for each in await store.renew([Renewal(job_id="j", token=job.token or b"")])] == ["gone"]
    reap = policy.reap(job, now=START, random=0)
    assert await move(store, reap) is Outcome.GONE
    assert not await is_there(store, "j")


@pytest.mark.parametrize("ran_out", [False, True])
async def test_deleted_deliveries_do_not_count_against_their_worker(store: Store, clock: Clock, ran_out: bool) -> None:
    for n in range(25):
        job = await put(store, f"j{n}", JobState.IN_PROGRESS)
        clock.now += 11 * SECOND if ran_out else 1
        assert await delete(store, job) == [Outcome.OK]
    await put(store, "last")
    claimed = await claim(store)
    assert (claimed.outcome, ids(claimed.jobs)) == (ClaimOutcome.OK, ["last"])


# --- the same id again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", JobState)
async def test_its_id_can_be_used_again_for_a_job_that_knows_nothing_of_it(
    store: Store, clock: Clock, state: JobState
) -> None:
    fields = {"user_id": "ann", "submission": b"old", "expire_time": START + 2 * DAY, "type": "old", "priority": 1}
    await put(store, "j", state, **fields)
    job = await shove(store, "j", state, result=b"r", error=JobError("E", ""), retry_count=2, cancel_reason="why")
    assert job
    await delete(store, job)
    clock.advance(1)
    (created,) = await store.create([new_job("j", digest=b"other")])
    assert created.outcome is CreateOutcome.CREATED
    await put(store, "fresh")
    again, fresh = await get(store, "j"), await get(store, "fresh")
    for name in ("version", "revision", "attempt", "retry_count", "submission", "type", "user_id", "priority"):
        assert getattr(again, name) == getattr(fresh, name), name
    for name in ("result", "error", "history", "expire_time", "cancel_reason", "start_time", "token", "fence"):
        assert getattr(again, name) == getattr(fresh, name), name
    assert again.create_time == clock.now
    assert await walk(store, JobFilter(user_id="ann")) == []


async def test_the_fence_of_an_id_used_again_still_rises(store: Store, clock: Clock) -> None:
    first = await put(store, "j", JobState.IN_PROGRESS)
    await delete(store, first)
    clock.now += 1
    second = await put(store, "j", JobState.IN_PROGRESS)
    assert second.fence > first.fence
    (late,) = await store.renew([Renewal(job_id="j", token=first.token or b"")])
    assert late.outcome is Outcome.LOST


async def test_its_request_is_remembered(store: Store, clock: Clock) -> None:
    job = await put(store, "j", request_key=b"k")
    await delete(store, job)
    clock.now += DAY - 1
    (again,) = await store.create([new_job("j", request_key=b"k")])
    assert (again.outcome, again.job_id, again.job) == (CreateOutcome.EXISTED, "j", None)
    (other,) = await store.create([new_job("j", request_key=b"k", digest=b"other")])
    assert other.outcome is CreateOutcome.REQUEST_REUSED
    assert not await is_there(store, "j")
    clock.now += 1
    (new,) = await store.create([new_job("j", request_key=b"k")])
    assert new.outcome is CreateOutcome.CREATED


async def test_what_was_decided_in_an_earlier_life_of_an_id_never_meets_the_later_one(
    store: Store, clock: Clock
) -> None:
    """Versions begin anew with each life, so that the version alone would let all of these pass."""
    old = await put(store, "j")
    clock.advance(1)
    assert await delete(store, old) == [Outcome.OK]
    new = await put(store, "j")
    assert (new.version, new.revision) == (old.version, old.revision), "or this proves nothing"
    assert new.etag != old.etag
    decided = [
        policy.cancel(old, reason="", grace=0, etag=old.etag, now=clock.now),
        policy.edit(old, {"priority": 1}, payload=False, etag=old.etag, now=clock.now),
        policy.expire(old),
    ]
    for each in decided:
        assert each is not None
        assert await move(store, each) is Outcome.STALE
    assert await delete(store, old) == [Outcome.STALE]
    assert await get(store, "j") == new
