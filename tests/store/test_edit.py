"""Edits as Moves: what is named changes, all else stays, in every state."""

from __future__ import annotations

from typing import Any

import pytest
from tests.store.making import (
    START,
    Clock,
    claim,
    count,
    get,
    ids,
    move,
    new_job,
    put,
    rang,
    shove,
    standing_of,
    walk,
    wish,
)

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import (
    DAY,
    DEFAULT_RETENTION,
    ENDED,
    HOUR,
    MINUTE,
    SECOND,
    WAITING,
    Attempt,
    AttemptOutcome,
    Job,
    JobError,
    JobState,
    Progress,
    RetryPolicy,
)
from jobwire_server.domain.move import JobChanges
from jobwire_server.store.base import Hints, Store


async def full(store: Store, state: JobState) -> Job:
    """A job in that state with something in every field that an edit must not touch."""
    await put(
        store,
        "j",
        state,
        queue="q",
        type="t",
        user_id="ann",
        submission=b"\0payload",
        retry=RetryPolicy(7, 8, 1.1, 9, 0.3, 10),
        execution_timeout=HOUR,
        retention=2 * DAY,
        expire_time=START + 2 * 10**12,
    )
    error = JobError("E", "broke", (("k", "v"),), "w")
    history = (Attempt(1, "v", 1, 2, AttemptOutcome.FAILED, b"t" * 16, error),)
    changes: dict[str, Any] = {"error": error, "attempt": 2, "history": history, "retry_count": 1}
    if state is JobState.IN_PROGRESS:
        changes |= {"progress": Progress(0.5, "half", START)}
    if state in ENDED:
        changes |= {"result": b"r", "start_time": START}
    job = await shove(store, "j", state, **changes)
    assert job
    return job


async def edit(store: Store, job: Job, clock: Clock, changes: JobChanges) -> Job:
    planned = policy.edit(job, changes, payload=False, etag=job.etag, now=clock.now)
    (moved,) = await store.move([planned])
    assert moved.outcome is Outcome.OK
    after = await get(store, job.id)
    assert moved.standing == standing_of(after)
    return after


EDITS: list[JobChanges] = [
    {"priority": 1},
    {"priority": 10},
    {"submission": b"new"},
    {"submission": b""},
    {"retry": RetryPolicy(0, 0, 1.0, 0, 0.0, 0)},
    {"retention": HOUR},
    {"retention": None},
    {"expire_time": START + 3 * 10**12},
    {"expire_time": None},
    {"schedule_time": START + 10**11},
    {"priority": 2, "submission": b"both", "retention": 0, "retry": RetryPolicy()},
    {},
]


def _rank(job: Job) -> int:
    assert job.queue_time is not None
    return job.queue_time + (job.priority - 1) * MINUTE


def _place(job: Job) -> int | None:
    """Where a job of its state has to stand, by `Move`."""
    if job.state is JobState.SCHEDULED:
        return job.schedule_time
    if job.state is JobState.QUEUED:
        return _rank(job)
    if job.state is JobState.IN_PROGRESS:
        return job.lease_expire_time
    assert job.finish_time is not None
    return job.finish_time + (DEFAULT_RETENTION[job.state] if job.retention is None else job.retention)


LEGAL = [
    pytest.param(state, changes, id=f"{state}-{'+'.join(changes) or 'nothing'}")
    for state in JobState
    for changes in EDITS
    if state.is_waiting or not changes.keys() & {"schedule_time", "expire_time"}
]
"""Edits that `policy.edit` lets pass in that state."""


@pytest.mark.parametrize(("state", "changes"), LEGAL)
async def test_what_an_edit_names_changes_and_all_else_stays(
    store: Store, clock: Clock, state: JobState, changes: JobChanges
) -> None:
    before = await full(store, state)
    clock.advance(3)
    after = await edit(store, before, clock, changes)
    expected: dict[str, Any] = {
        **changes,
        "state": JobState.SCHEDULED if "schedule_time" in changes else state,
        "score": _place(after),
        "update_time": clock.now,
        "version": before.version + 1,
        "revision": before.revision + 1,
        "last_operation": after.last_operation,
    }
    assert after == before._replace(**expected)
    assert after.last_operation != before.last_operation
    assert ids(await walk(store, JobFilter(user_id="ann"))) == ["j"]
    assert await count(store, JobFilter()) == {after.state: 1}


@pytest.mark.parametrize("state", JobState)
async def test_an_edit_of_a_job_that_has_changed_since_is_stale(store: Store, state: JobState) -> None:
    old = await put(store, "j", state)
    now = await shove(store, "j", state, retry_count=1)
    for changes in EDITS[:7]:
        planned = policy.edit(old, changes, payload=False, etag=None, now=START)
        (moved,) = await store.move([planned])
        assert (moved.outcome, moved.job) == (Outcome.STALE, now)
    assert await get(store, "j") == now


