"""A row that cannot be read is set aside; nothing else stops for it."""

from __future__ import annotations

import pytest
from tests.store.making import START, Clock, claim, get, ids, move, new_job, put, shove, walk, wish

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, Attempt, AttemptOutcome, JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.store.base import CreateOutcome, Renewal, Store, WorkerNotice
from jobwire_server.store.sqlite.store import SqliteStore

DAMAGE = {
    "retry is no JSON": "UPDATE job SET retry = '{' WHERE id = 'bad'",
    "retry has another shape": "UPDATE job SET retry = '[1]' WHERE id = 'bad'",
    "progress is a number": "UPDATE job SET progress = '1' WHERE id = 'bad'",
    "an outcome nobody knows": "UPDATE job SET outcome = 'eaten' WHERE id = 'bad'",
    "type is not UTF-8": "UPDATE job SET type = CAST(x'ff41' AS TEXT) WHERE id = 'bad'",
    "user is not UTF-8": "UPDATE job SET user_id = CAST(x'c328' AS TEXT) WHERE id = 'bad'",
    "error is cut off": "INSERT OR REPLACE INTO detail SELECT number, '[\"E\",', '[]' FROM job WHERE id = 'bad'",
    "history has another shape": "INSERT OR REPLACE INTO detail SELECT number, NULL, '[[1]]' FROM job WHERE id = 'bad'",
}


BESIDE = (DAMAGE["error is cut off"], DAMAGE["history has another shape"])
"""Damage of what stands beside the row, which only those meet who read whole jobs."""


@pytest.fixture(params=DAMAGE)
def damage(request: pytest.FixtureRequest) -> str:
    return DAMAGE[request.param]


async def plant(store: Store, damage: str) -> None:
    assert isinstance(store, SqliteStore)
    await store._write(lambda transaction: transaction.execute(damage))


async def is_set_aside(store: Store, clock: Clock) -> bool:
    job = await get(store, "bad")
    assert job.error is not None
    assert job.submission == b"payload", "what is intact stays"
    return (job.state, job.error.code, job.score) == (JobState.FAILED, "CORRUPT_JOB", clock.now + 7 * DAY)


async def test_a_claim_sets_it_aside_and_goes_on(store: Store, clock: Clock, damage: str) -> None:
    await store.create([new_job("a"), new_job("bad", submission=b"payload", retention=0), new_job("c")])
    await plant(store, damage)
    jobs = (await claim(store, wish(number=3))).jobs
    assert [job.id for job in jobs] == ["a", "c"]
    assert await is_set_aside(store, clock)


async def test_a_read_sets_it_aside_and_answers_the_rest(store: Store, clock: Clock, damage: str) -> None:
    await store.create([new_job("a"), new_job("bad", submission=b"payload")])
    await plant(store, damage)
    found = (await store.get(["a", "bad"])).jobs
    assert [job.id if job else None for job in found] == ["a", "bad"]
    assert await is_set_aside(store, clock)


QUEUED = frozenset({JobState.QUEUED})


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(JobFilter(states=QUEUED), ["a", "c"], id="of a state"),
        pytest.param(JobFilter(), ["a", "c", "bad"], id="of everything"),
        pytest.param(JobFilter(user_id="ann", states=QUEUED), ["c", "a"], id="of a user in a state"),
    ],
)
async def test_a_listing_sets_it_aside_and_goes_on(
    store: Store, clock: Clock, damage: str, wanted: JobFilter, expected: list[str]
) -> None:
    for id in ("a", "bad", "c"):
        await store.create([new_job(id, submission=b"payload", user_id="ann")])
    await plant(store, damage)
    for limit in (1, 2, 9):
        assert ids(await walk(store, wanted, limit=limit)) == expected
    assert await is_set_aside(store, clock)


@pytest.mark.parametrize("user", ["", "ann"])
async def test_a_count_that_scans_sets_it_aside_and_goes_on(store: Store, clock: Clock, user: str) -> None:
    await store.create([new_job(id, submission=b"payload", user_id="ann", type="t") for id in ("a", "bad", "c")])
    await plant(store, DAMAGE["type is not UTF-8"])
    wanted = JobFilter(user_id=user, types=frozenset({"t"}))
    assert (await store.count(wanted)).by_state == {JobState.QUEUED: 2}
    assert await is_set_aside(store, clock)


async def test_it_can_be_deleted(store: Store, clock: Clock, damage: str) -> None:
    read = await put(store, "bad", submission=b"payload")
    await plant(store, damage)
    if damage not in BESIDE:
        assert await store.delete([Deletion("bad", read.version)]) == [Outcome.STALE], "it was set aside instead"
    assert await is_set_aside(store, clock)
    assert await store.delete([Deletion("bad", (await get(store, "bad")).version)]) == [Outcome.OK]


async def test_reads_after_one_that_met_it_see_what_came_since(store: Store, damage: str) -> None:
    await put(store, "bad")
    await plant(store, damage)
    await get(store, "bad")
    await put(store, "new")
    assert ids((await store.get(["bad", "new"])).jobs) == ["bad", "new"]


async def test_a_leased_one_is_taken_from_its_worker(store: Store, clock: Clock, damage: str) -> None:
    job = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    other = await put(store, "other", JobState.IN_PROGRESS)
    await plant(store, damage)
    hints = store.hints()
    clock.advance(30)
    assert (await store.overdue(limit=9)).jobs == [other]
    heard = await anext(hints)
    assert (heard.freed, heard.lost) == ({"w": 1}, (WorkerNotice("w", "bad", job.fence),))
    assert await is_set_aside(store, clock)
    assert (await claim(store, wish(number=0))).held == 1


async def test_a_scheduled_one_does_not_stop_promotion(store: Store, clock: Clock, damage: str) -> None:
    await store.create([new_job(id, submission=b"payload", schedule_time=START + 1) for id in ("a", "bad", "c")])
    await plant(store, damage)
    clock.advance(1)
    assert await store.promote(limit=9) == (3 if damage in BESIDE else 2)
    assert await is_set_aside(store, clock)


async def test_renewing_and_completing_need_not_read_it(store: Store, clock: Clock, damage: str) -> None:
    job = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    assert job.token
    await plant(store, damage)
    (renewed,) = await store.renew([Renewal(job_id="bad", token=job.token)])
    assert renewed.outcome is Outcome.OK
    assert await move(store, policy.complete("bad", job.token, b"")) is Outcome.OK
    assert (await store.create([new_job("bad")]))[0].outcome is CreateOutcome.EXISTED
    if damage != DAMAGE["an outcome nobody knows"]:  # which the completion wrote anew
        assert await is_set_aside(store, clock)


async def test_it_can_be_replayed(store: Store, clock: Clock, damage: str) -> None:
    await put(store, "bad", submission=b"payload")
    await plant(store, damage)
    dead = await get(store, "bad")
    assert await move(store, policy.replay(dead, etag=dead.etag)) is Outcome.OK
    (job,) = (await claim(store)).jobs
    assert (job.id, job.submission, job.error) == ("bad", b"payload", None)


async def test_an_unreadable_history_does_not_take_a_readable_one_with_it(store: Store) -> None:
    attempt = Attempt(1, "w", 1, 2, AttemptOutcome.FAILED, b"t")
    await put(store, "bad")
    await shove(store, "bad", JobState.QUEUED, attempt=1, history=(attempt,))
    await plant(store, DAMAGE["retry is no JSON"])
    assert (await get(store, "bad")).history == (attempt,)
