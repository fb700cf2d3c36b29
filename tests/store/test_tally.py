"""What happens to a queue's jobs is counted by the step that does it: once, whatever the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.store.making import Clock, claim, get, move, new_job, put, queue, shove, wish
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.activity import LONG, SHORT, Tally, window_lengths
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, MINUTE, SECOND, Job, JobError, JobState, RetryPolicy
from jobwire_server.domain.move import AnyMove, Move
from jobwire_server.domain.retry import MAX_RETURNS
from jobwire_server.store.base import Renewal, Store
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.sqlite.store import SqliteStore

BOOM = JobError("E", "it broke")


async def tally(store: Store, name: str = "default") -> Tally:
    return (await queue(store, name)).tally


async def created_lately(store: Store) -> list[int]:
    (record,) = (await store.queues(names=["default"], lately=True)).queues
    assert record.lately is not None
    return [each.created for each in record.lately]


async def leased(store: Store, id: str, *, acknowledged: bool = True) -> Job:
    (job,) = (await claim(store, wish(delivery=0 if acknowledged else 10))).jobs
    assert job.id == id
    return job


def token(job: Job) -> bytes:
    assert job.token
    return job.token


def failure(job: Job, clock: Clock, *, permanent: bool = False) -> Move:
    return policy.fail(job, token(job), BOOM, permanent=permanent, retry_delay=0, now=clock.now, random=0)


async def test_a_create_is_counted_in_its_queue_whenever_the_job_is_due(store: Store, clock: Clock) -> None:
    await store.create([new_job("a"), new_job("b", schedule_time=clock.now + SECOND), new_job("c", queue="other")])
    assert await tally(store) == Tally(created=2)
    assert await tally(store, "other") == Tally(created=1)


async def test_a_create_that_stores_nothing_is_not_counted(store: Store) -> None:
    await store.create([new_job("a")])
    await store.create([new_job("a"), new_job("a", digest=b"other")])
    assert await tally(store) == Tally(created=1)


async def test_each_lease_is_counted_whatever_comes_of_it(store: Store, clock: Clock) -> None:
    await store.create([new_job(f"j{n}") for n in range(5)])
    claims = await store.claim("default", [wish("v", 2), wish("w", 2)])
    await store.claim("default", [wish("x", 0)])
    (job,) = claims.claimed[0].jobs[:1]
    assert await move(store, policy.hand_back(job, token(job), now=clock.now)) is Outcome.OK
    await claim(store, wish("x", 2))
    assert (await tally(store)).claimed == 6


async def test_completions_are_counted_with_the_time_from_claim_to_end(store: Store, clock: Clock) -> None:
    await store.create([new_job("a"), new_job("b")])
    first = await leased(store, "a", acknowledged=False)
    clock.advance(2)
    second = await leased(store, "b")
    clock.advance(3)
    await store.renew([Renewal(job_id="a", token=token(first))])
    done = await store.move([policy.complete(each.id, token(each), b"r") for each in (first, second)])
    assert {each.outcome for each in done} == {Outcome.OK}
    assert await tally(store) == Tally(created=2, claimed=2, completed=2, run_time=8 * SECOND)


async def test_a_clock_that_was_set_back_takes_no_run_time_away(store: Store, clock: Clock) -> None:
    await store.create([new_job("a"), new_job("b", retention=0)])
    jobs = (await claim(store, wish(number=2))).jobs
    clock.advance(-5)
    await store.move([policy.complete(job.id, token(job), b"r") for job in jobs])
    assert await tally(store) == Tally(created=2, claimed=2, completed=2)


async def test_a_completion_among_other_moves_is_counted_alike(store: Store, clock: Clock) -> None:
    await store.create([new_job("a"), new_job("b"), new_job("c", retention=0)])
    a, b, c = [await leased(store, id) for id in "abc"]
    clock.advance(1)
    moves: list[AnyMove] = [
        policy.complete("a", token(a), b"r"),
        failure(b, clock),
        policy.complete("c", token(c), None),
    ]
    assert {each.outcome for each in await store.move(moves)} == {Outcome.OK}
    assert await tally(store) == Tally(created=3, claimed=3, completed=2, retried=1, run_time=2 * SECOND)


async def test_a_failure_is_retried_or_a_dead_letter(store: Store, clock: Clock) -> None:
    await store.create([new_job("a", retry=RetryPolicy(max_retries=1))])
    for _ in range(2):
        assert await move(store, failure(await leased(store, "a"), clock)) is Outcome.OK
        await store.promote(limit=9)
    assert await tally(store) == Tally(created=1, claimed=2, retried=1, failed=1)
    assert await move(store, policy.replay(await get(store, "a"), etag=None)) is Outcome.OK
    assert await move(store, failure(await leased(store, "a"), clock, permanent=True)) is Outcome.OK
    assert (await tally(store)).failed == 2, "a replayed job counts each time"


async def test_a_lease_that_ends_without_a_word_is_an_interruption(store: Store, clock: Clock) -> None:
    await store.create([new_job("a", retry=RetryPolicy(max_interruptions=1))])
    for _ in range(2):
        job = await leased(store, "a")
        clock.advance(30)
        assert await move(store, policy.reap(job, now=clock.now, random=0)) is Outcome.OK
    assert await tally(store) == Tally(created=1, claimed=2, interrupted=2, failed=1)


async def test_an_attempt_that_timed_out_is_a_retry(store: Store, clock: Clock) -> None:
    await store.create([new_job("a", execution_timeout=5 * SECOND)])
    job = await leased(store, "a")
    clock.advance(5)
    assert await move(store, policy.reap(job, now=clock.now, random=0)) is Outcome.OK
    assert await tally(store) == Tally(created=1, claimed=1, retried=1)


async def test_a_delivery_that_comes_back_is_none_of_these_until_there_were_too_many(
    store: Store, clock: Clock
) -> None:
    await store.create([new_job("a")])
    for number in range(1, MAX_RETURNS + 1):
        job = (await claim(store, wish(f"w{number}"))).jobs[0]
        assert await move(store, policy.hand_back(job, token(job), now=clock.now)) is Outcome.OK
        assert (await tally(store)) == Tally(created=1, claimed=number, failed=number == MAX_RETURNS)
        clock.advance(600)
        await store.promote(limit=1)


async def test_what_ends_otherwise_is_not_counted(store: Store, clock: Clock) -> None:
    for state in (JobState.CANCELED, JobState.EXPIRED):
        await put(store, state, state)
    job = await put(store, "deleted", JobState.IN_PROGRESS)
    await store.delete([policy.delete(job, force=True, etag=None)])
    released = await put(store, "released", JobState.IN_PROGRESS)
    assert await move(store, policy.release(released, token(released), delay=0, now=clock.now, random=0)) is Outcome.OK
    assert await tally(store) == Tally(created=4, claimed=2)


async def test_a_repeated_or_refused_move_is_not_counted_again(store: Store, clock: Clock) -> None:
    await store.create([new_job("a"), new_job("b")])
    a, b = [await leased(store, id) for id in "ab"]
    moves: list[AnyMove] = [policy.complete("a", token(a), b"r"), failure(b, clock)]
    others: list[AnyMove] = [policy.complete("a", token(a), b"s"), failure(b, clock, permanent=True)]
    for each in (*moves, *moves, *others):
        await store.move([each])
    assert await tally(store) == Tally(created=2, claimed=2, completed=1, retried=1)


async def test_a_batch_over_many_queues_is_counted_in_each(store: Store) -> None:
    await store.create([new_job(f"j{n}", queue=f"q{n % 3}") for n in range(700)])
    jobs = [job for n in range(3) for job in (await claim(store, wish(number=300), queue=f"q{n}")).jobs]
    await store.move([policy.complete(job.id, token(job), b"r") for job in jobs])
    for name, number in (("q0", 234), ("q1", 233), ("q2", 233)):
        assert await tally(store, name) == Tally(created=number, claimed=number, completed=number)


# --- lately -------------------------------------------------------------------------------------------------


async def test_what_happened_lately_is_told_by_window(store: Store, clock: Clock) -> None:
    clock.now -= clock.now % MINUTE
    for minutes in (20, 10, 3, 0):
        await store.create([new_job(f"{minutes}-minutes-ago")])
        clock.advance(60 * (minutes - {20: 10, 10: 3, 3: 0, 0: 0}[minutes]))
    assert await created_lately(store) == [1, 2, 3]
    assert await tally(store) == Tally(created=4)
    clock.advance(61)
    assert await created_lately(store) == [0, 2, 3]
    clock.advance(900)
    assert await created_lately(store) == [0, 0, 0]
    assert (await queue(store)).lately is None, "nobody asked"


async def test_the_minutes_of_the_last_hour_are_told_one_by_one(store: Store, clock: Clock) -> None:
    clock.now -= clock.now % MINUTE
    for number in (1, 2, 0, 3):
        await store.create([new_job(f"{clock.now}-{n}") for n in range(number)])
        clock.advance(60)
    clock.advance(3000)
    (record,) = (await store.queues(minutes=True)).queues
    assert record.minutes is not None
    assert [each.created for each in record.minutes] == [0] * 6 + [1, 2, 0, 3] + [0] * 50
    assert record.lately is None, "nobody asked"


async def test_a_damaged_count_keeps_nobody_from_the_queue(
    store: Store, clock: Clock, keyspace: Keyspace | None
) -> None:
    if keyspace is None:
        return  # there the schema says what is a number
    await put(store, "j", JobState.IN_PROGRESS)
    with keyspace.server.client() as client:
        (key,) = client.keys("*:queue:default")
        (marks,) = client.keys("*:marks:default")
        client.hset(key, mapping={"created": "x", "completed": "1.5"})
        client.hset(marks, mapping=dict.fromkeys(client.hkeys(marks), "60000000 x 1"))
        job = await get(store, "j")
        assert await move(store, policy.complete("j", token(job), b"r")) is Outcome.OK
        (record,) = (await store.queues(lately=True, minutes=True)).queues
        assert (record.tally.created, record.tally.claimed, record.tally.completed) == (0, 1, 0)
        client.hset(key, mapping={"created": "1", "completed": "1"})
        client.delete(marks)


async def test_marks_take_no_room_that_grows(store: Store, clock: Clock, keyspace: Keyspace | None) -> None:
    for number in range(3 * LONG.slots):
        await store.create([new_job(f"j{number}")])
        clock.advance(LONG.step / SECOND)
    if isinstance(store, SqliteStore):
        marks: int = await store._write(lambda each: each.execute("SELECT count(*) FROM mark").get)
    else:
        assert keyspace is not None
        with keyspace.server.client() as client:
            (key,) = client.keys("*:marks:default")
            marks = int(client.hlen(key))
    assert marks <= LONG.slots + SHORT.slots


async def test_a_tally_outlasts_the_jobs_but_not_its_queue(store: Store, clock: Clock) -> None:
    job = await put(store, "j", JobState.IN_PROGRESS)
    assert await move(store, policy.complete("j", token(job), b"r")) is Outcome.OK
    clock.advance(DAY / SECOND)
    await store.purge(limit=9)
    assert (await store.queues()).queues == []
    await put(store, "k")
    assert await tally(store) == Tally(created=1)
    assert await created_lately(store) == [1, 1, 1]


async def test_a_tally_goes_on_after_a_restart(
    engine: str, keyspace: Keyspace | None, tmp_path: Path, clock: Clock
) -> None:
    if engine == "memory":
        return  # it is gone with its process
    for number in range(2):
        store: Store
        if keyspace is None:
            store = SqliteStore(str(tmp_path / "again.db"), clock=clock)
        else:
            store = RedisStore(keyspace.url, clock=clock)
        await store.open()
        await store.create([new_job(f"j{number}")])
        clock.advance(20)
        found, created = await store.queues(), await created_lately(store)
        await store.close()
    assert found.queues[0].tally == Tally(created=2)
    assert created == [2, 2, 2]
    assert window_lengths(now=found.now, since=found.since) == (40 * SECOND,) * 3


@pytest.mark.parametrize("number", [1, 600])
async def test_settings_and_sweeps_count_nothing(store: Store, clock: Clock, number: int) -> None:
    await store.create([new_job(f"j{n}", schedule_time=clock.now + 1) for n in range(number)])
    clock.advance(1)
    await store.promote(limit=number)
    await store.put_queue("default", {"paused": True})
    await shove(store, "j0", JobState.CANCELED)
    await store.purge(limit=9)
    assert await tally(store) == Tally(created=number)