# --- schedule_time and priority -----------------------------------------------------------------------------


@pytest.mark.parametrize("due", [None, START - DAY, START])
async def test_a_scheduled_job_that_is_due_now_is_queued_and_told(store: Store, clock: Clock, due: int | None) -> None:
    job = await put(store, "j", schedule_time=START + HOUR)
    other = await put(store, "other", queue="default")
    hints = store.hints()
    after = await edit(store, job, clock, {"schedule_time": due})
    assert other.queue_time is not None
    assert (after.state, after.queue_time, after.schedule_time) == (JobState.QUEUED, other.queue_time + 1, due)
    assert await rang(store, hints) == Hints(queued={"default": 1})
    assert ids((await claim(store, wish(number=9))).jobs) == ["other", "j"]


async def test_a_queued_job_that_is_put_off_waits_and_comes_back_to_its_place(store: Store, clock: Clock) -> None:
    job = await put(store, "j")
    clock.advance(1)
    await put(store, "other")
    off = await edit(store, job, clock, {"schedule_time": clock.now + SECOND})
    assert (off.state, off.score, off.queue_time) == (JobState.SCHEDULED, clock.now + SECOND, job.queue_time)
    assert (await store.claim("default", [])).remaining == 1
    assert await store.promote(limit=9) == 0
    clock.advance(1)
    assert await store.promote(limit=9) == 1
    back = await get(store, "j")
    assert (back.state, back.score) == (JobState.QUEUED, job.score)
    assert ids((await claim(store, wish(number=9))).jobs) == ["j", "other"]


async def test_a_new_due_time_is_the_one_that_counts(store: Store, clock: Clock) -> None:
    sooner = await put(store, "sooner", schedule_time=START + HOUR)
    later = await put(store, "later", schedule_time=START + SECOND)
    await edit(store, sooner, clock, {"schedule_time": START + 2})
    await edit(store, later, clock, {"schedule_time": START + DAY})
    clock.advance(60)
    assert await store.promote(limit=9) == 1
    assert (await get(store, "sooner")).state is JobState.QUEUED


async def test_a_priority_edited_before_the_entry_is_the_one_it_enters_with(store: Store, clock: Clock) -> None:
    later = await put(store, "later", schedule_time=START + SECOND)
    held = await put(store, "held", JobState.IN_PROGRESS)
    await edit(store, later, clock, {"priority": 1})
    running = await edit(store, held, clock, {"priority": 1})
    assert (running.score, running.token, running.worker_id) == (held.score, held.token, "w"), "its deadline stays"
    clock.advance(1)
    await store.promote(limit=9)
    await move(store, policy.release(running, held.token or b"", delay=0, now=clock.now, random=0))
    for id in ("later", "held"):
        job = await get(store, id)
        assert job.score == job.queue_time, "priority 1 waits for nothing"


async def test_an_edit_of_a_waiting_job_rings_no_bell(store: Store, clock: Clock) -> None:
    job = await put(store, "j")
    hints = store.hints()
    for changes in EDITS[:8]:
        job = await edit(store, job, clock, changes)
    assert await rang(store, hints) == Hints()


# --- retention ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(ENDED))
async def test_a_retention_edited_after_the_end_counts_from_the_end(
    store: Store, clock: Clock, state: JobState
) -> None:
    job = await put(store, "j", state)
    clock.advance(100)
    longer = await edit(store, job, clock, {"retention": 30 * DAY})
    assert (longer.purge_time, longer.finish_time) == (START + 30 * DAY, START)
    gone = await edit(store, longer, clock, {"retention": 0})
    assert gone.purge_time == START
    assert await store.purge(limit=9) == 1


async def test_a_retention_of_zero_edited_before_the_end_leaves_nothing_at_the_end(store: Store, clock: Clock) -> None:
    for state in [*sorted(WAITING), JobState.IN_PROGRESS]:
        job = await put(store, state, state, queue=f"q-{state}", submission=b"x")
        await edit(store, job, clock, {"retention": 0})
        assert await shove(store, state, JobState.CANCELED) is None
    assert await count(store, JobFilter()) == {}


async def test_what_a_create_brings_again_is_the_edited_job(store: Store, clock: Clock) -> None:
    """Sameness is judged by what came, not by what the job has become."""
    job = await put(store, "j", submission=b"old")
    after = await edit(store, job, clock, {"submission": b"new", "priority": 1})
    (again,) = await store.create([new_job("j", submission=b"old")])
    assert (again.outcome, again.job) == ("existed", after)
