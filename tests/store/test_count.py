"""Counts that counters know: whole, of one moment, right after every kind of change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from tests.store.making import START, Clock, claim, get, move, new_job, populate, put, queue, shove, stock, wish

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import ENDED, HOUR, SECOND, WAITING, Job, JobError, JobState
from jobwire_server.domain.move import AnyMove, Deletion
from jobwire_server.store.base import SCAN, Counts, Renewal, Store

S = JobState
EVERYTHING = JobFilter()


async def counted(store: Store, **parts: Any) -> dict[JobState, int]:
    """In one call: where counters know, there is no second stretch."""
    wanted = JobFilter(**parts)
    assert not wanted.needs_scan
    counts = await store.count(wanted)
    assert counts.end is None
    return counts.by_state


async def test_an_empty_store_counts_nothing(store: Store) -> None:
    for wanted in (EVERYTHING, JobFilter(queues=frozenset({"unknown"})), JobFilter(user_id="ann")):
        assert await store.count(wanted) == Counts({}, None)


async def test_counts_are_by_queue_and_by_states(store: Store, clock: Clock) -> None:
    jobs = await populate(store, clock)

    def expected(queues: Iterable[str], states: Iterable[JobState]) -> Counter[JobState]:
        return Counter(job.state for job in jobs if job.queue in queues and job.state in states)

    for queues in (frozenset({"a"}), frozenset({"a-", "a."}), frozenset({"a", "unknown"})):
        assert await counted(store, queues=queues) == expected(queues, JobState)
        for states in (WAITING, ENDED, frozenset({S.IN_PROGRESS})):
            assert await counted(store, queues=queues, states=states) == expected(queues, states)
    for state in JobState:
        assert await counted(store, states=frozenset({state})) == expected(("a", "a-", "a."), [state])
    assert sum((await counted(store)).values()) == 200


async def test_what_counters_know_is_counted_whole_however_much_it_is(store: Store) -> None:
    await stock(store, 2 * SCAN + 500)
    assert await counted(store) == {S.QUEUED: 2 * SCAN + 500}
    assert await counted(store, queues=frozenset({"default"}), states=WAITING) == {S.QUEUED: 2 * SCAN + 500}


async def test_many_queues_are_counted_whole(store: Store) -> None:
    await store.create([new_job(f"j{n}", queue=f"q{n}") for n in range(SCAN)])
    await store.create([new_job(f"k{n}", queue=f"r{n}") for n in range(500)])
    assert await counted(store) == {S.QUEUED: SCAN + 500}


async def test_a_count_behind_a_position_counts_what_is_behind(store: Store, clock: Clock) -> None:
    for id in ("a", "b", "c"):
        await put(store, id, user_id="ann", type="t")
        clock.now += 1
    by_user = await store.count(JobFilter(user_id="ann"), after=Position("", S.SCHEDULED, START + 1, "b"))
    assert by_user == Counts({S.QUEUED: 1}, None)
    wanted = JobFilter(types=frozenset({"t"}))
    behind = await store.count(wanted, after=wanted.position_of(await get(store, "a")))
    assert behind == Counts({S.QUEUED: 2}, None)


# --- after every kind of change -----------------------------------------------------------------------------


async def test_a_life_is_counted_at_every_step(store: Store, clock: Clock) -> None:
    await store.create([new_job("j", schedule_time=START + SECOND)])
    assert await counted(store) == {S.SCHEDULED: 1}
    clock.advance(1)
    await store.promote(limit=9)
    assert await counted(store) == {S.QUEUED: 1}
    (job,) = (await claim(store)).jobs
    assert await counted(store) == {S.IN_PROGRESS: 1}
    await store.renew([Renewal(job_id="j", token=job.token or b"", fraction=0.5)])
    assert await counted(store) == {S.IN_PROGRESS: 1}
    job = await get(store, "j")
    error = JobError("E", "")
    fail = policy.fail(job, job.token or b"", error, permanent=False, retry_delay=0, now=clock.now, random=0)
    assert await move(store, fail) is Outcome.OK
    assert await counted(store) == {S.SCHEDULED: 1}
    await store.promote(limit=9)
    (job,) = (await claim(store)).jobs
    await move(store, policy.complete("j", job.token or b"", b"r"))
    assert await counted(store) == {S.COMPLETED: 1}
    await move(store, policy.replay(await get(store, "j"), etag=None))
    assert await counted(store) == {S.QUEUED: 1}
    await shove(store, "j", S.CANCELED, retention=SECOND)
    assert await counted(store) == {S.CANCELED: 1}
    clock.advance(1)
    assert await store.purge(limit=9) == 1
    assert await counted(store) == {}
    assert (await queue(store)).counts == {}


def _settled(job: Job, now: int) -> list[tuple[AnyMove, JobState | None]]:
    token, error = job.token or b"", JobError("E", "")
    asked = policy.cancel(job, reason="", grace=SECOND, etag=None, now=now)
    assert asked
    return [
        (policy.complete("j", token, None), S.COMPLETED),
        (policy.fail(job, token, error, permanent=True, retry_delay=None, now=now, random=0), S.FAILED),
        (policy.fail(job, token, error, permanent=False, retry_delay=1, now=now, random=0), S.SCHEDULED),
        (policy.release(job, token, delay=0, now=now, random=0), S.QUEUED),
        (policy.release(job, token, delay=1, now=now, random=0), S.SCHEDULED),
        (policy.hand_back(job, token, now=now), S.QUEUED),
        (policy.recover(job, now=now, random=0), S.QUEUED),
        (asked, S.IN_PROGRESS),
    ]


@pytest.mark.parametrize("n", range(8))
@pytest.mark.parametrize("retention", [None, 0])
async def test_a_settlement_is_counted(store: Store, n: int, retention: int | None) -> None:
    job = await put(store, "j", S.IN_PROGRESS, retention=retention)
    await put(store, "other", queue="other")
    settlement, to = _settled(job, START)[n]
    assert await move(store, settlement) is Outcome.OK
    there = {} if retention == 0 and to in ENDED else {to: 1}
    assert await counted(store, queues=frozenset({"default"})) == there
    assert await counted(store, queues=frozenset({"other"})) == {S.QUEUED: 1}


async def test_reaped_and_expired_jobs_are_counted(store: Store, clock: Clock) -> None:
    await put(store, "held", S.IN_PROGRESS)
    await put(store, "waits", expire_time=START + SECOND)
    clock.advance(100)
    for job in (await store.overdue(limit=9)).jobs:
        assert job
        decided = policy.reap(job, now=clock.now, random=0) if job.id == "held" else policy.expire(job)
        assert await move(store, decided) is Outcome.OK
    assert await counted(store) == {S.QUEUED: 1, S.EXPIRED: 1}


async def test_edits_and_deletes_are_counted(store: Store) -> None:
    waiting = await put(store, "waiting", schedule_time=START + HOUR)
    await move(store, policy.edit(waiting, {"schedule_time": None}, payload=False, etag=None, now=START))
    await put(store, "held", S.IN_PROGRESS, queue="other")
    assert await counted(store) == {S.QUEUED: 1, S.IN_PROGRESS: 1}
    for id in ("waiting", "held"):
        await store.delete([Deletion(id, (await get(store, id)).version)])
    assert await counted(store) == {}


async def test_what_was_refused_or_repeated_is_not_counted(store: Store) -> None:
    job = await put(store, "j", S.IN_PROGRESS)
    await store.create([new_job("j"), new_job("j", digest=b"other"), new_job("k", queue="other"), new_job("k")])
    done = policy.complete("j", job.token or b"", None)
    for _ in range(2):
        assert await move(store, done) is Outcome.OK
    await move(store, policy.complete("k", b"wrong", None))
    assert await store.delete([Deletion("k", 99), Deletion("unknown", 1)]) == [Outcome.STALE, Outcome.GONE]
    assert await counted(store) == {S.COMPLETED: 1, S.QUEUED: 1}


async def test_moves_of_one_call_are_counted_together(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(6)])
    jobs = (await claim(store, wish(number=4))).jobs
    tokens = [job.token or b"" for job in jobs]
    await store.move(
        [policy.complete(job.id, token, None) for job, token in zip(jobs[:2], tokens, strict=False)]
        + [policy.release(jobs[2], tokens[2], delay=0, now=START, random=0)]
    )
    assert await counted(store) == {S.COMPLETED: 2, S.QUEUED: 3, S.IN_PROGRESS: 1}
    assert (await queue(store)).counts == await counted(store)
