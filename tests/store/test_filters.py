"""What a filter means to `find` and `count`: what JobFilter.matches says, in stretches of a bounded cost."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import pytest
from tests.store.making import (
    QUEUES,
    START,
    TYPES,
    USERS,
    Clock,
    count,
    ids,
    listed,
    new_job,
    pages,
    populate,
    put,
    shove,
    stock,
    walk,
)

from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.job import ENDED, SECOND, WAITING, JobState
from jobwire_server.store.base import FOUND_BYTES, SCAN, Store

PARTS: list[tuple[str, Any]] = [
    ("queues", frozenset({QUEUES[0]})),
    ("queues", frozenset({QUEUES[2], QUEUES[1], "unknown"})),
    ("queues", frozenset({"unknown"})),
    ("states", frozenset({JobState.QUEUED})),
    ("states", frozenset({JobState.IN_PROGRESS})),
    ("states", WAITING),
    ("states", ENDED),
    ("user_id", USERS[0]),
    ("user_id", USERS[1]),
    ("user_id", "unknown"),
    ("types", frozenset({TYPES[0]})),
    ("types", frozenset({TYPES[1], TYPES[2]})),
    ("types", frozenset({"unknown"})),
    ("created_from", START + 8 * SECOND),
    ("created_from", START + 8 * SECOND + 1),
    ("created_before", START + 12 * SECOND),
    ("created_before", START + 12 * SECOND + 1),
    ("created_before", 0),
]
"""Each part of a filter with some values."""

WHOLE: list[dict[str, Any]] = [
    {
        "queues": frozenset(QUEUES[:2]),
        "states": ENDED | WAITING,
        "user_id": user,
        "types": frozenset(TYPES[:2]),
        "created_from": START + 2 * SECOND,
        "created_before": START + 19 * SECOND,
    }
    for user in (*USERS, "")
]
"""All parts at once."""


async def test_find_and_count_agree_with_the_filter_over_all_jobs(store: Store, clock: Clock) -> None:
    jobs = await populate(store, clock)
    some = [dict([part]) for part in PARTS]
    some += [dict(pair) for pair in combinations(PARTS, 2) if pair[0][0] != pair[1][0]]
    for parts in [{}, *some, *WHOLE]:
        wanted = JobFilter(**parts)
        expected = listed(wanted, jobs)
        assert ids(await walk(store, wanted, limit=9)) == ids(expected), wanted
        assert await count(store, wanted) == Counter(job.state for job in expected), wanted
    assert all(listed(JobFilter(**parts), jobs) for parts in WHOLE), "a filter that nothing passes proves little"


async def test_a_time_of_creation_is_asked_from_and_before(store: Store, clock: Clock) -> None:
    for id in ("a", "b", "c"):
        await put(store, id, user_id="ann")
        clock.now += 1
    for user in ("", "ann"):
        wanted = JobFilter(user_id=user, created_from=START + 1, created_before=START + 2)
        assert ids(await walk(store, wanted)) == ["b"]
        assert ids(await walk(store, JobFilter(user_id=user, created_from=START + 3))) == []
        assert await count(store, wanted) == {JobState.QUEUED: 1}


async def test_a_store_leaves_what_stands_inside_the_submission_to_its_caller(store: Store) -> None:
    def never(submission: bytes) -> bool:
        raise AssertionError(f"a store looked into {submission!r}")

    await put(store, "a", user_id="ann", type="t", submission=b"x")
    await put(store, "b", user_id="ann")
    asked: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["a", "b"]),
        ({"user_id": "ann"}, ["b", "a"]),
        ({"types": frozenset({"t"})}, ["a"]),
    ]
    for parts, found in asked:
        wanted = JobFilter(**parts, submission_matches=never)
        assert ids(await walk(store, wanted)) == found
        assert await count(store, wanted) == {JobState.QUEUED: len(found)}


# --- what one call may cost ---------------------------------------------------------------------------------


async def _a_needle(store: Store, clock: Clock, wanted: JobFilter) -> None:
    """SCAN + 500 jobs, of which only the last one of that listing matches."""
    last_is_oldest = bool(wanted.user_id)
    if last_is_oldest:
        await put(store, "needle", user_id="ann", type="needle")
        clock.now += 1
    await stock(store, SCAN + 499, user_id="ann", type="hay")
    if not last_is_oldest:
        await put(store, "needle", user_id="ann", type="needle")


NEEDLE: dict[str, Any] = {"types": frozenset({"needle"})}
HAYSTACKS = [
    pytest.param(JobFilter(**NEEDLE), id="in all"),
    pytest.param(JobFilter(**NEEDLE, queues=frozenset({"default"})), id="in a queue"),
    pytest.param(JobFilter(**NEEDLE, states=frozenset({JobState.QUEUED})), id="in a state"),
    pytest.param(JobFilter(**NEEDLE, user_id="ann"), id="of a user"),
]


@pytest.mark.parametrize("wanted", HAYSTACKS)
async def test_the_only_match_among_many_is_found_by_going_on(store: Store, clock: Clock, wanted: JobFilter) -> None:
    await _a_needle(store, clock, wanted)
    first = await store.find(wanted, limit=10)
    assert first.jobs == []
    assert first.end is not None
    assert ids(await walk(store, wanted, after=first.end)) == ["needle"]


@pytest.mark.parametrize("wanted", HAYSTACKS)
async def test_the_only_match_among_many_is_counted_by_going_on(store: Store, clock: Clock, wanted: JobFilter) -> None:
    await _a_needle(store, clock, wanted)
    first = await store.count(wanted)
    assert first.by_state == {}
    assert first.end is not None
    assert (await store.count(wanted, after=first.end)).by_state == {JobState.QUEUED: 1}
    assert await count(store, wanted) == {JobState.QUEUED: 1}


async def test_jobs_that_match_here_and_there_come_in_short_pages(store: Store, clock: Clock) -> None:
    for n in range(5):
        await store.create([new_job(f"hay{n}-{m:03}", type="hay", user_id="ann") for m in range(499)])
        clock.now += 1
        await put(store, f"needle{n}", type="needle", user_id="ann")
        clock.now += 1
    for user in ("", "ann"):
        wanted = JobFilter(**NEEDLE, user_id=user)
        found = [ids(page) async for page in pages(store, wanted, limit=5)]
        names = [f"needle{n}" for n in range(5)]
        assert [id for page in found for id in page] == (names[::-1] if user else names)
        assert len(found) >= 3, "2,500 jobs were looked at"
        assert max(map(len, found)) <= 3


async def test_a_stretch_of_a_count_is_bounded(store: Store) -> None:
    await stock(store, 2 * SCAN + 500, user_id="ann")
    for wanted in (JobFilter(user_id="ann"), JobFilter(created_from=START)):
        assert sum((await store.count(wanted)).by_state.values()) <= SCAN
        assert await count(store, wanted) == {JobState.QUEUED: 2 * SCAN + 500}


async def test_queues_without_jobs_cost_too(store: Store) -> None:
    """300 queues have 2,100 indices: a call that went through all of them would hold up everybody."""
    await store.create([new_job(f"j{n:03}", queue=f"q{n:03}") for n in range(300)])
    names = [f"j{n:03}" for n in range(300)]
    page = await store.find(JobFilter(), limit=1000)
    assert page.end is not None
    assert 0 < len(page.jobs) < 200
    assert ids(await walk(store, JobFilter(), limit=1000)) == names
    unknown = frozenset(f"x{n:04}" for n in range(SCAN + 1))
    assert (await store.find(JobFilter(queues=unknown), limit=10)).end is not None
    assert ids(await walk(store, JobFilter(queues=unknown | {"q007"}))) == ["j007"]


@pytest.mark.parametrize("user", ["", "ann"])
async def test_large_jobs_come_few_at_a_time(store: Store, clock: Clock, user: str) -> None:
    for n in range(10):
        await store.create([new_job(f"j{n}", user_id="ann", submission=bytes(FOUND_BYTES // 4 + 1))])
        clock.now += 1
    wanted = JobFilter(user_id=user)
    found = [ids(page) async for page in pages(store, wanted, limit=1000)]
    names = [f"j{n}" for n in range(10)]
    assert [id for page in found for id in page] == (names[::-1] if user else names)
    assert [len(page) for page in found if page] == [4, 4, 2], "a page ends when it is full, not before"


async def test_results_are_as_heavy_as_submissions(store: Store) -> None:
    for n in range(3):
        await put(store, f"j{n}", JobState.COMPLETED, submission=bytes(FOUND_BYTES // 4))
        await shove(store, f"j{n}", JobState.COMPLETED, result=bytes(FOUND_BYTES // 4))
    completed = JobFilter(queues=frozenset({"default"}), states=frozenset({JobState.COMPLETED}))
    assert [ids(page) async for page in pages(store, completed, limit=9)] == [["j0", "j1"], ["j2"]]


async def test_a_job_heavier_than_a_page_comes_alone(store: Store) -> None:
    for n in range(3):
        await store.create([new_job(f"j{n}", submission=bytes(FOUND_BYTES + 1))])
    queued = JobFilter(queues=frozenset({"default"}), states=frozenset({JobState.QUEUED}))
    assert [ids(page) async for page in pages(store, queued, limit=9)] == [["j0"], ["j1"], ["j2"]]


async def test_what_does_not_match_weighs_nothing(store: Store) -> None:
    for n in range(3):
        await store.create([new_job(f"j{n}", submission=bytes(FOUND_BYTES + 1), type="heavy")])
    await put(store, "light", type="light")
    page = await store.find(JobFilter(types=frozenset({"light"})), limit=9)
    assert (ids(page.jobs), page.end) == (["light"], None)
