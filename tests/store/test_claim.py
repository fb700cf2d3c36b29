from __future__ import annotations

import pytest
from tests.store.making import START, Clock, claim, get, move, new_job, put, shove, silence, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Guard, Outcome
from jobwire_server.domain.job import MINUTE, SECOND, AttemptOutcome, JobState, Verb
from jobwire_server.domain.move import Move
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import ClaimOutcome, Renewal, Store


async def test_an_unacknowledged_claim_has_its_delivery_time_only(store: Store, clock: Clock) -> None:
    await put(store, "j", execution_timeout=5 * SECOND)
    clock.advance(1)
    request = wish(lease=30, delivery=10)
    (job,) = (await claim(store, request)).jobs
    assert job == await get(store, "j")
    assert (job.state, job.attempt, job.version, job.revision) == (JobState.IN_PROGRESS, 1, 2, 2)
    assert (job.token, job.worker_id, job.claim_time) == (request.tokens[0], "w", clock.now)
    assert (job.acknowledged, job.start_time, job.limit_time) == (False, None, None)
    assert job.score == job.lease_expire_time == clock.now + 10 * SECOND
    assert job.lease_duration == 30 * SECOND


async def test_a_claim_without_delivery_time_is_acknowledged_at_once(store: Store) -> None:
    await put(store, "j")
    await shove(store, "j", JobState.QUEUED, return_count=5)
    (job,) = (await claim(store, wish(lease=30, delivery=0))).jobs
    assert (job.acknowledged, job.start_time, job.return_count) == (True, START, 0)
    assert job.score == job.lease_expire_time == START + 30 * SECOND


async def test_a_claim_without_delivery_time_never_passes_the_execution_timeout(store: Store) -> None:
    await put(store, "j", execution_timeout=7 * SECOND)
    (job,) = (await claim(store, wish(lease=30, delivery=0))).jobs
    assert job.score == job.limit_time == job.lease_expire_time == START + 7 * SECOND


async def test_the_fence_rises_with_every_claim_even_while_the_clock_goes_back(store: Store, clock: Clock) -> None:
    first = await put(store, "j", JobState.IN_PROGRESS)
    assert first.fence == START
    clock.advance(-100)
    await shove(store, "j", JobState.QUEUED)
    (second,) = (await claim(store)).jobs
    assert second.fence == first.fence + 1


async def test_a_claim_begins_a_fresh_attempt(store: Store) -> None:
    await put(store, "j", JobState.IN_PROGRESS)
    await shove(store, "j", JobState.QUEUED, outcome=AttemptOutcome.FAILED, end_time=1)
    (job,) = (await claim(store)).jobs
    assert (job.attempt, job.outcome, job.end_time, job.progress, job.limit_time) == (2, None, None, None, None)


async def test_jobs_come_by_rank_and_a_level_of_priority_is_worth_a_minute(store: Store, clock: Clock) -> None:
    await put(store, "slow", priority=2)
    clock.now += MINUTE - 1
    await put(store, "just-later", priority=1)
    clock.now += 3
    await put(store, "starved-out", priority=2)
    await put(store, "urgent", priority=1)
    jobs = (await claim(store, wish(number=9))).jobs
    assert [job.id for job in jobs] == ["just-later", "slow", "urgent", "starved-out"]


async def test_jobs_of_one_rank_come_by_the_bytes_of_their_ids(store: Store) -> None:
    ids = ["b", "a", "Z", "a.", "a-", "_", "B", "10", "9"]
    for id in ids:
        await put(store, id)
        await shove(store, id, JobState.QUEUED, queue_time=START)
    jobs = (await claim(store, wish(number=20))).jobs
    assert [job.id for job in jobs] == sorted(ids, key=str.encode)
    for job in jobs:  # or the invariants would find one queue_time many times
        await shove(store, job.id, JobState.QUEUED, queue_time=None)


