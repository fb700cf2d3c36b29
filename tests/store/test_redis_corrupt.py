"""A record that cannot be read is set aside; nothing else stops for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError
from tests.store.making import START, Clock, claim, get, ids, move, new_job, put, queue, shove, walk, wish
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, HOUR, SECOND, Attempt, AttemptOutcome, JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.store.base import CreateOutcome, Renewal, Store, WorkerNotice
from jobwire_server.store.redis import mending
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.store import RedisStore

Plant = Callable[[Any, str], object]


def field(name: str, value: str | bytes) -> Plant:
    return lambda client, tag: client.hset(f"{tag}:job:bad", name, value)


def lacking(name: str) -> Plant:
    return lambda client, tag: client.hdel(f"{tag}:job:bad", name)


def detail(value: str) -> Plant:
    def plant(client: Any, tag: str) -> None:
        client.set(f"{tag}:detail:bad", value)
        client.hset(f"{tag}:job:bad", "beside", "d")

    return plant


DAMAGE: dict[str, Plant] = {
    "priority is a word": field("priority", "high"),
    "version is a word": field("version", "abc"),
    "revision is a word": field("revision", "abc"),
    "expire_time is a word": field("expire_time", "soon"),
    "execution_timeout is not a number": field("execution_timeout", "nan"),
    "retention is endless": field("retention", "inf"),
    "create_time is a word": field("create_time", "long ago"),
    "create_time is missing": lacking("create_time"),
    "queue is missing": lacking("queue"),
    "state is unknown": field("state", "eaten"),
    "state is missing": lacking("state"),
    "retry is no JSON": field("retry", "{"),
    "retry has another shape": field("retry", "[1]"),
    "type is not UTF-8": field("type", b"\xffA"),
    "type has a NUL": field("type", "a\0b"),
    "user is not UTF-8": field("user_id", b"\xc3("),
    "detail is cut off": detail('{"error":"[1'),
    "detail has another shape": detail("[1]"),
    "history is a number": detail('{"history":1}'),
    "history has another shape": detail('{"history":"[[1]]"}'),
}
"""What may happen to a record in any state."""


@pytest.fixture(params=DAMAGE)
def damage(request: pytest.FixtureRequest) -> Plant:
    return DAMAGE[request.param]


@pytest.fixture
def plant(keyspace: Keyspace) -> Callable[[Plant], None]:
    def plant(damage: Plant) -> None:
        with keyspace.server.client() as client:
            damage(client, Keys(keyspace.prefix).tag)

    return plant


Planting = Callable[[Plant], None]


async def is_set_aside(store: Store, clock: Clock) -> bool:
    """And stands where it belongs: it is looked for there before anything reads it by its id, which might mend it."""
    failed = JobFilter(queues=frozenset({"default"}), states=frozenset({JobState.FAILED}))
    (job,) = await walk(store, failed)
    assert job.error is not None
    assert job.submission == b"payload", "what is intact stays"
    return (job.id, job.queue, job.error.code, job.score) == ("bad", "default", "CORRUPT_JOB", clock.now + 7 * DAY)


# --- any damage, met by each verb ---------------------------------------------------------------------------


async def test_a_claim_sets_it_aside_and_goes_on(store: Store, clock: Clock, plant: Planting, damage: Plant) -> None:
    await store.create([new_job("a"), new_job("bad", submission=b"payload", retention=0), new_job("c")])
    plant(damage)
    claimed = await claim(store, wish(number=3))
    assert (ids(claimed.jobs), claimed.held) == (["a", "c"], 2)
    assert await is_set_aside(store, clock)


async def test_a_read_sets_it_aside_and_answers_the_rest(
    store: Store, clock: Clock, plant: Planting, damage: Plant
) -> None:
    await store.create([new_job("a"), new_job("bad", submission=b"payload")])
    plant(damage)
    assert ids((await store.get(["a", "bad"])).jobs) == ["a", "bad"]
    assert await is_set_aside(store, clock)


async def test_a_leased_one_is_taken_from_its_worker(
    store: Store, clock: Clock, plant: Planting, damage: Plant
) -> None:
    job = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    other = await put(store, "other", JobState.IN_PROGRESS)
    plant(damage)
    hints = store.hints()
    clock.advance(30)
    assert (await store.overdue(limit=9)).jobs == [other]
    heard = await anext(hints)
    assert (heard.freed, heard.lost) == ({"w": 1}, (WorkerNotice("w", "bad", job.fence),))
    assert await is_set_aside(store, clock)
    assert (await claim(store, wish(number=0))).held == 1


async def test_a_scheduled_one_does_not_stop_promotion(
    store: Store, clock: Clock, plant: Planting, damage: Plant
) -> None:
    await store.create([new_job(id, submission=b"payload", schedule_time=START + 1) for id in ("a", "bad", "c")])
    plant(damage)
    clock.advance(1)
    assert await store.promote(limit=9) >= 2, "it may have gone with them, if nothing in it had to be read"
    assert (await get(store, "bad")).state is JobState.FAILED
    assert ids((await claim(store, wish(number=9))).jobs) == ["a", "c"]
    assert await is_set_aside(store, clock)


async def test_settling_and_renewing_it_hurt_nobody_else(
    store: Store, clock: Clock, plant: Planting, damage: Plant
) -> None:
    """Neither reads more of it than it needs: what else is damaged shows when somebody reads it."""
    job = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    other = await put(store, "other", JobState.IN_PROGRESS)
    assert job.token
    assert other.token
    plant(damage)
    renewed = await store.renew([Renewal(job_id=each.id, token=each.token or b"") for each in (other, job)])
    moved = await store.move([policy.complete("other", other.token, b""), policy.complete("bad", job.token, b"")])
    for answers in (renewed, moved):
        assert answers[0].outcome is Outcome.OK
        assert answers[1].outcome in (Outcome.OK, Outcome.LOST)
    assert [each.state for each in (await store.get(["other", "bad"])).jobs if each] == [
        JobState.COMPLETED,
        JobState.FAILED,
    ]
    assert await is_set_aside(store, clock)
    assert (await store.create([new_job("bad")]))[0].outcome is CreateOutcome.EXISTED


async def test_a_listing_goes_on_behind_it(store: Store, clock: Clock, plant: Planting, damage: Plant) -> None:
    await store.create([new_job(id, submission=b"payload") for id in ("a", "bad", "c")])
    plant(damage)
    queued = JobFilter(queues=frozenset({"default"}), states=frozenset({JobState.QUEUED}))
    assert ids((await store.find(queued, limit=9)).jobs) == ["a", "c"]
    assert await is_set_aside(store, clock)


async def test_it_can_be_replayed(store: Store, clock: Clock, plant: Planting, damage: Plant) -> None:
    await put(store, "bad", submission=b"payload")
    plant(damage)
    dead = await get(store, "bad")
    assert await move(store, policy.replay(dead, etag=dead.etag)) is Outcome.OK
    (job,) = (await claim(store)).jobs
    assert (job.id, job.submission, job.error) == ("bad", b"payload", None)


# --- leases -------------------------------------------------------------------------------------------------

LEASED: dict[str, Plant] = {
    "score is a word": field("score", "abc"),
    "score is missing": lacking("score"),
    "token is missing": lacking("token"),
    "token is no hex": field("token", "xyz"),
    "worker_id is missing": lacking("worker_id"),
    "worker_id is no name": field("worker_id", b"\xff"),
    "fence is a word": field("fence", "abc"),
    "claim_time is missing": lacking("claim_time"),
    "claim_time is a word": field("claim_time", "abc"),
    "limit_time is a word": field("limit_time", "abc"),
    "lease_duration is a word": field("lease_duration", "abc"),
    "lease_expire_time is a word": field("lease_expire_time", "abc"),
    "attempt is a word": field("attempt", "abc"),
    "an outcome nobody knows": field("outcome", "eaten"),
    "operation is no hex": field("last_operation", "xyz"),
    "error has another shape": detail('{"error":"[1]"}'),
    "progress is a number": detail('{"progress":"1"}'),
}
"""What may happen to the record of a lease beside that."""


@pytest.fixture(params=LEASED)
def lease_damage(request: pytest.FixtureRequest) -> Plant:
    return LEASED[request.param]


async def _is_free(store: Store, clock: Clock) -> bool:
    """Set aside, and no lease counts any more but the other one."""
    return await is_set_aside(store, clock) and (await claim(store, wish(number=0))).held == 1


async def test_the_sweep_takes_a_damaged_lease_from_its_worker(
    store: Store, clock: Clock, plant: Planting, lease_damage: Plant
) -> None:
    await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    other = await put(store, "other", JobState.IN_PROGRESS)
    plant(lease_damage)
    clock.advance(30)
    assert (await store.overdue(limit=9)).jobs == [other]
    assert await _is_free(store, clock)


async def test_looking_for_old_leases_finds_the_healthy_ones(
    store: Store, clock: Clock, plant: Planting, lease_damage: Plant
) -> None:
    await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    other = await put(store, "other", JobState.IN_PROGRESS)
    plant(lease_damage)
    clock.advance(1)
    assert (await store.leased(longer_than=0, limit=9)).jobs == [other]
    assert await _is_free(store, clock)


async def test_reading_a_damaged_lease_ends_it(
    store: Store, clock: Clock, plant: Planting, lease_damage: Plant
) -> None:
    await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    await put(store, "other", JobState.IN_PROGRESS)
    plant(lease_damage)
    assert (await get(store, "bad")).state is JobState.FAILED
    assert await _is_free(store, clock)


async def test_its_slot_below_the_ceiling_is_told_and_free(store: Store, plant: Planting) -> None:
    await store.put_queue("default", {"max_in_flight": 1}, create=True)
    await put(store, "bad", JobState.IN_PROGRESS)
    await put(store, "next")
    plant(lacking("token"))
    hints = store.hints()
    await store.get(["bad"])
    assert (await anext(hints)).queued == {"default": 1}
    assert ids((await claim(store, wish("v"))).jobs) == ["next"]


async def test_a_damaged_job_of_a_queue_that_it_does_not_know_is_found_there(
    store: Store, clock: Clock, plant: Planting
) -> None:
    await put(store, "bad", submission=b"payload", queue="far")
    await put(store, "first", queue="a")
    plant(field("queue", b"\xff"))
    assert (await get(store, "bad")).queue == "far"
    assert (await queue(store, "far")).counts == {JobState.FAILED: 1}
    assert (await claim(store, queue="far")).jobs == []


# --- ended and waiting jobs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lacking("state"), field("state", "eaten")])
async def test_a_damaged_state_does_not_make_purge_forget_where_the_job_is(
    store: Store, clock: Clock, plant: Planting, damage: Plant
) -> None:
    for id in ("a", "bad", "c"):
        await put(store, id, JobState.CANCELED, submission=b"payload", retention=SECOND)
    plant(damage)
    clock.advance(2)
    assert await store.purge(limit=9) == 2
    assert await is_set_aside(store, clock)
    clock.advance(8 * 24 * 3600)
    assert await store.purge(limit=9) == 1


async def test_an_edit_of_a_job_whose_due_time_is_gone_writes_nothing_by_halves(
    store: Store, clock: Clock, plant: Planting
) -> None:
    await put(store, "bad", submission=b"payload", schedule_time=START + HOUR)
    await put(store, "other", schedule_time=START + HOUR)
    plant(lacking("schedule_time"))
    await shove(store, "other", JobState.SCHEDULED, schedule_time=START + 1)
    (bad,) = (await store.get(["bad"])).jobs
    assert bad
    edits = [
        policy.edit(job, {"priority": 1}, payload=False, etag=None, now=clock.now)
        for job in (await get(store, "other"), bad)
    ]
    moved = await store.move(edits)
    assert [each.outcome for each in moved] == [Outcome.OK, Outcome.STALE]
    assert (await get(store, "other")).priority == 1
    assert await is_set_aside(store, clock)


async def test_a_release_of_a_job_whose_expiry_is_a_word_writes_nothing_by_halves(
    store: Store, clock: Clock, plant: Planting
) -> None:
    job = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload", expire_time=START + HOUR)
    assert job.token
    plant(field("expire_time", "soon"))
    assert await move(store, policy.hand_back(job, job.token, now=clock.now)) is Outcome.LOST
    assert await is_set_aside(store, clock)


async def test_an_entry_in_the_expiry_index_that_is_none_does_not_stop_the_sweep(
    store: Store, clock: Clock, plant: Planting
) -> None:
    await put(store, "bad", expire_time=START + HOUR)
    due = await put(store, "due", expire_time=START + SECOND)
    plant(lambda client, tag: client.zadd(f"{tag}:expiry", {"bad": START, "gone": START}))
    plant(lacking("expire_time"))
    clock.advance(1)
    assert (await store.overdue(limit=9)).jobs == [due]
    plant(lambda client, tag: client.zrem(f"{tag}:expiry", "bad", "gone"))


# --- the way of mending -------------------------------------------------------------------------------------


async def test_many_damaged_jobs_at_the_head_do_not_hide_the_next(store: Store, keyspace: Keyspace) -> None:
    names = [f"bad{n:03}" for n in range(250)]
    await store.create([new_job(id) for id in (*names, "good")])
    with keyspace.server.client() as client:
        for n, id in enumerate(names):
            client.hset(f"{Keys(keyspace.prefix).tag}:job:{id}", *(("version", "x") if n % 2 else ("retry", "x")))
    assert ids((await claim(store, wish(number=300))).jobs) == ["good"]
    assert (await queue(store)).counts == {JobState.FAILED: 250, JobState.IN_PROGRESS: 1}


async def test_a_repeated_request_answers_its_damaged_job(store: Store, clock: Clock, plant: Planting) -> None:
    asked = new_job("bad", submission=b"payload", request_key=b"k", id_given=False)
    await store.create([asked])
    plant(DAMAGE["detail is cut off"])
    again = new_job("new", submission=b"payload", request_key=b"k", id_given=False, digest=asked.digest)
    first, second = await store.create([new_job("a"), again])
    assert (first.outcome, second.outcome, second.job_id) == (CreateOutcome.CREATED, CreateOutcome.EXISTED, "bad")
    assert await is_set_aside(store, clock)


async def test_what_is_intact_stays_and_versions_rise(store: Store, plant: Planting) -> None:
    attempt = Attempt(1, "w", START, START + 1, AttemptOutcome.FAILED, b"t" * 16)
    before = await put(store, "bad", type="t", user_id="ann", priority=2, expire_time=START + HOUR)
    await shove(store, "bad", JobState.QUEUED, history=(attempt,), attempt=1, result=b"r", cancel_reason="why")
    plant(field("retry", "{"))
    dead = await get(store, "bad")
    assert (dead.type, dead.user_id, dead.priority, dead.result) == ("t", "ann", 2, b"r")
    assert (dead.history, dead.cancel_reason, dead.attempt) == ((attempt,), "why", 1)
    assert dead.version > before.version + 1
    assert dead.revision > before.revision + 1
    for name in ("version", "revision"):
        last = await get(store, "bad")
        plant(field(name, "abc"))
        dead = await get(store, "bad")
        assert dead.version > last.version
        assert dead.etag != last.etag


async def test_a_job_of_a_user_keeps_its_place_among_them(store: Store, clock: Clock, plant: Planting) -> None:
    for id in ("a", "bad", "c"):
        await put(store, id, user_id="ann")
        clock.now += 1
    plant(lacking("create_time"))
    ann = JobFilter(user_id="ann")
    assert ids(await walk(store, ann)) == ["c", "bad", "a"]
    assert ids(await walk(store, JobFilter(user_id="ann", states=frozenset({JobState.FAILED})))) == ["bad"]
    assert (await get(store, "bad")).create_time == START + 1


async def test_a_filter_by_time_meets_a_number_that_only_python_reads(
    store: Store, clock: Clock, plant: Planting
) -> None:
    await store.create([new_job(id, submission=b"payload") for id in ("a", "bad")])
    plant(field("create_time", "1_7"))
    wanted = JobFilter(created_from=START, states=frozenset({JobState.QUEUED}))
    assert (await store.count(wanted)).by_state == {JobState.QUEUED: 1}
    assert await is_set_aside(store, clock)


async def test_a_worker_that_beats_and_completes_others_is_not_held_up(store: Store, plant: Planting) -> None:
    bad = await put(store, "bad", JobState.IN_PROGRESS)
    good = await put(store, "good", JobState.IN_PROGRESS)
    assert bad.token
    assert good.token
    plant(field("version", "x"))
    renewed = await store.renew([Renewal(job_id=job.id, token=job.token or b"") for job in (bad, good)])
    assert [each.outcome for each in renewed] == [Outcome.LOST, Outcome.OK]


async def test_a_deletion_of_it_is_stale(store: Store, clock: Clock, plant: Planting) -> None:
    bad = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    plant(field("fence", "x"))
    assert await store.delete([Deletion("bad", bad.version)]) == [Outcome.STALE]
    assert await is_set_aside(store, clock)


async def test_it_is_said_in_the_log(store: Store, plant: Planting, caplog: pytest.LogCaptureFixture) -> None:
    await put(store, "bad")
    plant(field("version", "x"))
    with caplog.at_level(logging.ERROR):
        await claim(store)
    assert caplog.messages == ["job 'bad' of queue 'default' cannot be read: set aside as FAILED, CORRUPT_JOB"]


async def test_where_no_record_is_to_blame_the_call_fails(store: Store, keyspace: Keyspace) -> None:
    await put(store, "j")
    key = f"{Keys(keyspace.prefix).tag}:queue:default"
    with keyspace.server.client() as client:
        client.hset(key, "ageing", "abc")
        with pytest.raises(ResponseError):
            await store.create([new_job("k")])
        client.hdel(key, "ageing")
    assert (await get(store, "j")).state is JobState.QUEUED


# --- races --------------------------------------------------------------------------------------------------


async def test_a_record_that_was_written_anew_after_its_judgement_is_left_alone(
    store: Store, plant: Planting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, "bad")
    plant(field("version", "x"))
    judge = mending._judge

    def judge_and_then(record: mending._Record) -> Any:
        changes = judge(record)
        plant(field("version", "7"))
        return changes

    monkeypatch.setattr(mending, "_judge", judge_and_then)
    (job,) = (await claim(store)).jobs
    assert (job.id, job.version) == ("bad", 8)


async def test_another_server_may_mend_it_first(
    store: Store, keyspace: Keyspace, clock: Clock, plant: Planting, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = RedisStore(keyspace.url, clock=clock, outage_gap=None)
    await other.open()
    await store.create([new_job("bad", submission=b"payload"), new_job("next")])
    plant(field("version", "x"))
    mend = mending.mend

    async def mend_too_late(*given: Any) -> int:
        monkeypatch.setattr(mending, "mend", mend)
        await other.get(["bad"])
        return await mend(*given)

    monkeypatch.setattr(mending, "mend", mend_too_late)
    assert ids((await claim(store)).jobs) == ["next"]
    assert await is_set_aside(store, clock)
    await other.close()
