from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from tests.store.making import START, Clock, claim, get, is_there, move, new_job, put, shove, standing_of, wish, worker

from jobwire_server.domain import policy
from jobwire_server.domain.guard import GUARD_TABLE, Guard, Outcome, Situation
from jobwire_server.domain.job import (
    DAY,
    DEFAULT_RETENTION,
    ENDED,
    MINUTE,
    SECOND,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    Progress,
    RetryPolicy,
    Verb,
)
from jobwire_server.domain.move import JobChanges, Move
from jobwire_server.store.base import CreateOutcome, Renewal, Store

IN_PROGRESS = JobState.IN_PROGRESS
OTHERS = [state for state in JobState if state is not IN_PROGRESS]


def guard_of(verb: Verb, job: Job) -> Guard:
    """The guard that domain.policy gives to that verb."""
    if verb is Verb.COMPLETE:
        return Guard(token=job.token)
    if verb in (Verb.CANCEL, Verb.EXPIRE, Verb.EDIT, Verb.REPLAY):
        return Guard(version=job.version, create_time=job.create_time)
    return Guard(
        token=job.token,
        version=job.version,
        create_time=job.create_time,
        unacknowledged=verb is Verb.HAND_BACK,
        overdue=verb is Verb.REAP,
    )


def move_of(verb: Verb, job: Job) -> Move:
    to = {Verb.COMPLETE: JobState.COMPLETED, Verb.CANCEL: JobState.CANCELED, Verb.EXPIRE: JobState.EXPIRED}
    changes = JobChanges(error=JobError("E", "text"), retry_count=3)
    return Move(job_id=job.id, verb=verb, guard=guard_of(verb, job), to=to.get(verb, JobState.QUEUED), changes=changes)


CELLS = [
    pytest.param(verb, situation, state, id=f"{verb}-{situation}" + (f"-{state}" if state else ""))
    for verb in GUARD_TABLE
    for situation in Situation
    for state in (OTHERS if situation is Situation.NOT_LEASED else [None])
]


@pytest.mark.parametrize(("verb", "situation", "state"), CELLS)
async def test_the_store_answers_as_the_guard_table_says(
    store: Store, clock: Clock, outage: Callable[[], None], verb: Verb, situation: Situation, state: JobState | None
) -> None:
    job = await put(store, "j", IN_PROGRESS, retention=0 if situation is Situation.ABSENT else None)
    planned = move_of(verb, job)
    match situation:
        case Situation.ABSENT:
            await shove(store, "j", JobState.CANCELED)
        case Situation.NOT_LEASED:
            assert state is not None
            await shove(store, "j", state)
        case Situation.OTHER_TOKEN:
            await shove(store, "j", JobState.QUEUED)
            await claim(store)
        case Situation.CHANGED:
            await shove(store, "j", IN_PROGRESS)
        case Situation.ACKNOWLEDGED:
            await store.renew([Renewal(job_id="j", token=job.token or b"")])
        case _:
            pass
    if situation is not Situation.NOT_DUE:
        clock.advance(31)
    if situation is Situation.AFTER_OUTAGE:
        outage()
    if situation is Situation.REPEATED:
        assert await move(store, planned) is Outcome.OK
    before = (await store.get(["j"])).jobs[0]
    clock.advance(1)
    (moved,) = await store.move([planned])
    after = (await store.get(["j"])).jobs[0]
    expected = GUARD_TABLE[verb][situation]
    assert moved.outcome is expected
    assert moved.standing == (standing_of(after) if expected is Outcome.OK else None)
    assert moved.job == (None if expected is Outcome.OK else after)
    if expected is not Outcome.OK or situation is Situation.REPEATED:
        assert after == before, "nothing of it may be applied"
    else:
        assert after is not None
        assert before is not None
        assert (after.state, after.version, after.revision) == (planned.to, before.version + 1, before.revision + 1)
        assert (after.update_time, after.last_operation) == (clock.now, planned.operation)
        assert (after.error, after.retry_count) == (JobError("E", "text"), 3)


