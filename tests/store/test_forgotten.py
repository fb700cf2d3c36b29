"""Names that nobody uses any more go: queues and workers, by `purge`, bite by bite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from tests.store.making import START, Clock, claim, count, get, is_there, new_job, put, queue, shove, wish, worker

from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, HOUR, MINUTE, SECOND, JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.domain.queue import FORGOTTEN_AFTER, Queue
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.store.base import WORKER_FORGOTTEN_AFTER, ClaimOutcome, Store

ENOUGH = 400
"""Calls after which every bite has been taken, whatever stands before it."""


async def queues(store: Store) -> list[str]:
    return [record.settings.name for record in (await store.queues()).queues]


async def workers(store: Store) -> list[str]:
    return [record.info.id for record in (await store.workers()).workers]


async def purge(store: Store, until: Callable[[Store], Awaitable[list[str]]], left: list[str]) -> None:
    """Purges until that is what is left; what is to stay is seen to stay by the calls that follow."""
    for _ in range(ENOUGH):
        assert await store.purge(limit=100) == 0, "what is forgotten is not counted"
        if await until(store) == left:
            break
    for _ in range(3):
        await store.purge(limit=100)
    assert await until(store) == left


async def delete(store: Store, *ids: str) -> None:
    deletions = [Deletion(id, (await get(store, id)).version) for id in ids]
    assert set(await store.delete(deletions)) <= {Outcome.OK}


# --- queues -------------------------------------------------------------------------------------------------


async def test_an_empty_queue_is_forgotten_a_day_after_its_last_job_entered_it(store: Store, clock: Clock) -> None:
    await put(store, "first", queue="q")
    clock.now += HOUR
    await put(store, "last", queue="q")
    await delete(store, "first", "last")
    clock.now += FORGOTTEN_AFTER - 1
    await purge(store, queues, ["q"])
    clock.now += 1
    await purge(store, queues, [])
    assert (await store.queues(names=["q"])).queues == []
    assert (await store.put_queue("q", {})).outcome is Outcome.GONE
    assert await count(store, JobFilter()) == {}


@pytest.mark.parametrize("state", JobState)
async def test_a_queue_with_a_job_in_it_stays(store: Store, clock: Clock, state: JobState) -> None:
    await put(store, "j", state, queue="q", retention=30 * DAY)
    await put(store, "other", queue="other")
    await delete(store, "other")
    clock.now += 2 * DAY
    await purge(store, queues, ["q"])
    await delete(store, "j")
    await purge(store, queues, [])


async def test_a_queue_whose_settings_somebody_changed_stays_for_ever(store: Store, clock: Clock) -> None:
    await store.put_queue("made", {"retention": HOUR}, create=True)
    await put(store, "j", queue="changed-back")
    await put(store, "k", queue="never-changed")
    await store.put_queue("changed-back", {"paused": True})
    await store.put_queue("changed-back", {"paused": False})
    await delete(store, "j", "k")
    clock.now += 400 * DAY
    await purge(store, queues, ["changed-back", "made"])
    assert (await queue(store, "made")).settings.retention == HOUR


async def test_a_queue_that_nobody_ever_queued_in_has_its_day_too(store: Store, clock: Clock) -> None:
    """Its last `queue_time` is none: it must not look like one of 1970."""
    await put(store, "later", queue="scheduled", schedule_time=START + HOUR)
    await store.put_queue("made", {}, create=True)
    await delete(store, "later")
    clock.now += FORGOTTEN_AFTER - 1
    await purge(store, queues, ["made", "scheduled"])
    clock.now += 1
    await purge(store, queues, [])


async def test_a_queue_is_forgotten_after_its_ended_jobs_are_purged(store: Store, clock: Clock) -> None:
    await put(store, "j", JobState.COMPLETED, queue="q", retention=2 * DAY)
    clock.now += 2 * DAY
    assert await store.purge(limit=9) == 1
    assert not await is_there(store, "j")
    await purge(store, queues, [])


async def test_a_job_that_enters_keeps_its_queue(store: Store, clock: Clock) -> None:
    await put(store, "j", queue="q")
    clock.now += FORGOTTEN_AFTER
    await put(store, "k", queue="q")
    await delete(store, "j", "k")
    await purge(store, queues, ["q"])


async def test_a_forgotten_queue_comes_back_as_a_new_one(store: Store, clock: Clock) -> None:
    await put(store, "j", queue="q")
    await delete(store, "j")
    clock.now += FORGOTTEN_AFTER
    await purge(store, queues, [])
    job = await put(store, "j", queue="q")
    record = await queue(store, "q")
    assert record.settings == Queue(name="q", create_time=clock.now, update_time=clock.now)
    assert (record.counts, record.head_queue_time) == ({JobState.QUEUED: 1}, job.queue_time)
    assert len((await claim(store, queue="q")).jobs) == 1


async def test_no_number_of_queues_that_stay_hides_one_that_goes(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"j{n}", queue=f"q{n:03}") for n in range(300)])
    for name in ("a", "q100x", "z"):
        await put(store, name, queue=name)
        await delete(store, name)
    clock.now += FORGOTTEN_AFTER
    await purge(store, queues, [f"q{n:03}" for n in range(300)])


async def test_hundreds_of_queues_are_forgotten(store: Store, clock: Clock) -> None:
    """Names made up for each customer or each day."""
    await store.create([new_job(f"j{n}", queue=f"q{n:03}") for n in range(300)])
    await delete(store, *(f"j{n}" for n in range(300)))
    clock.now += FORGOTTEN_AFTER
    await purge(store, queues, [])


# --- workers ------------------------------------------------------------------------------------------------


async def test_a_worker_is_forgotten_an_hour_after_it_was_last_heard(store: Store, clock: Clock) -> None:
    await store.beat(WorkerInfo(id="w", host="h"))
    clock.now += HOUR // 2
    await store.beat(WorkerInfo(id="w"))
    clock.now += WORKER_FORGOTTEN_AFTER - 1
    await purge(store, workers, ["w"])
    clock.now += 1
    await purge(store, workers, [])
    assert (await store.workers(ids=["w"])).workers == []


async def test_a_worker_that_only_ever_claimed_is_forgotten_too(store: Store, clock: Clock) -> None:
    await claim(store, wish("w", session=9))
    clock.now += WORKER_FORGOTTEN_AFTER
    await purge(store, workers, [])


async def test_a_worker_that_holds_something_is_not_forgotten(store: Store, clock: Clock) -> None:
    await put(store, "j", JobState.IN_PROGRESS)
    await store.beat(WorkerInfo(id="idle"))
    clock.now += 10 * WORKER_FORGOTTEN_AFTER
    await purge(store, workers, ["w"])
    assert (await worker(store)).held == 1
    await shove(store, "j", JobState.QUEUED)
    await purge(store, workers, [])


async def test_a_forgotten_worker_comes_back_as_a_new_one(store: Store, clock: Clock) -> None:
    await store.beat(WorkerInfo(id="w", session=9, host="h", queues=("q",)))
    clock.now += WORKER_FORGOTTEN_AFTER
    await purge(store, workers, [])
    await put(store, "j")
    assert (await claim(store, wish("w", session=1))).outcome is ClaimOutcome.OK
    record = await worker(store)
    assert (record.info, record.held) == (WorkerInfo(id="w", session=1), 1)


async def test_no_number_of_workers_that_stay_hides_one_that_goes(store: Store, clock: Clock) -> None:
    for id in ("a", "w100x", "z"):
        await store.beat(WorkerInfo(id=id))
    await store.create([new_job(f"j{n}") for n in range(150)])
    await store.claim("default", [wish(f"w{n:03}") for n in range(150)])
    clock.now += WORKER_FORGOTTEN_AFTER
    await store.claim("default", [wish(f"x{n:03}", 0) for n in range(150)])
    await purge(store, workers, [*(f"w{n:03}" for n in range(150)), *(f"x{n:03}" for n in range(150))])


async def test_hundreds_of_workers_are_forgotten(store: Store, clock: Clock) -> None:
    await store.claim("default", [wish(f"w{n:03}", 0) for n in range(300)])
    clock.now += WORKER_FORGOTTEN_AFTER
    await purge(store, workers, [])


# --- both ---------------------------------------------------------------------------------------------------


async def test_nobody_is_forgotten_for_a_minute_after_an_outage(
    store: Store, clock: Clock, outage: Callable[[], None]
) -> None:
    await put(store, "j", queue="q")
    await delete(store, "j")
    await store.beat(WorkerInfo(id="w"))
    clock.now += DAY
    outage()
    clock.now += MINUTE - 1
    await purge(store, queues, ["q"])
    await purge(store, workers, ["w"])
    clock.now += 1
    await purge(store, queues, [])
    await purge(store, workers, [])


async def test_forgetting_takes_no_room_from_purging(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"j{n}", queue=f"q{n}") for n in range(20)])
    await delete(store, *(f"j{n}" for n in range(20)))
    for n in range(5):
        await put(store, f"ended{n}", JobState.CANCELED, retention=SECOND)
    clock.now += FORGOTTEN_AFTER
    assert [await store.purge(limit=2) for _ in range(4)] == [2, 2, 1, 0]
