"""Listings: their order, and walking through them while the store goes on."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tests.store.making import (
    HARD_TEXTS,
    START,
    Clock,
    claim,
    get,
    ids,
    listed,
    new_job,
    pages,
    populate,
    put,
    shove,
    shove_all,
    stock,
    walk,
    wish,
)

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Attempt,
    AttemptOutcome,
    JobError,
    JobState,
    RetryPolicy,
)
from jobwire_server.domain.move import Deletion
from jobwire_server.store.base import Renewal, Store


def one(state: JobState, queue: str = "default") -> JobFilter:
    """One queue in one state."""
    return JobFilter(queues=frozenset({queue}), states=frozenset({state}))


ANN = JobFilter(user_id="ann")
EVERYTHING = JobFilter()
SCHEDULED, QUEUED = one(JobState.SCHEDULED), one(JobState.QUEUED)
LISTINGS = [
    pytest.param(ANN, id="of a user"),
    pytest.param(one(JobState.SCHEDULED, "a"), id="of a queue and state"),
    pytest.param(EVERYTHING, id="of everything"),
]


# --- the order ----------------------------------------------------------------------------------------------


async def test_a_users_jobs_come_newest_first_and_those_of_one_moment_by_descending_id(
    store: Store, clock: Clock
) -> None:
    for names in (["b", "a"], ["c"], ["B", "10", "9", "9-", "9."]):
        await store.create([new_job(id, user_id="ann", queue=f"q{n % 2}") for n, id in enumerate(names)])
        await put(store, f"other-{names[0]}", user_id="bob")
        clock.now += 1
    assert ids(await walk(store, ANN)) == ["B", "9.", "9-", "9", "10", "c", "b", "a"]


async def test_a_users_jobs_of_all_states_and_queues_stand_in_one_line(store: Store, clock: Clock) -> None:
    for state in JobState:
        await put(store, state, state, user_id="ann", queue=f"q-{state}")
        clock.now += 1
    assert ids(await walk(store, ANN)) == [state.value for state in reversed(JobState)]


async def test_a_queue_is_listed_in_the_order_in_which_it_is_claimed(store: Store, clock: Clock) -> None:
    for number, priority in enumerate([5, 1, 9, 1, 5, 2]):
        await put(store, f"j{number}", priority=priority)
        clock.advance(90)
    found = ids(await walk(store, QUEUED))
    assert found == ids((await claim(store, wish(number=9))).jobs)
    assert found == ["j1", "j0", "j3", "j5", "j4", "j2"]


async def test_jobs_of_one_score_come_by_the_bytes_of_their_ids(store: Store) -> None:
    names = ["b", "a", "Z", "a.", "a-", "a_", "B", "10", "9", "1", "aa"]
    await store.create([new_job(id, schedule_time=START + HOUR) for id in names])
    assert ids(await walk(store, SCHEDULED)) == sorted(names, key=str.encode)


async def test_all_jobs_come_by_queue_then_state_then_score_then_id(store: Store, clock: Clock) -> None:
    jobs = await populate(store, clock)
    assert ids(await walk(store, EVERYTHING)) == ids(listed(EVERYTHING, jobs))
    wanted = JobFilter(queues=frozenset({"a.", "a"}), states=frozenset({JobState.FAILED, JobState.SCHEDULED}))
    assert ids(await walk(store, wanted)) == ids(listed(wanted, jobs))


@pytest.mark.parametrize("state", JobState)
async def test_each_state_is_listed_by_its_own_time(store: Store, clock: Clock, state: JobState) -> None:
    """Due time, rank, deadline, purge time."""
    jobs = await populate(store, clock)
    for queue in ("a", "a-", "a."):
        found = await walk(store, one(state, queue), limit=7)
        assert found == listed(one(state, queue), jobs)
        assert [job.score for job in found] == sorted(job.score for job in found)


async def test_a_found_job_is_whole(store: Store) -> None:
    fields = {"submission": b"\0\xff", "type": "t", "retry": RetryPolicy(7, 8, 1.1, 9, 0.3, 10), "retention": DAY}
    job = await put(store, "j", JobState.IN_PROGRESS, user_id="ann", execution_timeout=9 * SECOND, **fields)
    await store.renew([Renewal(job_id="j", token=job.token or b"", fraction=1 / 3, message="¼")])
    error = JobError("E", "broke", (("k", "v"),), "w")
    past = (Attempt(1, "v", 1, 2, AttemptOutcome.FAILED, b"t" * 16, error),)
    changes: dict[str, Any] = {"attempt": 2, "history": past, "error": error, "result": b"", "cancel_reason": "why"}
    await shove(store, "j", JobState.IN_PROGRESS, **changes)
    whole = await get(store, "j")
    assert await walk(store, ANN) == await walk(store, one(JobState.IN_PROGRESS)) == [whole]


async def test_a_page_says_the_time_of_the_store(store: Store, clock: Clock) -> None:
    clock.advance(3)
    assert (await store.find(EVERYTHING, limit=1)).now == clock.now
    assert (await store.find(ANN, limit=1)).now == clock.now


# --- pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
@pytest.mark.parametrize("wanted", LISTINGS)
async def test_a_walk_sees_each_job_once_whatever_the_size_of_its_pages(
    store: Store, clock: Clock, wanted: JobFilter, limit: int
) -> None:
    jobs = await populate(store, clock)
    assert ids(await walk(store, wanted, limit=limit)) == ids(listed(wanted, jobs))


@pytest.mark.parametrize("wanted", [ANN, SCHEDULED, JobFilter(queues=frozenset({"default"})), EVERYTHING])
async def test_the_end_is_none_exactly_when_nothing_is_behind(store: Store, wanted: JobFilter) -> None:
    await stock(store, 4, user_id="ann", schedule_time=START + HOUR)
    for limit in range(1, 7):
        found = await store.find(wanted, limit=limit)
        assert len(found.jobs) == min(limit, 4)
        assert (found.end is None) is (limit >= 4), f"a page of {limit}"


@pytest.mark.parametrize("wanted", [ANN, QUEUED, EVERYTHING])
async def test_a_listing_of_nothing_ends_at_once(store: Store, wanted: JobFilter) -> None:
    for where in (None, Position("default", JobState.FAILED, START, "j")):
        found = await store.find(wanted, after=where, limit=9)
        assert (found.jobs, found.end) == ([], None)


@pytest.mark.parametrize("wanted", LISTINGS)
async def test_a_listing_goes_on_right_behind_any_job(store: Store, clock: Clock, wanted: JobFilter) -> None:
    whole = listed(wanted, await populate(store, clock))
    for n in range(0, len(whole), 11):
        found = await store.find(wanted, after=wanted.position_of(whole[n]), limit=3)
        assert ids(found.jobs) == ids(whole[n + 1 : n + 4])
    assert ids(await walk(store, wanted, after=wanted.position_of(whole[-1]))) == []


async def test_a_position_without_an_id_stands_before_all_jobs_of_its_score(store: Store, clock: Clock) -> None:
    await stock(store, 3, user_id="ann", schedule_time=START + HOUR)
    clock.now += 1
    await put(store, "newer", user_id="ann", schedule_time=START + HOUR - 1)
    at = Position("default", JobState.SCHEDULED, START + HOUR, "")
    assert ids(await walk(store, SCHEDULED, after=at)) == ["j0000", "j0001", "j0002"]
    assert ids(await walk(store, ANN, after=Position("", JobState.SCHEDULED, START, ""))) == ["j0002", "j0001", "j0000"]


async def test_a_position_in_a_queue_that_is_not_asked_for_stands_between_its_neighbours(store: Store) -> None:
    for name in ("a", "b", "c"):
        await put(store, name, queue=name)
    wanted = JobFilter(queues=frozenset({"a", "c"}))
    for state in (JobState.SCHEDULED, JobState.QUEUED, JobState.EXPIRED):
        assert ids(await walk(store, wanted, after=Position("b", state, START, "j"))) == ["c"]
    assert ids(await walk(store, wanted, after=Position("a", JobState.IN_PROGRESS, 0, ""))) == ["c"]


@pytest.mark.parametrize("limit", [99, 1000])
async def test_three_thousand_jobs_of_one_score_are_paged_exactly(store: Store, limit: int) -> None:
    await stock(store, 3000, schedule_time=START + HOUR, user_id="ann")
    names = [f"j{n:04}" for n in range(3000)]
    assert ids(await walk(store, SCHEDULED, limit=limit)) == names
    assert ids(await walk(store, ANN, limit=limit)) == names[::-1]


# --- while the store goes on --------------------------------------------------------------------------------


async def _goes(store: Store, id: str, how: str) -> None:
    if how == "removed":
        assert await shove(store, id, JobState.CANCELED, retention=0) is None
    elif how == "deleted":
        assert await store.delete([Deletion(id, (await get(store, id)).version)]) == [Outcome.OK]
    else:
        await shove(store, id, JobState.SCHEDULED, schedule_time=START + 1)  # to the front, which is past


GOING = [(SCHEDULED, "removed"), (SCHEDULED, "deleted"), (SCHEDULED, "moved"), (ANN, "removed"), (ANN, "deleted")]


@pytest.mark.parametrize(("wanted", "how"), GOING)
async def test_jobs_that_go_between_pages_spoil_nothing(store: Store, wanted: JobFilter, how: str) -> None:
    await stock(store, 30, schedule_time=START + HOUR, user_id="ann")
    whole = await walk(store, wanted)
    page = await store.find(wanted, limit=10)
    assert page.jobs == whole[:10]
    gone = [whole[n].id for n in (9, 3, 10, 15, 29)]  # the cursor's, one seen, the next, one to come, the last
    for id in gone:
        await _goes(store, id, how)
    rest = ids(await walk(store, wanted, after=page.end, limit=4))
    assert rest == [job.id for job in whole[10:] if job.id not in gone]


@pytest.mark.parametrize(("wanted", "how"), GOING)
async def test_a_walk_that_clears_away_what_it_sees_sees_all(store: Store, wanted: JobFilter, how: str) -> None:
    await stock(store, 23, schedule_time=START + HOUR, user_id="ann")
    whole = await walk(store, wanted)
    seen: list[str] = []
    async for page in pages(store, wanted, limit=3):
        for job in page:
            seen.append(job.id)
            await _goes(store, job.id, how)
    assert seen == ids(whole)


async def test_a_walk_goes_on_in_the_next_queue_when_its_own_has_emptied(store: Store) -> None:
    for queue in ("a", "b", "c"):
        await store.create([new_job(f"{queue}{n}", queue=queue) for n in range(4)])
    page = await store.find(EVERYTHING, limit=2)
    assert ids(page.jobs) == ["a0", "a1"]
    await shove_all(store, {f"a{n}": JobState.SCHEDULED for n in range(4)})  # which is before QUEUED
    assert ids(await walk(store, EVERYTHING, after=page.end, limit=3)) == [f"{q}{n}" for q in "bc" for n in range(4)]


async def test_jobs_that_enter_behind_the_cursor_are_seen_and_those_before_it_are_not(
    store: Store, clock: Clock
) -> None:
    await store.create([new_job(id, schedule_time=START + HOUR, user_id="ann") for id in ("b", "d", "f")])
    by_score = await store.find(SCHEDULED, limit=2)
    by_time = await store.find(ANN, limit=2)
    assert (ids(by_score.jobs), ids(by_time.jobs)) == (["b", "d"], ["f", "d"])
    await store.create([new_job(id, schedule_time=START + HOUR, user_id="ann") for id in ("a", "c", "e", "g")])
    await put(store, "sooner", schedule_time=START + MINUTE)
    await put(store, "later", schedule_time=START + DAY)
    assert ids(await walk(store, SCHEDULED, after=by_score.end)) == ["e", "f", "g", "later"]
    assert ids(await walk(store, ANN, after=by_time.end)) == ["c", "b", "a"]
    clock.now += 1
    await put(store, "newer", user_id="ann")
    clock.now -= 2
    await put(store, "older", user_id="ann")
    assert ids(await walk(store, ANN, after=by_time.end)) == ["c", "b", "a", "older"]


async def test_a_growing_queue_is_walked_to_where_it_then_ends(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(3)])
    seen: list[str | None] = []
    async for page in pages(store, QUEUED, limit=2):
        seen += ids(page)
        if len(seen) < 8:
            await store.create([new_job(f"j{len(seen)}-{n}") for n in range(2)])
    assert len(seen) == len(set(seen)) == 9


async def test_a_job_that_changes_without_moving_is_seen_once_and_as_it_is(store: Store, clock: Clock) -> None:
    await stock(store, 6, user_id="ann", schedule_time=START + HOUR)
    page = await store.find(SCHEDULED, limit=3)
    clock.advance(1)
    for id in ("j0002", "j0003"):
        await shove(store, id, JobState.SCHEDULED, schedule_time=START + HOUR, submission=b"new")
    rest = await walk(store, SCHEDULED, after=page.end)
    assert ids(rest) == ["j0003", "j0004", "j0005"]
    assert (rest[0].submission, rest[0].update_time) == (b"new", clock.now)


# --- text ---------------------------------------------------------------------------------------------------


async def test_users_and_types_are_told_apart_by_every_character(store: Store) -> None:
    texts = list(HARD_TEXTS)
    Random(1).shuffle(texts)
    await store.create([new_job(f"j{n:02}", user_id=text, type=text) for n, text in enumerate(texts)])
    for n, text in enumerate(texts):
        assert ids(await walk(store, JobFilter(user_id=text))) == [f"j{n:02}"], text
        assert ids(await walk(store, JobFilter(types=frozenset({text})))) == [f"j{n:02}"], text
    most = frozenset(texts[1:])
    assert ids(await walk(store, JobFilter(types=most))) == [f"j{n:02}" for n in range(1, len(texts))]
