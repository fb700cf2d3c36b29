"""What those who watch are told. That every verb tells what it changed, and no more, the model tier proves."""

from __future__ import annotations

import asyncio

import pytest
from tests.store.making import START, Clock, claim, get, is_there, move, new_job, put, shove, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Guard
from jobwire_server.domain.job import SECOND, JobError, JobState, Verb
from jobwire_server.domain.move import Completion, Deletion, Move
from jobwire_server.store.base import Renewal, Store
from jobwire_server.store.changes import Changes, Gone


async def test_ids_are_told_of_jobs_that_changed_and_no_others(store: Store, clock: Clock) -> None:
    heard: list[Changes] = []
    await store.watch(heard.append)
    await store.create([new_job("a"), new_job("b")])
    await store.create([new_job("a")])
    (job,) = (await claim(store)).jobs
    assert job.token
    await store.renew([Renewal(job_id=job.id, token=job.token)])
    clock.advance(1)
    await store.renew([Renewal(job_id=job.id, token=job.token)])
    await move(store, policy.complete(job.id, b"wrong", None))
    await move(store, policy.complete(job.id, job.token, b"r"))
    await store.caught_up()
    assert [sorted(each.changed) for each in heard if each.changed] == [["a", "b"], ["a"], ["a"], ["a"]]
    assert not any(each.gone or each.last or each.rewritten or each.is_gap for each in heard)


async def test_nothing_is_told_before_and_after(store: Store) -> None:
    heard: list[Changes] = []
    await put(store, "before")
    await store.watch(heard.append)
    await put(store, "between")
    await store.caught_up()
    await store.unwatch()
    await put(store, "after")
    await store.watch(lambda _: None)
    await store.caught_up()
    assert [each.changed for each in heard if each.changed] == [["between"]]


async def test_one_who_watches_again_is_told_again(store: Store) -> None:
    first: list[Changes] = []
    second: list[Changes] = []
    await store.watch(first.append)
    await store.unwatch()
    await store.watch(second.append)
    await put(store, "j")
    await store.caught_up()
    assert (first, [each.changed for each in second if each.changed]) == ([], [["j"]])


async def test_what_was_under_way_when_somebody_began_to_watch_is_told_or_can_be_read_then(store: Store) -> None:
    for n in range(20):
        told: list[Changes] = []
        create = asyncio.create_task(store.create([new_job(f"j{n}")]))
        await asyncio.sleep(0)
        await store.watch(told.append)
        seen = await is_there(store, f"j{n}")
        await create
        await store.caught_up()
        assert seen or any(f"j{n}" in each.changed for each in told)
        await store.unwatch()


async def test_caught_up_answers_the_clock_of_the_store(store: Store, clock: Clock) -> None:
    await store.watch(lambda _: None)
    clock.advance(5)
    assert await store.caught_up() == START + 5 * SECOND


async def test_an_edited_submission_is_told_apart(store: Store) -> None:
    heard: list[Changes] = []
    await put(store, "labels")
    await put(store, "priority")
    await store.watch(heard.append)
    await shove(store, "labels", JobState.QUEUED, submission=b"other")
    await shove(store, "priority", JobState.QUEUED, priority=1)
    await store.caught_up()
    told = [each for each in heard if each.changed]
    assert [([*each.changed], [*each.rewritten]) for each in told] == [(["labels"], ["labels"]), (["priority"], [])]


async def test_what_a_filter_can_ask_of_a_deleted_job_is_told(store: Store) -> None:
    heard: list[Changes] = []
    job = await put(store, "j", queue="q", type="t", user_id="ann")
    await store.watch(heard.append)
    await store.delete([Deletion("j", job.version, job.create_time)])
    await store.caught_up()
    assert [each.gone for each in heard if each.gone] == [[Gone("j", "q", "t", "ann", START)]]
    assert not any(each.last or each.changed for each in heard)


async def test_a_purged_job_is_told_as_gone(store: Store, clock: Clock) -> None:
    heard: list[Changes] = []
    await put(store, "j", JobState.COMPLETED, type="t", retention=SECOND)
    await store.watch(heard.append)
    clock.advance(2)
    assert await store.purge(limit=9) == 1
    await store.caught_up()
    assert [each.gone for each in heard if each.gone] == [[Gone("j", "default", "t", "", START)]]
    assert not any(each.last for each in heard)


@pytest.mark.parametrize("result", [None, b"r", b"\x00\n" * 500])
async def test_a_completed_job_that_is_not_kept_is_told_as_it_ended(store: Store, result: bytes | None) -> None:
    heard: list[Changes] = []
    await put(store, "j", retention=0, submission=b"\n\x00asked")
    (job,) = (await claim(store)).jobs
    assert job.token
    await store.watch(heard.append)
    await move(store, policy.complete("j", job.token, result))
    await store.caught_up()
    ((last,),) = (each.last for each in heard if each.last)
    assert (last.id, last.state, last.result, last.submission) == ("j", JobState.COMPLETED, result, b"\n\x00asked")
    assert (last.version, last.finish_time) == (job.version + 1, START)
    assert [each.gone for each in heard if each.gone] == [[Gone("j", "default", "", "", START)]]
    assert not await is_there(store, "j")


async def test_a_job_that_fails_and_is_not_kept_is_told_with_its_error_and_its_attempts(store: Store) -> None:
    heard: list[Changes] = []
    await put(store, "j", retention=0)
    (job,) = (await claim(store)).jobs
    fail = policy.fail(
        job, job.token or b"", JobError("E", "no"), permanent=True, retry_delay=None, now=START, random=0
    )
    await store.watch(heard.append)
    await move(store, fail)
    await store.caught_up()
    ((last,),) = (each.last for each in heard if each.last)
    assert (last.state, last.error and last.error.code, last.attempt) == (JobState.FAILED, "E", 1)


async def test_several_that_are_not_kept_end_together(store: Store) -> None:
    heard: list[Changes] = []
    await store.create([new_job(f"j{n}", retention=0, submission=b"s%d" % n) for n in range(3)])
    jobs = (await claim(store, wish(number=3))).jobs
    await store.watch(heard.append)
    await store.move([Completion(job.id, job.token or b"", b"r" + job.id.encode(), b"") for job in jobs])
    await store.caught_up()
    last = {job.id: (job.result, job.submission) for each in heard for job in each.last}
    assert last == {f"j{n}": (b"rj%d" % n, b"s%d" % n) for n in range(3)}


async def test_a_guard_that_refuses_tells_nothing(store: Store) -> None:
    heard: list[Changes] = []
    job = await put(store, "j", JobState.IN_PROGRESS)
    await store.watch(heard.append)
    stale = Move(job_id="j", verb=Verb.FAIL, guard=Guard(version=job.version + 1), to=JobState.FAILED)
    await move(store, stale)
    await store.caught_up()
    assert not any(each.changed or each.gone for each in heard)
    assert (await get(store, "j")).version == job.version