async def test_a_stale_token_changes_nothing(store: Store) -> None:
    old = await put(store, "j", IN_PROGRESS)
    await shove(store, "j", JobState.QUEUED)
    (current,) = (await claim(store)).jobs
    assert old.token
    assert await move(store, policy.complete("j", old.token, b"late")) is Outcome.LOST
    (renewed,) = await store.renew([Renewal(job_id="j", token=old.token, fraction=0.5)])
    assert renewed.outcome is Outcome.LOST
    assert await get(store, "j") == current


async def test_a_repeated_operation_is_ok_even_after_the_job_was_claimed_again(store: Store) -> None:
    job = await put(store, "j", IN_PROGRESS)
    back = move_of(Verb.RELEASE, job)
    assert await move(store, back) is Outcome.OK
    (again,) = (await claim(store)).jobs
    assert await move(store, back) is Outcome.OK
    assert await get(store, "j") == again


async def test_moves_of_one_job_in_one_call_apply_in_order(store: Store) -> None:
    job = await put(store, "j")
    both = [
        Move(job_id="j", verb=Verb.EDIT, guard=Guard(version=job.version), to=job.state, changes={"priority": priority})
        for priority in (1, 2)
    ]
    assert [moved.outcome for moved in await store.move(both)] == [Outcome.OK, Outcome.STALE]
    assert (await get(store, "j")).priority == 1


async def test_a_completion_keeps_its_attempt_in_the_row(store: Store, clock: Clock) -> None:
    job = await put(store, "j", IN_PROGRESS)
    clock.advance(2)
    assert job.token
    (moved,) = await store.move([policy.complete("j", job.token, b"result")])
    done = await get(store, "j")
    assert moved.standing == standing_of(done)
    assert (done.state, done.result, done.finish_time) == (JobState.COMPLETED, b"result", clock.now)
    assert done.start_time == job.claim_time == START, "it was acknowledged by its settlement"
    assert done.score == done.purge_time == clock.now + DAY
    assert (done.lease_expire_time, done.acknowledged) == (None, False)
    assert done.attempts == (Attempt(1, "w", START, clock.now, AttemptOutcome.COMPLETED, job.token),)


async def test_a_brief_completion_ends_the_job_the_same_way_and_tells_the_outcome_alone(store: Store) -> None:
    jobs = [await put(store, id, JobState.IN_PROGRESS) for id in ("a", "b", "gone_at_its_end", "lost")]
    await shove(store, "gone_at_its_end", JobState.IN_PROGRESS, retention=0)
    done = [policy.complete(job.id, job.token or b"", b"r") for job in jobs]
    lost = policy.complete("lost", b"no token of it", b"r")
    gone = policy.complete("never", b"t", b"r")
    (whole,) = await store.move([done[0]])
    moved = await store.move([done[1], done[2], lost, gone], brief=True)
    assert [each.outcome for each in moved] == [Outcome.OK, Outcome.OK, Outcome.LOST, Outcome.GONE]
    assert [each.standing for each in moved] == [None] * 4
    assert moved[2].job == await get(store, "lost")
    a, b = await get(store, "a"), await get(store, "b")
    assert whole.standing == standing_of(a)
    own = {name: getattr(a, name) for name in ("id", "score", "queue_time", "token", "fence", "last_operation")}
    assert b._replace(**own) == a
    assert not await is_there(store, "gone_at_its_end")
    assert (await store.move([done[1]], brief=True))[0].outcome is Outcome.OK, "a repeat is told the same"
    assert (await worker(store)).held == 1


async def test_a_result_of_any_size_is_kept_and_a_replay_forgets_it(store: Store) -> None:
    """Stores may keep small ones elsewhere than large ones: a life that ends with one follows one with the other."""
    sizes = (200, 201, 0, 10_000, 1, 10_000, 200)
    job = await put(store, "j")
    for result in (bytes(n % 256 for n in range(size)) for size in sizes):
        (job,) = (await claim(store)).jobs
        assert job.result is None
        assert job.token
        await store.move([policy.complete("j", job.token, result)])
        done = await get(store, "j")
        assert done.result == result
        await store.move([policy.replay(done, etag=None)])
        assert (await get(store, "j")).result is None