async def test_requests_are_served_in_turn_and_each_job_goes_once(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(5)])
    claims = await store.claim("default", [wish("a", 2), wish("b", 2), wish("c", 2)])
    assert [[job.id for job in each.jobs] for each in claims.claimed] == [["j0", "j1"], ["j2", "j3"], ["j4"]]
    assert [each.held for each in claims.claimed] == [2, 2, 1]
    assert claims.remaining == 0


async def test_credit_is_never_exceeded_by_any_number_of_requests_and_calls(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(20)])
    one = wish("w", 3, max_in_flight=4)
    claims = await store.claim("default", [one, wish("w", 3, max_in_flight=4), wish("w", 9, max_in_flight=5)])
    assert [len(each.jobs) for each in claims.claimed] == [3, 1, 1]
    assert [each.held for each in claims.claimed] == [5, 5, 5], "after the whole claim"
    assert claims.remaining == 15
    again = await claim(store, wish("w", 3, max_in_flight=4))
    assert (again.outcome, again.jobs, again.held) == (ClaimOutcome.OK, [], 5)
    await shove(store, "j0", JobState.QUEUED)
    await shove(store, "j1", JobState.CANCELED)
    assert len((await claim(store, wish("w", 3, max_in_flight=4))).jobs) == 1


async def test_fifty_claimers_get_each_job_exactly_once(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(300)])
    taken: list[str] = []
    for _ in range(3):
        claims = await store.claim("default", [wish(f"w{n}", 5, max_in_flight=4) for n in range(50)])
        for each in claims.claimed:
            assert each.held <= 4
            taken += [job.id for job in each.jobs]
    assert len(taken) == len(set(taken)) == 200


async def test_remaining_says_how_many_could_still_be_claimed(store: Store) -> None:
    await store.create([new_job(f"j{n}") for n in range(3)])
    assert (await store.claim("default", [wish()])).remaining == 2
    assert (await store.claim("default", [])).remaining == 2
    assert (await store.claim("unknown", [wish()])).remaining == 0


async def test_a_claim_looks_past_expired_jobs_and_says_that_it_saw_them(store: Store, clock: Clock) -> None:
    hints = store.hints()
    await store.create([new_job(f"old{n}", expire_time=START + 5) for n in range(4)])
    await store.create([new_job("a"), new_job("b", expire_time=START + 6)])
    clock.now += 5
    claims = await store.claim("default", [wish(number=2)])
    assert [job.id for job in claims.claimed[0].jobs] == ["a", "b"]
    assert claims.remaining == 0
    assert (await anext(hints)).expired_seen


async def test_a_claim_looks_past_ten_expired_jobs_at_most(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"old{n}", expire_time=START + 5) for n in range(12)])
    await put(store, "alive")
    clock.now += 5
    assert (await claim(store)).jobs == []


async def test_a_job_that_was_started_once_does_not_expire(store: Store, clock: Clock) -> None:
    await put(store, "j", expire_time=START + 5)
    await claim(store, wish(delivery=0))
    await shove(store, "j", JobState.QUEUED)
    clock.now += 10
    assert [job.id for job in (await claim(store)).jobs] == ["j"]


async def test_an_older_session_is_superseded_by_a_newer_one(store: Store) -> None:
    await put(store, "j")
    assert await store.beat(WorkerInfo(id="w", session=5))
    refused = await claim(store, wish(session=4))
    assert (refused.outcome, refused.jobs) == (ClaimOutcome.SUPERSEDED, [])
    assert not await store.beat(WorkerInfo(id="w", session=4))
    assert len((await claim(store, wish(session=5))).jobs) == 1


async def test_a_claim_of_a_newer_session_is_remembered(store: Store) -> None:
    await claim(store, wish(session=9))
    assert (await claim(store, wish(session=8))).outcome is ClaimOutcome.SUPERSEDED


@pytest.mark.parametrize("session", [0, 7])
async def test_a_worker_whose_delivery_ran_out_gets_nothing_until_it_beats(
    store: Store, clock: Clock, session: int
) -> None:
    await silence(store, clock, "w")
    clock.advance(3600)
    assert (await claim(store)).outcome is ClaimOutcome.SILENT
    hints = store.hints()
    assert await store.beat(WorkerInfo(id="w", session=session))
    assert (await anext(hints)).heard == ("w",)
    assert (await claim(store, wish(session=7))).outcome is ClaimOutcome.OK


