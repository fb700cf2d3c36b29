"""Queues as they are set and as they are listed. What the settings do is in test_queue_effects.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.store.making import (
    QUEUES,
    START,
    Clock,
    get,
    listed,
    new_job,
    populate,
    put,
    queue,
    rang,
    shove,
)

from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, HOUR, MINUTE, SECOND, Job, JobState
from jobwire_server.domain.queue import Queue, QueueChanges
from jobwire_server.store.base import Hints, QueuePut, QueueRecord, Store


async def names(store: Store, **asked: Any) -> list[str]:
    return [record.settings.name for record in (await store.queues(**asked)).queues]


CHANGES: list[QueueChanges] = [
    {"paused": True},
    {"ageing": 0},
    {"ageing": DAY},
    {"retention": 0},
    {"retention": 3660 * DAY},
    {"max_in_flight": 1},
    {"max_in_flight": 2**32 - 1},
    {"paused": True, "ageing": 5 * MINUTE, "retention": HOUR, "max_in_flight": 7},
]


# --- settings -----------------------------------------------------------------------------------------------


async def test_a_queue_exists_from_its_first_job_on_with_the_defaults(store: Store, clock: Clock) -> None:
    await put(store, "later", schedule_time=START + HOUR)
    clock.advance(1)
    await put(store, "now")
    assert (await queue(store)).settings == Queue(name="default", create_time=START, update_time=START)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
async def test_a_setting_is_changed_and_the_others_stay(store: Store, clock: Clock, changes: QueueChanges) -> None:
    await put(store, "j")
    before = await queue(store)
    clock.advance(1)
    answer = await store.put_queue("default", changes)
    settings = replace(before.settings, **changes, update_time=clock.now, revision=1)
    assert answer == QueuePut(Outcome.OK, clock.now, replace(before, settings=settings))
    assert await queue(store) == answer.queue


@pytest.mark.parametrize("changes", CHANGES, ids=str)
async def test_settings_outlive_what_happens_in_the_queue(store: Store, clock: Clock, changes: QueueChanges) -> None:
    await store.put_queue("default", changes, create=True)
    before = (await queue(store)).settings
    clock.advance(1)
    await put(store, "j", schedule_time=clock.now + 1)
    clock.advance(1)
    await store.promote(limit=9)
    await shove(store, "j", JobState.CANCELED)
    clock.advance(10**8)
    await store.purge(limit=9)
    assert (await queue(store)).settings == before


async def test_settings_are_changed_one_after_the_other(store: Store, clock: Clock) -> None:
    await put(store, "j")
    for n, changes in enumerate(CHANGES[:-1:2], start=1):
        clock.advance(1)
        await store.put_queue("default", changes)
        settings = (await queue(store)).settings
        assert (settings.revision, settings.update_time, settings.create_time) == (n, clock.now, START)
    assert (settings.paused, settings.ageing, settings.retention, settings.max_in_flight) == (
        True,
        DAY,
        3660 * DAY,
        2**32 - 1,
    )


async def test_a_setting_goes_back_to_its_default(store: Store) -> None:
    await store.put_queue("q", {"retention": 0, "max_in_flight": 1, "paused": True}, create=True)
    await store.put_queue("q", {"retention": None})
    one_back = (await queue(store, "q")).settings
    assert (one_back.retention, one_back.max_in_flight, one_back.paused) == (None, 1, True)
    await store.put_queue("q", {"max_in_flight": None, "paused": False})
    settings = (await queue(store, "q")).settings
    assert settings == Queue(name="q", create_time=START, update_time=START, revision=3)


async def test_an_unknown_queue_is_gone_and_stays_unknown(store: Store) -> None:
    assert await store.put_queue("q", {"paused": True}) == QueuePut(Outcome.GONE, START, None)
    assert await names(store) == []


async def test_a_missing_queue_is_made_where_that_is_asked_for(store: Store, clock: Clock) -> None:
    answer = await store.put_queue("q", {"paused": True, "ageing": 0}, create=True)
    settings = Queue(name="q", paused=True, ageing=0, create_time=START, update_time=START, revision=1)
    assert answer == QueuePut(Outcome.OK, START, QueueRecord(settings, {}, None))
    assert await names(store) == ["q"]
    clock.advance(1)
    again = await store.put_queue("q", {"paused": False}, create=True)
    assert again.queue
    expected = replace(settings, paused=False, update_time=clock.now, revision=2)
    assert again.queue.settings == expected, "one that exists is changed as ever"


async def test_a_queue_can_be_made_without_any_setting(store: Store) -> None:
    answer = await store.put_queue("q", {}, create=True)
    assert answer.outcome is Outcome.OK
    assert answer.queue == QueueRecord(Queue(name="q", create_time=START, update_time=START), {}, None)
    assert await queue(store, "q") == answer.queue


async def test_jobs_enter_a_queue_that_was_made_before_them(store: Store, clock: Clock) -> None:
    await store.put_queue("q", {"max_in_flight": 3}, create=True)
    clock.advance(1)
    job = await put(store, "j", queue="q")
    record = await queue(store, "q")
    assert (record.counts, record.head_queue_time) == ({JobState.QUEUED: 1}, job.queue_time)
    assert (record.settings.max_in_flight, record.settings.create_time) == (3, START)


async def test_a_change_from_another_revision_is_stale_and_changes_nothing(store: Store, clock: Clock) -> None:
    await put(store, "j")
    assert (await store.put_queue("default", {"paused": True}, revision=0)).outcome is Outcome.OK
    before = await queue(store)
    clock.advance(1)
    for revision in (0, 2):
        stale = await store.put_queue("default", {"paused": False, "ageing": 0}, revision=revision)
        assert stale == QueuePut(Outcome.STALE, clock.now, before)
    assert (await store.put_queue("default", {"paused": True}, revision=0)).outcome is Outcome.STALE
    assert await queue(store) == before
    assert (await store.put_queue("default", {"paused": False}, revision=1)).outcome is Outcome.OK
    assert (await store.put_queue("unknown", {}, revision=1)).outcome is Outcome.GONE


async def test_of_two_changes_from_one_revision_one_is_stale(store: Store) -> None:
    await put(store, "j")
    changes = [QueueChanges(max_in_flight=n) for n in (1, 2, 3)]
    answers = await asyncio.gather(*(store.put_queue("default", each, revision=0) for each in changes))
    assert sorted(answer.outcome for answer in answers) == [Outcome.OK, Outcome.STALE, Outcome.STALE]
    (done,) = [each for each, answer in zip(changes, answers, strict=True) if answer.outcome is Outcome.OK]
    assert (await queue(store)).settings.max_in_flight == done["max_in_flight"]


async def test_what_is_already_so_changes_nothing(store: Store, clock: Clock) -> None:
    await store.put_queue("q", CHANGES[-1], create=True)
    before = await queue(store, "q")
    clock.advance(1)
    for changes in (*CHANGES[-1:], QueueChanges(paused=True), QueueChanges(retention=HOUR), QueueChanges()):
        answer = await store.put_queue("q", changes, create=True)
        assert answer == QueuePut(Outcome.OK, clock.now, before), changes
    answer = await store.put_queue("q", {"paused": True, "ageing": 1})
    assert answer.queue
    assert (answer.queue.settings.revision, answer.queue.settings.update_time) == (2, clock.now)


async def test_defaults_named_as_such_are_no_change(store: Store, clock: Clock) -> None:
    await put(store, "j")
    before = await queue(store)
    clock.advance(1)
    changes = QueueChanges(paused=False, ageing=MINUTE, retention=None, max_in_flight=None)
    assert (await store.put_queue("default", changes)).queue == before


async def test_settings_leave_the_order_of_the_queue_alone(store: Store) -> None:
    """A queue whose last queue_time were lost would give the same one twice."""
    first = await put(store, "first")
    await store.put_queue("default", {"ageing": 0, "max_in_flight": 5})
    second = await put(store, "second", priority=1)
    assert first.queue_time is not None
    assert second.queue_time == first.queue_time + 1


async def test_a_change_that_lets_nobody_claim_more_rings_no_bell(store: Store) -> None:
    await put(store, "j")
    hints = store.hints()
    for changes in (*CHANGES, QueueChanges(ageing=1), QueueChanges(retention=1), QueueChanges(max_in_flight=5)):
        await store.put_queue("default", changes)
        await store.put_queue("empty", changes, create=True)
    await store.put_queue("empty", {"paused": False, "max_in_flight": None})
    assert await rang(store, hints) == Hints()


# --- listing ------------------------------------------------------------------------------------------------


async def test_a_queue_is_listed_with_what_is_in_it(store: Store, clock: Clock) -> None:
    jobs = await populate(store, clock)
    found = await store.queues()
    assert found.now == clock.now
    assert [record.settings.name for record in found.queues] == list(QUEUES)

    def of(state: JobState) -> list[Job]:
        return listed(JobFilter(queues=frozenset({name}), states=frozenset({state})), jobs)

    for record in found.queues:
        name = record.settings.name
        assert record.counts == {state: len(of(state)) for state in JobState}
        assert record.head_queue_time == of(JobState.QUEUED)[0].queue_time


async def test_the_head_is_the_one_to_be_claimed_next_not_the_oldest(store: Store, clock: Clock) -> None:
    await put(store, "old", priority=10)
    clock.advance(1)
    urgent = await put(store, "urgent", priority=1)
    assert (await queue(store)).head_queue_time == urgent.queue_time
    await shove(store, "urgent", JobState.CANCELED)
    assert (await queue(store)).head_queue_time == (await get(store, "old")).queue_time
    await store.put_queue("default", {"paused": True})
    assert (await queue(store)).head_queue_time == (await get(store, "old")).queue_time


async def test_an_expired_job_is_not_the_next_to_be_claimed(store: Store, clock: Clock) -> None:
    await put(store, "old", expire_time=START + SECOND)
    await put(store, "older", expire_time=START + SECOND)
    alive = await put(store, "alive")
    clock.advance(1)
    assert (await queue(store)).head_queue_time == alive.queue_time
    await shove(store, "alive", JobState.CANCELED)
    assert (await queue(store)).head_queue_time is None


async def test_where_nobody_waits_there_is_no_head(store: Store) -> None:
    for state in JobState:
        if state is not JobState.QUEUED:
            await put(store, state, state, queue=f"q-{state}")
            record = await queue(store, f"q-{state}")
            assert (record.counts, record.head_queue_time) == ({state: 1}, None)


async def test_a_job_that_left_leaves_no_count_behind(store: Store) -> None:
    await put(store, "j", JobState.CANCELED)
    assert (await queue(store)).counts == {JobState.CANCELED: 1}
    await store.put_queue("default", {"retention": 0})
    await put(store, "k", JobState.IN_PROGRESS)
    await shove(store, "k", JobState.COMPLETED)
    assert (await queue(store)).counts == {JobState.CANCELED: 1}


async def test_queues_come_by_the_bytes_of_their_names_behind_a_name_up_to_a_limit(store: Store) -> None:
    made = ["b", "a", "Z", "a.", "a-", "a_", "B", "10", "9", "1", "aa"]
    await store.create([new_job(f"j{n}", queue=name) for n, name in enumerate(made)])
    order = sorted(made, key=str.encode)
    assert await names(store) == order
    for limit in (1, 2, 7, 11, 50):
        seen: list[str] = []
        while page := await names(store, after=seen[-1] if seen else "", limit=limit):
            assert len(page) <= limit
            seen += page
        assert seen == order, f"pages of {limit}"
    assert await names(store, after="a", limit=2) == ["a-", "a."]
    assert await names(store, after="a,") == await names(store, after="a"), "behind a name that is not there"


async def test_named_queues_are_listed_and_those_that_do_not_exist_left_out(store: Store) -> None:
    for name in ("a", "b", "c"):
        await put(store, name, queue=name)
    assert await names(store, names=["c", "unknown", "a"]) == ["a", "c"]
    assert await names(store, names=["unknown"]) == []
    assert await names(store) == ["a", "b", "c"]


async def test_more_than_a_thousand_queues_come_a_thousand_at_a_time(store: Store) -> None:
    made = [f"q{n:04}" for n in range(1100)]
    for start in (0, 1000):
        await store.create([new_job(f"j{name}", queue=name) for name in made[start : start + 1000]])
    first = await names(store)
    assert first == made[:1000]
    assert await names(store, after=first[-1]) == made[1000:]
    assert await names(store, names=made[5:900]) == made[5:900]
