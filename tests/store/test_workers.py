"""The registry of workers: what they said of themselves, when they were heard, what they hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.store.making import HARD_TEXTS, START, Clock, claim, move, new_job, put, rang, silence, wish, worker

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.domain.worker import LOST_AFTER, Directive, WorkerInfo, WorkerRecord, WorkerState
from jobwire_server.store.base import WORKER_FORGOTTEN_AFTER, ClaimOutcome, Hints, Renewal, Store, Workers

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
    max_in_flight=9,
)
AGAIN: dict[str, Any] = {
    "session": 4,
    "host": "host-2",
    "pid": 1,
    "runtime": "go",
    "version": "2",
    "labels": (("zone", "c"),),
    "queues": ("c",),
    "max_in_flight": 2,
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
    assert await store.workers() == Workers(clock.now, [WorkerRecord(TOLD, clock.now, clock.now, 0)])


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
    assert await worker(store) == WorkerRecord(TOLD, START, clock.now, 0)
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
    assert await worker(store) == WorkerRecord(replace(TOLD, session=1), START, clock.now, 0)


# --- what the store knows of it -----------------------------------------------------------------------------


async def test_a_worker_is_known_from_its_first_claim_on(store: Store, clock: Clock) -> None:
    clock.advance(1)
    await put(store, "j")
    await claim(store, wish("w", session=7))
    assert await worker(store) == WorkerRecord(WorkerInfo(id="w", session=7), clock.now, clock.now, 1)
    await claim(store, wish("v", session=0), queue="empty")
    assert await worker(store, "v") == WorkerRecord(WorkerInfo(id="v"), clock.now, clock.now, 0)


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


# --- what an operator wants of it ---------------------------------------------------------------------------


async def test_nobody_wants_anything_of_a_new_worker(store: Store) -> None:
    assert await store.beat(TOLD) is Directive.NONE
    assert (await worker(store)).directive is Directive.NONE


@pytest.mark.parametrize("directive", [Directive.QUIET, Directive.TERMINATE])
async def test_a_drained_worker_claims_nothing_until_that_is_lifted(store: Store, directive: Directive) -> None:
    await store.beat(TOLD)
    await put(store, "j")
    assert await store.direct("w", directive)
    assert (await worker(store)).directive is directive
    refused = await claim(store, wish("w", session=3))
    assert (refused.outcome, refused.jobs) == (ClaimOutcome.QUIET, [])
    assert (await claim(store, wish("v"), queue="other")).outcome is ClaimOutcome.OK, "others are not"
    assert await store.direct("w", Directive.NONE)
    assert [job.id for job in (await claim(store, wish("w", session=3))).jobs] == ["j"]


async def test_a_drain_is_told_by_each_beat_and_kept_over_sessions(store: Store, clock: Clock) -> None:
    await store.beat(TOLD)
    await store.direct("w", Directive.TERMINATE)
    clock.advance(30)
    assert await store.beat(WorkerInfo(id="w")) is Directive.TERMINATE
    assert await store.beat(WorkerInfo(id="w", session=9)) is Directive.TERMINATE
    assert (await claim(store, wish("w", session=10))).outcome is ClaimOutcome.QUIET
    assert (await worker(store)).info.session == 10
    assert await store.beat(WorkerInfo(id="w", session=4)) is None


async def test_what_a_drained_worker_holds_is_its_own_to_the_end(store: Store) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    assert job.token
    await store.direct("w", Directive.QUIET)
    (renewed,) = await store.renew([Renewal(job_id="j", token=job.token)])
    assert renewed.outcome is Outcome.OK
    assert await move(store, policy.complete("j", job.token, None)) is Outcome.OK
    assert (await worker(store)).directive is Directive.QUIET


async def test_a_drained_worker_that_was_silent_is_quiet_first(store: Store, clock: Clock) -> None:
    """Its stream must hear of the drain, not wait for a beat without a word."""
    await silence(store, clock, "w")
    await store.direct("w", Directive.QUIET)
    assert (await claim(store)).outcome is ClaimOutcome.QUIET
    await store.direct("w", Directive.NONE)
    assert (await claim(store)).outcome is ClaimOutcome.SILENT


async def test_a_worker_that_nobody_knows_cannot_be_drained(store: Store) -> None:
    hints = store.hints()
    assert not await store.direct("w", Directive.QUIET)
    assert (await store.workers()).workers == []
    assert await rang(store, hints) == Hints()


async def test_a_drain_rings_when_it_changes_something(store: Store) -> None:
    await store.beat(TOLD)
    hints = store.hints()
    for directive in (Directive.NONE, Directive.QUIET, Directive.QUIET):
        await store.direct("w", directive)
    assert (await rang(store, hints)).directives == {"w": Directive.QUIET}
    await store.direct("w", Directive.QUIET)
    assert await rang(store, hints) == Hints()
    for directive in (Directive.TERMINATE, Directive.NONE):
        await store.direct("w", directive)
    assert (await rang(store, hints)).directives == {"w": Directive.NONE}, "the latest"


async def test_a_forgotten_worker_comes_back_undrained(store: Store, clock: Clock) -> None:
    await store.beat(WorkerInfo(id="w"))
    await store.direct("w", Directive.QUIET)
    clock.now += WORKER_FORGOTTEN_AFTER
    await store.purge(limit=9)
    assert await store.beat(WorkerInfo(id="w")) is Directive.NONE


# --- signs of life ------------------------------------------------------------------------------------------


async def test_an_open_stream_is_a_sign_of_life_but_no_beat(store: Store, clock: Clock) -> None:
    await store.beat(TOLD)
    clock.now += LOST_AFTER
    assert (await worker(store)).state(clock.now) is WorkerState.LOST
    await store.seen(["w", "unknown"])
    (record,) = (await store.workers()).workers
    assert (record.last_beat, record.last_seen, record.last_heard) == (START, clock.now, clock.now)
    assert record.state(clock.now) is WorkerState.IDLE
    clock.now += LOST_AFTER
    assert record.state(clock.now) is WorkerState.LOST
    await store.seen([])


async def test_an_open_stream_does_not_end_a_silence(store: Store, clock: Clock) -> None:
    await silence(store, clock, "w")
    await store.seen(["w"])
    assert (await claim(store)).outcome is ClaimOutcome.SILENT


async def test_a_delivery_that_runs_out_silences_a_worker_that_was_only_seen(store: Store, clock: Clock) -> None:
    await put(store, "j", JobState.IN_PROGRESS)
    clock.advance(5)
    await store.seen(["w"])
    clock.advance(5)
    (job,) = (await store.overdue(limit=9)).jobs
    assert job
    assert await move(store, policy.reap(job, now=clock.now, random=0)) is Outcome.OK
    assert (await claim(store)).outcome is ClaimOutcome.SILENT


async def test_a_worker_with_an_open_stream_is_not_forgotten(store: Store, clock: Clock) -> None:
    await store.beat(TOLD)
    clock.now += WORKER_FORGOTTEN_AFTER
    await store.seen(["w"])
    await store.purge(limit=9)
    assert await ids(store) == ["w"]
    clock.now += WORKER_FORGOTTEN_AFTER
    await store.purge(limit=9)
    assert await ids(store) == []


async def test_a_worker_is_registered_once(store: Store, clock: Clock) -> None:
    await store.beat(WorkerInfo(id="w"))
    clock.advance(7)
    await store.beat(WorkerInfo(id="w", session=5))
    await claim(store, wish("w", session=5))
    await store.seen(["w"])
    assert (await worker(store)).register_time == START


# --- what it holds ------------------------------------------------------------------------------------------


async def test_the_jobs_that_workers_hold_are_named_when_asked_for_the_oldest_first(store: Store, clock: Clock) -> None:
    await store.create([new_job(id, queue=queue) for id, queue in (("c", "q"), ("b", "q"), ("a", "r"), ("x", "q"))])
    await claim(store, wish("w", 2), queue="q")
    clock.advance(1)
    await claim(store, wish("w", 1), queue="r")
    await claim(store, wish("v", 1), queue="q")
    await store.beat(WorkerInfo(id="u"))
    assert [record.held_job_ids for record in (await store.workers()).workers] == [(), (), ()]
    assert [record.held_job_ids for record in (await store.workers(jobs=9)).workers] == [(), ("x",), ("b", "c", "a")]
    assert [record.held_job_ids for record in (await store.workers(jobs=2)).workers] == [(), ("x",), ("b", "c")]
    (record,) = (await store.workers(ids=["w"], jobs=1)).workers
    assert (record.held, record.held_job_ids) == (3, ("b",))
