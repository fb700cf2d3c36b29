"""What a queue's settings do to its jobs: pause and ceiling at the claim, ageing at the entry, retention at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

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
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, DEFAULT_RETENTION, ENDED, HOUR, MINUTE, SECOND, Job, JobError, JobState, Verb
from jobwire_server.domain.move import AnyMove, Deletion
from jobwire_server.domain.queue import QueueChanges
from jobwire_server.store.base import ClaimOutcome, Claims, Hints, Renewal, Store


async def set_queue(store: Store, name: str = "default", **changes: Unpack[QueueChanges]) -> None:
    answer = await store.put_queue(name, changes, create=True)
    assert answer.outcome is Outcome.OK


async def claim_all(store: Store, *workers: str, each: int = 9) -> Claims:
    return await store.claim("default", [wish(worker, each) for worker in workers or ("w",)])


def numbers(claims: Claims) -> list[int]:
    return [len(each.jobs) for each in claims.claimed]


# --- paused -------------------------------------------------------------------------------------------------


async def test_nothing_is_claimed_from_a_paused_queue(store: Store) -> None:
    await store.create([new_job("a"), new_job("b", queue="other")])
    await set_queue(store, paused=True)
    claims = await claim_all(store, "v", "w")
    assert [(each.outcome, each.jobs, each.held) for each in claims.claimed] == [(ClaimOutcome.OK, [], 0)] * 2
    assert claims.remaining == 0
    assert ids((await claim(store, queue="other")).jobs) == ["b"], "others go on"
    assert (await get(store, "a")).attempt == 0


async def test_a_paused_queue_goes_on_in_all_but_claims(store: Store, clock: Clock) -> None:
    held = await put(store, "held", JobState.IN_PROGRESS)
    await put(store, "later", schedule_time=START + SECOND)
    await put(store, "expires", expire_time=START + SECOND)
    await set_queue(store, paused=True)
    clock.advance(1)
    assert (await put(store, "new")).state is JobState.QUEUED
    assert await store.promote(limit=9) == 1
    assert ids((await store.overdue(limit=9)).jobs) == ["expires"]
    (renewed,) = await store.renew([Renewal(job_id="held", token=held.token or b"")])
    assert renewed.outcome is Outcome.OK
    assert await move(store, policy.complete("held", held.token or b"", b"r")) is Outcome.OK
    assert (await queue(store)).counts == {JobState.QUEUED: 3, JobState.COMPLETED: 1}
    assert (await claim_all(store)).claimed[0].jobs == []


async def test_a_resumed_queue_rings_for_all_who_wait_in_it(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(3)])
    await set_queue(store, paused=True)
    hints = store.hints()
    await set_queue(store, paused=False)
    assert await rang(store, hints) == Hints(queued={"default": 3})
    await set_queue(store, paused=False)
    await set_queue(store, "empty", paused=True)
    await set_queue(store, "empty", paused=False)
    assert await rang(store, hints) == Hints()
    claims = await claim_all(store)
    assert ids(claims.claimed[0].jobs) == ["j0", "j1", "j2"]


async def test_a_queue_that_is_resumed_under_a_ceiling_rings_for_those_that_fit(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(9)])
    await claim_all(store, each=2)
    await set_queue(store, paused=True, max_in_flight=5)
    hints = store.hints()
    await set_queue(store, paused=False)
    assert await rang(store, hints) == Hints(queued={"default": 3})
    assert numbers(await claim_all(store)) == [3]


# --- max_in_flight ------------------------------------------------------------------------------------------


async def test_the_ceiling_holds_over_workers_calls_and_requests_of_one_call(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(20)])
    await set_queue(store, max_in_flight=5)
    first = await claim_all(store, "a", each=2)
    assert (numbers(first), first.remaining) == ([2], 3)
    second = await claim_all(store, "a", "b", "c", each=2)
    assert (numbers(second), second.remaining) == ([2, 1, 0], 0)
    assert [each.outcome for each in second.claimed] == [ClaimOutcome.OK] * 3
    assert [each.held for each in second.claimed] == [4, 1, 0]
    assert numbers(await claim_all(store, "d")) == [0]
    assert (await queue(store)).counts == {JobState.QUEUED: 15, JobState.IN_PROGRESS: 5}


async def test_what_is_left_to_claim_is_what_waits_when_that_is_less(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(3)])
    await set_queue(store, max_in_flight=9)
    claims = await claim_all(store, each=1)
    assert (numbers(claims), claims.remaining) == ([1], 2)


async def test_the_ceiling_counts_its_own_queue_only(store: Store) -> None:
    await store.create([new_job("a"), new_job("b"), new_job("c", queue="other"), new_job("d", queue="other")])
    await set_queue(store, max_in_flight=1)
    assert len((await claim(store, wish(number=9), queue="other")).jobs) == 2
    assert numbers(await claim_all(store)) == [1]


async def test_expired_jobs_take_no_room_under_the_ceiling(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"old{n}", expire_time=START + 1) for n in range(3)])
    await store.create([new_job("a"), new_job("b")])
    await set_queue(store, max_in_flight=1)
    clock.now += 1
    assert ids((await claim_all(store)).claimed[0].jobs) == ["a"]
    assert numbers(await claim_all(store, "v", "w")) == [0, 0]


async def test_what_one_request_leaves_under_the_ceiling_the_next_may_have(store: Store) -> None:
    """By credit or for want of a worker that may claim."""
    await store.create([new_job(f"j{n}") for n in range(9)])
    await set_queue(store, max_in_flight=4)
    await claim(store, wish("old", 0, session=9), queue="other")
    claims = await store.claim("default", [wish("old", 9, session=1), wish("v", 9, max_in_flight=1), wish("w", 9)])
    assert numbers(claims) == [0, 1, 3]


async def test_a_lowered_ceiling_takes_nothing_away_and_lets_nothing_in_until_there_is_room(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(9)])
    jobs = (await claim_all(store, each=4)).claimed[0].jobs
    await set_queue(store, max_in_flight=2)
    assert (await queue(store)).counts[JobState.IN_PROGRESS] == 4
    for n, job in enumerate(jobs, start=1):
        claims = await claim_all(store, "v")
        assert (numbers(claims), claims.remaining) == ([int(n == 4)], 0), f"{5 - n} are running"
        await move(store, policy.complete(job.id, job.token or b"", None))


@pytest.mark.parametrize(("ceiling", "more"), [(3, 2), (100, 8), (None, 8)])
async def test_a_raised_ceiling_rings_for_those_it_lets_in(store: Store, ceiling: int | None, more: int) -> None:
    await store.create([new_job(f"j{n}") for n in range(9)])
    await set_queue(store, max_in_flight=1)
    assert numbers(await claim_all(store)) == [1]
    hints = store.hints()
    await set_queue(store, max_in_flight=ceiling)
    assert await rang(store, hints) == Hints(queued={"default": more})
    assert numbers(await claim_all(store)) == [more]


async def test_a_raised_ceiling_that_lets_nobody_in_rings_no_bell(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(9)])
    await claim_all(store, each=5)
    await set_queue(store, max_in_flight=3)
    hints = store.hints()
    await set_queue(store, max_in_flight=5)
    assert await rang(store, hints) == Hints()


def _completed(job: Job) -> AnyMove | Deletion:
    return policy.complete(job.id, job.token or b"", None)


def _failed(job: Job) -> AnyMove | Deletion:
    error = JobError("E", "")
    return policy.fail(job, job.token or b"", error, permanent=False, retry_delay=DAY, now=START, random=0)


def _expelled(job: Job) -> AnyMove | Deletion:
    return policy.recover(job, now=START, random=0)


def _deleted(job: Job) -> AnyMove | Deletion:
    return Deletion(job.id, job.version)


@pytest.mark.parametrize("retention", [None, 0])
@pytest.mark.parametrize("end", [_completed, _failed, _expelled, _deleted])
async def test_a_slot_that_was_freed_rings_the_queue(
    store: Store, end: Callable[[Job], AnyMove | Deletion], retention: int | None
) -> None:
    """Those who wait for this queue would else wait for their next look."""
    await set_queue(store, max_in_flight=1)
    await store.create([new_job(f"j{n}", retention=retention) for n in range(3)])
    ((job,),) = [each.jobs for each in (await claim_all(store)).claimed]
    hints = store.hints()
    change = end(job)
    if isinstance(change, Deletion):
        await store.delete([change])
    else:
        await store.move([change])
    heard = await rang(store, hints)
    assert heard.queued.get("default", 0) >= 1
    assert heard.freed == {"w": 1}
    assert numbers(await claim_all(store, "v")) == [1]


async def test_a_freed_slot_rings_nobody_where_nobody_waits(store: Store) -> None:
    await set_queue(store, max_in_flight=1)
    job = await put(store, "j", JobState.IN_PROGRESS)
    hints = store.hints()
    await move(store, policy.complete("j", job.token or b"", None))
    assert await rang(store, hints) == Hints(freed={"w": 1})


# --- ageing -------------------------------------------------------------------------------------------------


async def test_without_ageing_priorities_mean_nothing(store: Store) -> None:
    await set_queue(store, ageing=0)
    for n, priority in enumerate([9, 1, 5, 10]):
        await put(store, f"j{n}", priority=priority)
    assert ids((await claim_all(store)).claimed[0].jobs) == ["j0", "j1", "j2", "j3"]


async def test_a_level_of_priority_is_worth_the_ageing_of_its_queue(store: Store, clock: Clock) -> None:
    await set_queue(store, ageing=HOUR)
    late = await put(store, "late", priority=3)
    assert late.score == START + 2 * HOUR
    clock.advance(2 * 3600 - 1)
    await put(store, "urgent", priority=1)
    clock.advance(2)
    await put(store, "overtaken", priority=1)
    assert ids((await claim_all(store)).claimed[0].jobs) == ["urgent", "late", "overtaken"]


async def test_a_new_ageing_holds_for_those_who_enter_afterwards(store: Store, clock: Clock) -> None:
    before = await put(store, "before", priority=2)
    await put(store, "promoted", priority=2, schedule_time=START + SECOND)
    await set_queue(store, ageing=HOUR)
    assert await get(store, "before") == before
    clock.advance(1)
    after = await put(store, "after", priority=2)
    await store.promote(limit=9)
    promoted = await get(store, "promoted")
    for job, ageing in ((before, MINUTE), (after, HOUR), (promoted, HOUR)):
        assert job.queue_time is not None
        assert job.score == job.queue_time + ageing, job.id
    await shove(store, "before", JobState.QUEUED, priority=3)
    edited = await get(store, "before")
    assert edited.queue_time == before.queue_time
    assert edited.score == START + 2 * HOUR, "an edit of its priority ranks it anew"


# --- retention ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(ENDED))
async def test_the_end_of_a_job_that_does_not_say_is_kept_as_long_as_its_queue_says(
    store: Store, clock: Clock, state: JobState
) -> None:
    before = await put(store, "before", state)
    await set_queue(store, retention=HOUR)
    assert await get(store, "before") == before, "a change holds for jobs that end afterwards"
    clock.advance(5)
    assert (await put(store, "by-queue", state)).purge_time == clock.now + HOUR
    assert (await put(store, "own", state, retention=7)).purge_time == clock.now + 7
    await set_queue(store, retention=None)
    assert (await put(store, "default", state)).purge_time == clock.now + DEFAULT_RETENTION[state]
    assert (await get(store, "by-queue")).purge_time == clock.now + HOUR
    clock.now += HOUR
    assert await store.purge(limit=9) == 2
    assert await is_there(store, "default")


async def test_in_a_queue_that_keeps_nothing_what_ends_is_gone(store: Store) -> None:
    await set_queue(store, retention=0)
    job = await put(store, "j", JobState.IN_PROGRESS, submission=b"x", user_id="ann")
    (moved,) = await store.move([policy.complete("j", job.token or b"", b"r")])
    assert (moved.outcome, moved.job) == (Outcome.OK, None)
    assert not await is_there(store, "j")
    assert (await put(store, "own", JobState.FAILED, retention=DAY)).purge_time == START + DAY
    await put(store, "canceled")
    assert await shove(store, "canceled", JobState.CANCELED, Verb.CANCEL) is None
