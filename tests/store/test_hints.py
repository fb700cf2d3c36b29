from __future__ import annotations

import pytest
from tests.store.making import START, Clock, claim, move, new_job, put, shove, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Guard
from jobwire_server.domain.job import SECOND, JobState, Verb
from jobwire_server.domain.move import Move
from jobwire_server.store.base import Hints, Renewal, Store, WorkerNotice


async def test_jobs_that_become_claimable_are_told_once_for_each_change(store: Store, clock: Clock) -> None:
    hints = store.hints()
    await store.create(
        [new_job("a"), new_job("b"), new_job("c", queue="q"), new_job("later", schedule_time=START + SECOND)]
    )
    assert await anext(hints) == Hints(queued={"default": 2, "q": 1})
    await store.create([new_job("a")])
    clock.advance(1)
    await store.promote(limit=9)
    assert await anext(hints) == Hints(queued={"default": 1}), "the repeated create said nothing"
    await shove(store, "a", JobState.QUEUED, priority=1)
    await claim(store)
    await shove(store, "a", JobState.QUEUED)
    assert await anext(hints) == Hints(queued={"default": 1}, freed={"w": 1})


@pytest.mark.parametrize("verb", [Verb.COMPLETE, Verb.FAIL, Verb.RELEASE])
async def test_a_worker_that_settles_is_freed_and_not_told_that_it_lost(store: Store, verb: Verb) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    hints = store.hints()
    guard = Guard(token=job.token)
    await move(store, Move(job_id="j", verb=verb, guard=guard, to=JobState.COMPLETED))
    assert await anext(hints) == Hints(freed={"w": 1})


@pytest.mark.parametrize("verb", [Verb.REAP, Verb.RECOVER, Verb.HAND_BACK, Verb.CANCEL])
async def test_a_worker_whose_lease_was_taken_away_is_told(store: Store, verb: Verb) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    hints = store.hints()
    await shove(store, "j", JobState.CANCELED, verb, worker_id="", token=None)
    assert await anext(hints) == Hints(freed={"w": 1}, lost=(WorkerNotice("w", "j", job.fence),))


async def test_a_cancel_is_told_to_the_worker_that_has_the_job(store: Store) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    hints = store.hints()
    cancel = policy.cancel(job, reason="why", grace=SECOND, etag=None, now=START)
    assert cancel
    await move(store, cancel)
    assert await anext(hints) == Hints(cancels=(WorkerNotice("w", "j", job.fence, "why"),))


async def test_what_changes_nothing_rings_no_bell(store: Store) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    assert job.token
    hints = store.hints()
    await store.renew([Renewal(job_id="j", token=job.token)])
    await move(store, policy.complete("j", b"wrong", None))
    await shove(store, "j", JobState.IN_PROGRESS, priority=1)
    await claim(store)
    await store.ping()
    await put(store, "bell", queue="bell")
    assert await anext(hints) == Hints(queued={"bell": 1})


async def test_a_listener_that_comes_late_hears_all_at_once(store: Store) -> None:
    hints = store.hints()
    for n in range(100):
        await put(store, f"j{n}", queue=f"q{n % 2}")
    jobs = (await claim(store, wish("w", 2), queue="q0")).jobs
    for job in jobs:
        await shove(store, job.id, JobState.CANCELED, Verb.RECOVER)
    heard = await anext(hints)
    assert (heard.queued, heard.freed) == ({"q0": 50, "q1": 50}, {"w": 2})
    assert [notice.job_id for notice in heard.lost] == [job.id for job in jobs]


async def test_every_listener_hears_from_its_making_on(store: Store) -> None:
    await put(store, "before", queue="before")
    first, second = store.hints(), store.hints()
    await put(store, "after", queue="after")
    assert await anext(first) == await anext(second) == Hints(queued={"after": 1})


async def test_hints_end_when_the_store_closes(store: Store) -> None:
    hints = store.hints()
    await put(store, "j")
    await store.close()
    assert [hint.queued async for hint in hints] == [{"default": 1}]
    assert [hint async for hint in store.hints()] == []
    await store.open()
    again = store.hints()
    await put(store, "again", queue="again")
    assert await anext(again) == Hints(queued={"again": 1})
