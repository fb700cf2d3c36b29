from __future__ import annotations

from tests.store.making import START, Clock, claim, get, is_there, move, put, shove, standing_of, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, JobState, Progress
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import Renewal, Renewed, Store


async def renew(store: Store, id: str, token: bytes | None, **progress: object) -> Renewed:
    renewal = Renewal(job_id=id, token=token or b"", **progress)  # type: ignore[arg-type]  # the tests' own words
    return (await store.renew([renewal]))[0]


async def test_the_first_renewal_acknowledges_and_grants_the_lease(store: Store, clock: Clock) -> None:
    await put(store, "j")
    await shove(store, "j", JobState.QUEUED, return_count=3)
    (job,) = (await claim(store)).jobs
    clock.advance(4)
    renewed = await renew(store, "j", job.token)
    after = await get(store, "j")
    assert renewed == Renewed(Outcome.OK, 30 * SECOND, standing=standing_of(after))
    assert (after.acknowledged, after.return_count, after.start_time) == (True, 0, START)
    assert (after.version, after.revision) == (job.version + 1, job.revision), "watchers are told, edits not disturbed"
    assert after.score == after.lease_expire_time == clock.now + 30 * SECOND
    assert after.update_time == clock.now


async def test_a_mere_renewal_leaves_the_version_alone(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    await renew(store, "j", job.token)
    first = await get(store, "j")
    clock.advance(20)
    await renew(store, "j", job.token)
    second = await get(store, "j")
    assert (second.version, second.update_time, second.start_time) == (first.version, first.update_time, START)
    assert second.score == clock.now + 30 * SECOND


async def test_a_brief_renewal_grants_the_same_and_tells_no_standing(store: Store, clock: Clock) -> None:
    jobs = [await put(store, id, JobState.IN_PROGRESS) for id in ("a", "b", "lost")]
    cancel = policy.cancel(jobs[1], reason="why", grace=5 * SECOND, etag=None, now=START)
    assert cancel is not None
    await store.move([cancel])
    renewals = [Renewal(job_id=job.id, token=job.token or b"") for job in jobs[:2]]
    lost = [Renewal(job_id="lost", token=b"other"), Renewal(job_id="never", token=b"t")]
    brief = await store.renew([*renewals, *lost], brief=True)
    told = await store.renew([*renewals, *lost])
    assert [each.standing for each in brief] == [None] * 4
    assert brief == [each._replace(standing=None) for each in told]
    assert [each.outcome for each in brief] == [Outcome.OK, Outcome.OK, Outcome.LOST, Outcome.GONE]
    assert (brief[1].cancel_requested, brief[1].cancel_reason) == (True, "why")
    assert (await get(store, "a")).acknowledged


async def test_progress_is_stored_and_raises_the_version(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    await renew(store, "j", job.token, fraction=0.25, message="¼")
    first = await get(store, "j")
    assert (first.progress, first.version) == (Progress(0.25, "¼", START), job.version + 1)
    clock.advance(1)
    await renew(store, "j", job.token, message="on")
    second = await get(store, "j")
    assert (second.progress, second.version) == (Progress(None, "on", clock.now), first.version + 1)
    await renew(store, "j", job.token, fraction=0.0)
    assert (await get(store, "j")).progress == Progress(0.0, "", clock.now)
    assert (await get(store, "j")).revision == job.revision


async def test_the_execution_timeout_counts_from_the_acknowledgment_and_no_renewal_passes_it(
    store: Store, clock: Clock
) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS, execution_timeout=40 * SECOND)
    clock.advance(5)
    await renew(store, "j", job.token)
    assert (await get(store, "j")).limit_time == START + 45 * SECOND
    clock.advance(20)
    assert (await renew(store, "j", job.token)).remaining == 20 * SECOND
    clock.advance(30)
    late = await renew(store, "j", job.token)
    assert (late.outcome, late.remaining) == (Outcome.OK, 0)
    after = await get(store, "j")
    assert after.score == after.lease_expire_time == START + 45 * SECOND


async def test_an_acknowledgment_does_not_outlast_the_grace_of_a_cancel(store: Store) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS, execution_timeout=40 * SECOND)
    cancel = policy.cancel(job, reason="stop", grace=3 * SECOND, etag=None, now=START)
    assert cancel
    assert await move(store, cancel) is Outcome.OK
    renewed = await renew(store, "j", job.token)
    assert (renewed.remaining, renewed.cancel_requested, renewed.cancel_reason) == (3 * SECOND, True, "stop")
    assert (await get(store, "j")).score == START + 3 * SECOND


async def test_a_lease_past_its_deadline_can_be_renewed_until_it_is_taken_away(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    clock.advance(1000)
    assert (await renew(store, "j", job.token)).outcome is Outcome.OK


async def test_a_renewed_lease_is_not_reaped(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    await renew(store, "j", job.token)
    clock.advance(30)
    (seen,) = (await store.overdue(limit=9)).jobs
    assert seen
    await renew(store, "j", job.token)
    assert await move(store, policy.reap(seen, now=clock.now, random=0)) is Outcome.STALE
    assert (await store.overdue(limit=9)).jobs == []


async def test_renewals_are_judged_one_by_one(store: Store) -> None:
    jobs = [await put(store, id, JobState.IN_PROGRESS) for id in ("a", "b", "c")]
    await shove(store, "b", JobState.CANCELED)
    wishes = [Renewal(job_id=job.id, token=job.token or b"") for job in jobs]
    answers = await store.renew([*wishes, Renewal(job_id="x", token=b"t")])
    assert [answer.outcome for answer in answers] == [Outcome.OK, Outcome.LOST, Outcome.OK, Outcome.GONE]
    assert [answer.standing for answer in answers] == [
        standing_of(await get(store, "a")),
        None,
        standing_of(await get(store, "c")),
        None,
    ]
    assert not await is_there(store, "x")


async def test_renewing_a_lease_needs_its_token(store: Store) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    assert (await renew(store, "j", b"wrong")).outcome is Outcome.LOST
    assert (await renew(store, "j", b"")).outcome is Outcome.LOST
    assert await get(store, "j") == job


async def test_a_beat_renews_nothing(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    clock.advance(5)
    assert await store.beat(WorkerInfo(id="w", session=1, host="h", labels=(("k", "v"),), queues=("q",)))
    assert await get(store, "j") == job
    assert (await claim(store, wish())).held == 1