async def test_an_edit_keeps_what_tells_a_repeated_create(store: Store, clock: Clock) -> None:
    job = await put(store, "j", submission=b"old")
    edit = policy.edit(job, {"submission": b"new"}, payload=True, etag=None, now=clock.now)
    assert await move(store, edit) is Outcome.OK
    again, other = await store.create([new_job("j", submission=b"old"), new_job("j", digest=b"other")])
    assert (again.outcome, other.outcome) == (CreateOutcome.EXISTED, CreateOutcome.ID_TAKEN)
    assert again.job is not None
    assert again.job.submission == b"new"


async def test_an_empty_result_is_not_the_same_as_none(store: Store) -> None:
    for id, result in (("empty", b""), ("none", None)):
        job = await put(store, id, IN_PROGRESS)
        assert job.token
        await store.move([policy.complete(id, job.token, result)])
        assert (await get(store, id)).result == result


async def test_a_failure_waits_for_its_retry_and_keeps_the_attempt_in_the_history(store: Store, clock: Clock) -> None:
    job = await put(store, "j", IN_PROGRESS)
    clock.advance(1)
    assert job.token
    error = JobError("E", "broke", (("k", "v"),), "w")
    failed = policy.fail(job, job.token, error, permanent=False, retry_delay=9, now=clock.now, random=0)
    assert await move(store, failed) is Outcome.OK
    after = await get(store, "j")
    assert (after.state, after.score, after.retry_count) == (JobState.SCHEDULED, clock.now + 9, 1)
    assert after.queue_time == job.queue_time
    assert after.history == (Attempt(1, "w", START, clock.now, AttemptOutcome.FAILED, job.token, error),)
    assert policy.settled(after, job.token, Verb.FAIL) is policy.Settled.ALIKE


async def test_a_job_that_returns_keeps_its_queue_time_and_rank(store: Store, clock: Clock) -> None:
    first = await put(store, "first")
    clock.advance(1)
    await put(store, "second")
    await claim(store)
    clock.advance(1)
    await shove(store, "first", JobState.QUEUED)
    back = await get(store, "first")
    assert (back.queue_time, back.score) == (first.queue_time, first.score)
    assert (await claim(store)).jobs[0].id == "first"


async def test_a_replay_goes_to_the_end_of_the_queue(store: Store, clock: Clock) -> None:
    ended = await put(store, "j", JobState.FAILED, expire_time=START + DAY)
    clock.advance(1)
    other = await put(store, "other")
    assert await move(store, policy.replay(ended, etag=None)) is Outcome.OK
    again = await get(store, "j")
    assert other.queue_time is not None
    assert again.queue_time == other.queue_time + 1
    assert (again.state, again.finish_time, again.expire_time) == (JobState.QUEUED, None, None)


async def test_an_edited_priority_gives_a_new_rank(store: Store) -> None:
    job = await put(store, "j", priority=5)
    await shove(store, "j", JobState.QUEUED, priority=1)
    edited = await get(store, "j")
    assert edited.score == job.score - 4 * MINUTE
    assert edited.queue_time == job.queue_time


async def test_an_edited_submission_is_stored(store: Store) -> None:
    await put(store, "j", submission=b"old")
    await shove(store, "j", JobState.QUEUED, submission=b"new")
    assert (await get(store, "j")).submission == b"new"
    await shove(store, "j", JobState.QUEUED, submission=b"")
    assert (await get(store, "j")).submission == b""


@pytest.mark.parametrize("state", sorted(ENDED))
async def test_the_end_is_kept_for_the_retention_of_the_job_or_of_its_state(
    store: Store, clock: Clock, state: JobState
) -> None:
    clock.advance(5)
    assert (await put(store, "default", state)).score == clock.now + DEFAULT_RETENTION[state]
    assert (await put(store, "own", state, retention=7)).score == clock.now + 7


async def test_an_ended_job_that_is_edited_keeps_its_finish_time(store: Store, clock: Clock) -> None:
    ended = await put(store, "j", JobState.CANCELED)
    clock.advance(100)
    await shove(store, "j", JobState.CANCELED, retention=MINUTE)
    edited = await get(store, "j")
    assert edited.finish_time == ended.finish_time == START
    assert edited.score == START + MINUTE


async def test_a_job_that_ends_with_retention_zero_is_gone(store: Store) -> None:
    job = await put(store, "j", IN_PROGRESS, retention=0, submission=b"x")
    assert job.token
    done = policy.complete("j", job.token, b"r")
    (moved,) = await store.move([done])
    assert (moved.outcome, moved.standing) == (Outcome.OK, None)
    assert not await is_there(store, "j")
    assert await move(store, done) is Outcome.GONE


