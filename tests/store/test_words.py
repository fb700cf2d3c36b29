"""The word of an end: where somebody asked to be told, the job that tells them comes into being with it, or neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from tests.store.making import START, Clock, claim, get, is_there, move, new_job, put, queue, rang, shove, wish

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND, Job, JobError, JobState, NewJob
from jobwire_server.domain.move import AnyMove, Move
from jobwire_server.domain.webhook import EVENTS
from jobwire_server.store.base import Hints, Store

ALL: Final = sum(EVENTS.values())
WORD: Final = NewJob(id="word", queue="told", submission=b"it has ended", digest=b"d", id_given=False)


def with_word(decided: AnyMove, word: NewJob = WORD) -> Move:
    return replace(decided.as_move(), word=word)


def fail(job: Job) -> Move:
    assert job.token
    error = JobError("E", "no")
    return policy.fail(job, job.token, error, permanent=True, retry_delay=None, now=START, random=0)


def cancel(job: Job) -> Move:
    decided = policy.cancel(job, reason="", grace=0, etag=None, now=START)
    assert decided
    return decided


async def leased(store: Store, **fields: object) -> Job:
    return await put(store, "j", JobState.IN_PROGRESS, webhook_events=ALL, **fields)


async def ending(store: Store, clock: Clock, to: JobState) -> AnyMove:
    """A move that ends `j`, which wants to be told of."""
    match to:
        case JobState.COMPLETED:
            job = await leased(store)
            return policy.complete("j", job.token or b"", b"result")
        case JobState.FAILED:
            return fail(await leased(store))
        case JobState.CANCELED:
            return cancel(await put(store, "j", webhook_events=ALL))
        case _:
            job = await put(store, "j", webhook_events=ALL, expire_time=START + SECOND)
            clock.advance(2)
            return policy.expire(job)


ENDS: Final = list(EVENTS)


@pytest.mark.parametrize("to", ENDS)
async def test_the_word_of_an_end_is_there_when_the_end_is(store: Store, clock: Clock, to: JobState) -> None:
    decided = await ending(store, clock, to)
    hints = store.hints()
    clock.advance(1)
    assert await move(store, with_word(decided)) is Outcome.OK
    ended, word = await get(store, "j"), await get(store, "word")
    assert (ended.state, word.state, word.queue, word.submission) == (to, JobState.QUEUED, "told", b"it has ended")
    assert ended.finish_time == word.create_time == clock.now, "of one moment"
    assert (await rang(store, hints)).queued == {"told": 1}
    assert (await queue(store, "told")).counts == {JobState.QUEUED: 1}
    assert [job.id for job in (await claim(store, wish("v"), queue="told")).jobs] == ["word"]


@pytest.mark.parametrize("to", ENDS)
async def test_an_end_without_the_word_that_is_wanted_is_stale_and_changes_nothing(
    store: Store, clock: Clock, to: JobState
) -> None:
    decided = await ending(store, clock, to)
    before = await get(store, "j")
    hints = store.hints()
    (moved,) = await store.move([decided])
    assert (moved.outcome, moved.standing, moved.job) == (Outcome.STALE, None, before)
    assert await get(store, "j") == before
    assert await rang(store, hints) == Hints()
    assert await move(store, with_word(decided)) is Outcome.OK, "the same, with one"


async def test_completions_of_one_call_that_want_a_word_are_told_from_those_that_do_not(store: Store) -> None:
    await store.create(
        [new_job(f"j{n}", webhook_events=ALL if n % 3 == 0 else EVENTS[JobState.FAILED]) for n in range(7)]
    )
    jobs = (await claim(store, wish(number=7))).jobs
    moved = await store.move([policy.complete(job.id, job.token or b"", b"result") for job in jobs])
    assert [each.outcome for each in moved] == [Outcome.STALE if n % 3 == 0 else Outcome.OK for n in range(7)]


@pytest.mark.parametrize("to", ENDS)
async def test_an_end_of_which_nobody_is_told_needs_no_word_and_makes_none(
    store: Store, clock: Clock, to: JobState
) -> None:
    job = await put(store, "k", webhook_events=ALL - EVENTS[to])
    if to in (JobState.COMPLETED, JobState.FAILED):
        (job,) = (await claim(store)).jobs
    decided: AnyMove
    match to:
        case JobState.COMPLETED:
            decided = policy.complete("k", job.token or b"", None)
        case JobState.FAILED:
            decided = fail(job)
        case JobState.CANCELED:
            decided = cancel(job)
        case _:
            decided = policy.expire(job)
    assert await move(store, with_word(decided)) is Outcome.OK
    assert not await is_there(store, "word")


async def test_a_change_that_ends_nothing_makes_no_word(store: Store) -> None:
    job = await leased(store)
    error = JobError("E", "no")
    again = policy.fail(job, job.token or b"", error, permanent=False, retry_delay=0, now=START, random=0)
    assert await move(store, with_word(again)) is Outcome.OK
    assert not await is_there(store, "word")


async def test_a_move_that_is_refused_makes_no_word(store: Store) -> None:
    job = await leased(store)
    stale = fail(job)
    await shove(store, "j", JobState.IN_PROGRESS, priority=1)
    assert await move(store, with_word(stale)) is Outcome.STALE
    assert await move(store, with_word(policy.complete("j", b"another", None))) is Outcome.LOST
    assert not await is_there(store, "word")


async def test_a_move_that_is_sent_again_makes_no_second_word(store: Store) -> None:
    job = await leased(store)
    sent = with_word(policy.complete("j", job.token or b"", None))
    assert await move(store, sent) is Outcome.OK
    (word,) = (await claim(store, wish("v"), queue="told")).jobs
    assert await move(store, sent) is Outcome.OK
    assert await get(store, "word") == word
    await store.move([policy.complete("word", word.token or b"", None)])
    assert await move(store, sent) is Outcome.OK
    assert (await get(store, "word")).state is JobState.COMPLETED


async def test_the_word_of_a_job_that_goes_at_its_end_stays(store: Store) -> None:
    job = await leased(store, retention=0)
    assert await move(store, policy.complete("j", job.token or b"", None)) is Outcome.STALE
    assert await move(store, with_word(policy.complete("j", job.token or b"", None))) is Outcome.OK
    assert not await is_there(store, "j")
    assert (await get(store, "word")).state is JobState.QUEUED


async def test_each_end_of_a_job_that_is_replayed_wants_a_word_of_its_own(store: Store) -> None:
    job = await leased(store)
    await move(store, with_word(fail(job)))
    assert await move(store, policy.replay(await get(store, "j"), etag=None)) is Outcome.OK
    (job,) = (await claim(store)).jobs
    again = policy.complete("j", job.token or b"", None)
    assert await move(store, again) is Outcome.STALE
    assert await move(store, with_word(again, WORD._replace(id="word-2"))) is Outcome.OK
    assert (await queue(store, "told")).counts == {JobState.QUEUED: 2}


async def test_an_edit_of_an_ended_job_is_no_end(store: Store) -> None:
    await move(store, with_word(fail(await leased(store))))
    edit = policy.edit(await get(store, "j"), {"priority": 1}, payload=False, etag=None, now=START)
    assert await move(store, edit) is Outcome.OK


async def test_many_words_of_one_call_come_in_the_order_of_their_moves(store: Store) -> None:
    await store.create([new_job(f"j{n:02}", webhook_events=ALL) for n in range(60)])
    jobs = (await claim(store, wish(number=60))).jobs
    moves = [
        with_word(policy.complete(job.id, job.token or b"", None), WORD._replace(id=f"w{n:02}", submission=b"%d" % n))
        for n, job in enumerate(jobs)
    ]
    assert {moved.outcome for moved in await store.move(moves)} == {Outcome.OK}
    words = (await claim(store, wish("v", 100), queue="told")).jobs
    assert [(job.id, job.submission) for job in words] == [(f"w{n:02}", b"%d" % n) for n in range(60)]


@pytest.mark.parametrize("delivery", [0.0, 10.0])
async def test_a_job_that_wants_a_word_is_otherwise_a_job_like_any(store: Store, delivery: float) -> None:
    await store.create([new_job("plain"), new_job("j", webhook_events=5)])
    plain, job = (await claim(store, wish(number=2, delivery=delivery))).jobs
    assert (plain.webhook_events, job.webhook_events) == (0, 5)
    assert await get(store, "j") == job
    same = job._replace(id="plain", webhook_events=0, token=plain.token, queue_time=plain.queue_time)
    assert same == plain