async def test_a_worker_that_was_heard_since_the_claim_is_not_silent_when_the_delivery_runs_out(
    store: Store, clock: Clock
) -> None:
    """Its server died with the delivery under way, and it has opened a stream elsewhere before the reaper came: with no
    job to beat for it would be silent for ever."""
    await put(store, "j")
    (job,) = (await claim(store)).jobs
    clock.advance(1)
    assert await store.beat(WorkerInfo(id="w", session=7))
    clock.advance(9)
    guard = Guard(token=job.token, version=job.version, overdue=True)
    reap = Move(job_id="j", verb=Verb.REAP, guard=guard, to=JobState.QUEUED, changes={"worker_id": ""})
    assert await move(store, reap) is Outcome.OK
    assert (await claim(store, wish(session=7))).outcome is ClaimOutcome.OK


async def test_a_superseded_beat_does_not_end_the_silence(store: Store, clock: Clock) -> None:
    assert await store.beat(WorkerInfo(id="w", session=1))
    await silence(store, clock, "w")
    assert (await claim(store, wish(session=5))).outcome is ClaimOutcome.SILENT
    assert not await store.beat(WorkerInfo(id="w", session=4))
    assert (await claim(store, wish(session=5))).outcome is ClaimOutcome.SILENT


@pytest.mark.parametrize("sign", ["renewal", "settlement"])
async def test_a_silent_worker_that_renews_or_settles_is_heard(store: Store, clock: Clock, sign: str) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    assert job.token
    await silence(store, clock, "w")
    hints = store.hints()
    if sign == "renewal":
        await store.renew([Renewal(job_id="j", token=job.token)])
    else:
        await store.move([policy.complete("j", job.token, None)])
    assert (await anext(hints)).heard == ("w",)
    assert (await claim(store)).outcome is ClaimOutcome.OK


async def _hand_back_twenty(store: Store, clock: Clock) -> None:
    for _ in range(20):
        clock.now += 1
        (job,) = (await claim(store)).jobs
        assert job.token
        guard = Guard(token=job.token, version=job.version, unacknowledged=True)
        back = Move(job_id=job.id, verb=Verb.HAND_BACK, guard=guard, to=JobState.QUEUED)
        assert await move(store, back) is Outcome.OK


async def test_after_twenty_returns_a_worker_gets_nothing_for_a_minute(store: Store, clock: Clock) -> None:
    await put(store, "j")
    await _hand_back_twenty(store, clock)
    assert (await claim(store)).outcome is ClaimOutcome.NOT_ACKNOWLEDGING
    assert await store.beat(WorkerInfo(id="w"))
    clock.now += MINUTE - 1
    assert (await claim(store)).outcome is ClaimOutcome.NOT_ACKNOWLEDGING
    assert (await claim(store, wish("other", 0))).outcome is ClaimOutcome.OK
    clock.now += 1
    assert len((await claim(store)).jobs) == 1


async def test_what_one_claim_handed_out_counts_as_one_return(store: Store) -> None:
    """A worker that dies with a hundred jobs on their way in one message has failed to acknowledge once."""
    for i in range(30):
        await put(store, f"j{i}")
    for job in (await claim(store, wish("w", 30, max_in_flight=30))).jobs:
        assert job.token
        guard = Guard(token=job.token, version=job.version, unacknowledged=True)
        back = Move(job_id=job.id, verb=Verb.HAND_BACK, guard=guard, to=JobState.QUEUED)
        assert await move(store, back) is Outcome.OK
    assert len((await claim(store)).jobs) == 1


async def test_one_acknowledgment_clears_the_count_of_returns(store: Store, clock: Clock) -> None:
    other = await put(store, "other", JobState.IN_PROGRESS)
    await put(store, "j")
    await _hand_back_twenty(store, clock)
    assert other.token
    await store.renew([Renewal(job_id="other", token=other.token)])
    assert (await claim(store)).outcome is ClaimOutcome.OK