async def test_a_cancel_shortens_the_deadline_but_not_the_lease(store: Store) -> None:
    job = await put(store, "j", IN_PROGRESS)
    cancel = policy.cancel(job, reason="why", grace=3 * SECOND, etag=None, now=START)
    assert cancel
    assert await move(store, cancel) is Outcome.OK
    asked = await get(store, "j")
    assert (asked.state, asked.score, asked.limit_time) == (IN_PROGRESS, START + 3 * SECOND, START + 3 * SECOND)
    assert (asked.lease_expire_time, asked.cancel_reason) == (job.lease_expire_time, "why")
    assert (asked.acknowledged, asked.token) == (job.acknowledged, job.token)
    assert (asked.version, asked.revision) == (job.version + 1, job.revision), "repeating it with its etag is safe"


async def test_a_cancel_that_comes_between_reading_and_failing_is_seen(store: Store) -> None:
    job = await put(store, "j", IN_PROGRESS)
    assert job.token
    error = JobError("E", "broke")
    late = policy.fail(job, job.token, error, permanent=False, retry_delay=None, now=START, random=0)
    cancel = policy.cancel(job, reason="", grace=SECOND, etag=None, now=START)
    assert cancel
    assert await move(store, cancel) is Outcome.OK
    (stale,) = await store.move([late])
    assert stale.outcome is Outcome.STALE
    assert stale.job
    again = policy.fail(stale.job, job.token, error, permanent=False, retry_delay=None, now=START, random=0)
    assert await move(store, again) is Outcome.OK
    assert (await get(store, "j")).state is JobState.CANCELED


HARD = "\"'\\\n\r\t\u2028\ufeff𝕁👩‍👩‍👧e\u0301;--"


async def test_every_field_of_a_move_comes_back_as_it_went(store: Store) -> None:
    large = 2**63 - 1
    error = JobError(HARD, HARD, ((HARD, ""), ("", HARD), (HARD, HARD)), HARD)
    attempts = (
        Attempt(1, HARD, 2**53 + 1, large, AttemptOutcome.TIMED_OUT, os.urandom(16), error),
        Attempt(2, "", 0, 0, AttemptOutcome.RELEASED, b""),
    )
    fields: dict[str, Any] = {
        "priority": 10,
        "submission": b"\0\xff",
        "retry": RetryPolicy(1, large, 0.1 + 0.2, large, 1e-300, 2),
        "retention": 1,
        "schedule_time": large,
        "expire_time": large,
        "queue_time": 2**53 + 1,
        "start_time": 2,
        "finish_time": 3,
        "attempt": 4,
        "retry_count": 5,
        "interruption_count": 6,
        "release_count": 7,
        "return_count": 8,
        "token": os.urandom(16),
        "worker_id": "w",
        "claim_time": 9,
        "outcome": AttemptOutcome.INTERRUPTED,
        "end_time": 10,
        "limit_time": 11,
        "progress": Progress(1 / 3, HARD, large),
        "result": b"",
        "error": error,
        "history": attempts,
        "cancel_requested": True,
        "cancel_reason": HARD,
    }
    assert set(fields) == set(JobChanges.__annotations__), "a field of JobChanges is not tried"
    await put(store, "j")
    await shove(store, "j", JobState.SCHEDULED, **fields)
    job = await get(store, "j")
    assert {name: getattr(job, name) for name in fields} == fields
    nothing: dict[str, Any] = {
        "error": None,
        "history": (),
        "result": None,
        "progress": None,
        "outcome": None,
        "queue_time": None,
    }
    await shove(store, "j", JobState.SCHEDULED, **nothing)
    job = await get(store, "j")
    assert (job.error, job.history, job.result, job.progress, job.outcome) == (None, (), None, None, None)


async def test_a_job_that_is_not_there_is_none_and_order_is_kept(store: Store) -> None:
    await store.create([new_job("a"), new_job("b")])
    found = await store.get(["b", "x", "a", "b"])
    assert [job.id if job else None for job in found.jobs] == ["b", None, "a", "b"]
    assert found.now == START
    assert (await claim(store, wish(number=0))).jobs == []
