"""The registry of workers: what they said of themselves, when they were heard, what they hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.store.making import HARD_TEXTS, START, Clock, claim, move, new_job, put, silence, wish, worker

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.store.base import ClaimOutcome, Store, WorkerInfo, WorkerRecord, Workers

HARD = "".join(HARD_TEXTS)

TOLD = WorkerInfo(
    id="w",
    session=3,
    host="host-1",
    pid=4711,
    runtime="python 3.12",
    version="1.2.3",
    labels=(("zone", "b"), ("disk", ""), ("", "x")),
    queues=("b", "a"),
)
AGAIN: dict[str, Any] = {
    "session": 4,
    "host": "host-2",
    "pid": 1,
    "runtime": "go",
    "version": "2",
    "labels": (("zone", "c"),),
    "queues": ("c",),
}
"""Something else for each part."""


async def ids(store: Store, **asked: Any) -> list[str]:
    return [record.info.id for record in (await store.workers(**asked)).workers]


# --- what a worker says -------------------------------------------------------------------------------------


async def test_an_empty_registry_has_nobody(store: Store) -> None:
    assert await store.workers() == Workers(START, [])
    assert await store.workers(ids=["w"]) == Workers(START, [])


async def test_what_a_worker_says_of_itself_is_listed(store: Store, clock: Clock) -> None:
    clock.advance(1)
    assert await store.beat(TOLD)
    assert await store.workers() == Workers(clock.now, [WorkerRecord(TOLD, clock.now, 0)])


async def test_hard_text_and_large_numbers_come_back_as_they_went(store: Store) -> None:
    pairs = tuple((text, HARD) for text in HARD_TEXTS)
    told = replace(TOLD, session=2**62 + 1, pid=2**31, host=HARD, runtime=HARD, version=HARD, labels=pairs)
    assert await store.beat(told)
    assert (await worker(store)).info == told


async def test_what_it_leaves_unsaid_stays(store: Store, clock: Clock) -> None:
    assert set(AGAIN) | {"id"} == set(WorkerInfo.__slots__), "a part is not tried"
    await store.beat(TOLD)
    clock.advance(5)
    assert await store.beat(WorkerInfo(id="w"))
    assert await worker(store) == WorkerRecord(TOLD, clock.now, 0)
    told = TOLD
    for part, value in AGAIN.items():
        await store.beat(WorkerInfo(id="w", **{part: value}))
        told = replace(told, **{part: value})
        assert (await worker(store)).info == told


async def test_a_superseded_worker_is_not_listened_to(store: Store, clock: Clock) -> None:
    await store.beat(TOLD)
    before = await worker(store)
    clock.advance(1)
    assert not await store.beat(WorkerInfo(id="w", **{**AGAIN, "session": 2}))
    assert await worker(store) == before


async def test_workers_do_not_hear_what_others_say(store: Store) -> None:
    await store.beat(TOLD)
    await store.beat(WorkerInfo(id="v", host="other"))
    assert (await worker(store, "v")).info == WorkerInfo(id="v", host="other")
    assert (await worker(store)).info == TOLD


async def test_a_silent_worker_is_listed_and_forgets_nothing(store: Store, clock: Clock) -> None:
    await store.beat(replace(TOLD, session=1))
    await silence(store, clock, "w")
    assert (await worker(store)).info == replace(TOLD, session=1)
    assert await store.beat(WorkerInfo(id="w"))
    assert await worker(store) == WorkerRecord(replace(TOLD, session=1), clock.now, 0)


# --- what the store knows of it -----------------------------------------------------------------------------


async def test_a_worker_is_known_from_its_first_claim_on(store: Store, clock: Clock) -> None:
    clock.advance(1)
    await put(store, "j")
    await claim(store, wish("w", session=7))
    assert await worker(store) == WorkerRecord(WorkerInfo(id="w", session=7), clock.now, 1)
    await claim(store, wish("v", session=0), queue="empty")
    assert await worker(store, "v") == WorkerRecord(WorkerInfo(id="v"), clock.now, 0)


async def test_a_claim_brings_a_newer_session_and_leaves_the_rest(store: Store) -> None:
    await store.beat(TOLD)
    await claim(store, wish(session=9))
    assert (await worker(store)).info == replace(TOLD, session=9)
    assert (await claim(store, wish(session=8))).outcome is ClaimOutcome.SUPERSEDED
    assert (await worker(store)).info == replace(TOLD, session=9)


async def test_held_is_the_number_of_its_leases_over_all_queues(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"j{n}", queue=f"q{n % 2}") for n in range(8)])
    jobs = (await claim(store, wish(number=3), queue="q0")).jobs
    jobs += (await claim(store, wish(number=2), queue="q1")).jobs
    await claim(store, wish("v", 1), queue="q1")
    clock.advance(1000)
    assert [(await worker(store, id)).held for id in ("w", "v")] == [5, 1], "only moves take a lease away"
    await move(store, policy.complete(jobs[0].id, jobs[0].token or b"", None))
    assert await move(store, policy.reap(jobs[1], now=clock.now, random=0)) is Outcome.OK
    await store.delete([Deletion(jobs[2].id, jobs[2].version)])
    assert [(await worker(store, id)).held for id in ("w", "v")] == [2, 1]


async def test_only_a_beat_is_a_sign_of_life(store: Store, clock: Clock) -> None:
    await store.beat(TOLD)
    clock.advance(10)
    await put(store, "other", JobState.CANCELED)
    await store.purge(limit=9)
    assert (await worker(store)).last_beat == START
    await store.beat(WorkerInfo(id="w"))
    assert (await worker(store)).last_beat == clock.now


# --- pages --------------------------------------------------------------------------------------------------


async def test_workers_come_by_the_bytes_of_their_ids_behind_an_id_up_to_a_limit(store: Store) -> None:
    made = ["b", "a", "Z", "a.", "a-", "a_", "B", "10", "9", "1", "aa"]
    for id in made:
        await store.beat(WorkerInfo(id=id, host=id))
    order = sorted(made, key=str.encode)
    assert await ids(store) == order
    for limit in (1, 2, 7, 11, 50):
        seen: list[str] = []
        while page := await ids(store, after=seen[-1] if seen else "", limit=limit):
            assert len(page) <= limit
            seen += page
        assert seen == order, f"pages of {limit}"
    assert await ids(store, after="a", limit=2) == ["a-", "a."]
    assert await ids(store, after="a,") == await ids(store, after="a"), "behind an id that is not there"


async def test_named_workers_are_listed_and_those_that_are_not_known_left_out(store: Store) -> None:
    for id in ("a", "b", "c"):
        await store.beat(WorkerInfo(id=id))
    assert await ids(store, ids=["c", "unknown", "a"]) == ["a", "c"]
    assert await ids(store, ids=["unknown"]) == []


@pytest.mark.parametrize("first", [0, 1])
async def test_more_than_a_thousand_workers_come_a_thousand_at_a_time(store: Store, first: int) -> None:
    made = [f"w{n:04}" for n in range(1100)]
    await store.create([new_job(f"j{n}") for n in range(1000)])
    await store.claim("default", [wish(id, first) for id in made])
    found = (await store.workers()).workers
    assert [(record.info.id, record.held) for record in found] == [(id, first) for id in made[:1000]]
    assert await ids(store, after=made[999]) == made[1000:]
    assert await ids(store, ids=made[5:900]) == made[5:900]
