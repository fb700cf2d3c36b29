"""A record that cannot be read is set aside; nothing else stops for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError
from tests.store.making import START, Clock, claim, get, ids, move, new_job, put, queue, shove, walk, wish
from tests.store.planting import drop_field, set_field
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import DAY, HOUR, SECOND, Attempt, AttemptOutcome, Job, JobState
from jobwire_server.domain.move import Deletion
from jobwire_server.store.base import CreateOutcome, Renewal, Store, WorkerNotice
from jobwire_server.store.redis import mending
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.store import RedisStore

Plant = Callable[[Any, str], object]


def field(name: str, value: str | bytes) -> Plant:
    return lambda client, tag: set_field(client, tag, "bad", name, value)


def lacking(name: str) -> Plant:
    return lambda client, tag: drop_field(client, tag, "bad", name)


def detail(value: str) -> Plant:
    def plant(client: Any, tag: str) -> None:
        client.set(f"{tag}:detail:bad", value)
        set_field(client, tag, "bad", "beside", "d")

    return plant


def record(value: str) -> Plant:
    return lambda client, tag: client.set(f"{tag}:job:bad", value)


UNREADABLE: dict[str, Plant] = {
    "record is cut off": record('{"state":"que'),
    "record has another shape": record("[1]"),
    "record is no JSON object": record("7"),
    "record is empty": record(""),
}
"""When nothing is left of it but what stands around it."""

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


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
async def test_of_an_unreadable_record_the_payload_and_the_place_are_left(
    store: Store, clock: Clock, plant: Planting, damage: Plant
) -> None:
    await store.create([new_job(id, submission=b"payload", expire_time=START + HOUR) for id in ("a", "bad", "c")])
    plant(damage)
    assert ids((await claim(store, wish(number=3))).jobs) == ["a", "c"]
    assert await is_set_aside(store, clock)
    assert (await get(store, "bad")).version == clock.now


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
    **UNREADABLE,
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


@pytest.mark.parametrize("retention", ["inf", "nan", "1e300"])
async def test_a_retention_beyond_all_numbers_makes_no_score(
    store: Store, clock: Clock, plant: Planting, retention: str
) -> None:
    """As a score it would be cut to one long past, and the result purged at once."""
    job = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    plant(field("retention", retention))
    assert await move(store, policy.complete("bad", job.token or b"", b"")) is Outcome.LOST
    assert await store.purge(limit=9) == 0
    assert await is_set_aside(store, clock)


async def _edit(store: Store, bad: Job, clock: Clock) -> object:
    return await move(store, policy.edit(bad, {"priority": 1}, payload=False, etag=None, now=clock.now))


async def _edit_with_others(store: Store, bad: Job, clock: Clock) -> object:
    """Of one call each index is written by itself: those of other queues must not be before one that cannot be."""
    jobs = [*[await get(store, f"far{n}") for n in range(5)], bad]
    moves = [
        policy.edit(job, {"schedule_time": START + DAY}, payload=False, etag=None, now=clock.now) for job in jobs[:-1]
    ]
    moves.append(policy.edit(bad, {"priority": 1}, payload=False, etag=None, now=clock.now))
    return [moved.outcome for moved in await store.move(moves)]


async def _hand_back(store: Store, bad: Job, clock: Clock) -> object:
    return await move(store, policy.hand_back(bad, bad.token or b"", now=clock.now))


async def _complete(store: Store, bad: Job, clock: Clock) -> object:
    return await move(store, policy.complete("bad", bad.token or b"", b"result"))


async def _renew(store: Store, bad: Job, clock: Clock) -> object:
    return (await store.renew([Renewal(job_id="bad", token=bad.token or b"")]))[0].outcome


async def _delete(store: Store, bad: Job, clock: Clock) -> object:
    return (await store.delete([Deletion("bad", bad.version)]))[0]


async def _claim(store: Store, bad: Job, clock: Clock) -> object:
    return ids((await claim(store, wish(number=9))).jobs)


async def _promote(store: Store, bad: Job, clock: Clock) -> object:
    clock.now = max(clock.now, bad.score)
    return await store.promote(limit=9)


async def _purge(store: Store, bad: Job, clock: Clock) -> object:
    clock.now = max(clock.now, bad.score)
    return await store.purge(limit=9)


STUMBLES: dict[str, tuple[JobState, Plant, Callable[[Store, Job, Clock], Awaitable[object]], object]] = {
    "an edit, no due time": (JobState.SCHEDULED, lacking("schedule_time"), _edit, Outcome.STALE),
    "an edit, due at a word": (
        JobState.SCHEDULED,
        field("schedule_time", "soon"),
        _edit_with_others,
        [*[Outcome.OK] * 5, Outcome.STALE],
    ),
    "an edit, no end": (JobState.CANCELED, lacking("finish_time"), _edit, Outcome.STALE),
    "a hand-back, expires at a word": (JobState.IN_PROGRESS, field("expire_time", "soon"), _hand_back, Outcome.LOST),
    "a hand-back, entered at nan": (JobState.IN_PROGRESS, field("queue_time", "nan"), _hand_back, Outcome.LOST),
    "a completion, stays for a word": (JobState.IN_PROGRESS, field("retention", "long"), _complete, Outcome.LOST),
    "a completion, version": (JobState.IN_PROGRESS, field("version", "x"), _complete, Outcome.LOST),
    "a renewal, for nan": (JobState.IN_PROGRESS, field("lease_duration", "nan"), _renew, Outcome.LOST),
    "a renewal, version": (JobState.IN_PROGRESS, field("version", "x"), _renew, Outcome.LOST),
    "a deletion, fence": (JobState.IN_PROGRESS, field("fence", "x"), _delete, Outcome.STALE),
    "a claim, version": (JobState.QUEUED, field("version", "x"), _claim, ["other"]),
    "a claim, state": (JobState.QUEUED, lacking("state"), _claim, ["other"]),
    "a promotion, version": (JobState.SCHEDULED, field("version", "x"), _promote, 1),
    "a purge, state": (JobState.CANCELED, lacking("state"), _purge, 1),
}
"""A state, what is damaged then, the call that cannot go on, and what it answers in the end."""


def contents(keyspace: Keyspace) -> dict[bytes, Any]:
    """All that is stored, but for the times of sweeps."""
    with keyspace.server.client() as client:
        found = client.scan_iter(count=1000)
        return {key: client.dump(key) for key in found if not key.endswith(b":swept")}


@pytest.mark.parametrize("stumble", STUMBLES)
async def test_a_call_that_stumbles_has_written_nothing(
    store: Store,
    keyspace: Keyspace,
    clock: Clock,
    plant: Planting,
    monkeypatch: pytest.MonkeyPatch,
    stumble: str,
) -> None:
    state, damage, call, answer = STUMBLES[stumble]
    expiry = START + HOUR if "expires" in stumble else None
    bad, _ = [
        await put(store, id, state, submission=b"payload", retention=DAY // 2, expire_time=expiry)
        for id in ("bad", "other")
    ]
    for n in range(5):
        await put(store, f"far{n}", queue=f"far{n}", schedule_time=START + 30 * DAY)
    plant(damage)
    before = contents(keyspace)
    at_the_stumble: list[dict[bytes, Any]] = []
    mend = mending.mend

    async def look_and_mend(*given: Any) -> int:
        at_the_stumble.append(contents(keyspace))
        return await mend(*given)

    monkeypatch.setattr(mending, "mend", look_and_mend)
    assert await call(store, bad, clock) == answer
    assert at_the_stumble == [before]
    assert await is_set_aside(store, clock)


async def test_a_completion_whose_answer_cannot_be_read_is_lost(store: Store, clock: Clock, plant: Planting) -> None:
    """It was done and is undone: nobody must hear OK of a job that has FAILED."""
    job = await put(store, "bad", JobState.IN_PROGRESS, submission=b"payload")
    plant(field("retry_count", "x"))
    assert await move(store, policy.complete("bad", job.token or b"", b"result")) is Outcome.LOST
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


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each round of mending has set aside."""
    rounds: list[int] = []
    mend = mending.mend

    async def count(*given: Any) -> int:
        rounds.append(await mend(*given))
        return rounds[-1]

    monkeypatch.setattr(mending, "mend", count)
    return rounds


async def test_many_damaged_jobs_at_the_head_are_set_aside_together(
    store: Store, keyspace: Keyspace, rounds: list[int]
) -> None:
    names = [f"bad{n:03}" for n in range(250)]
    await store.create([new_job(id) for id in (*names, "good")])
    with keyspace.server.client() as client:
        for n, id in enumerate(names):
            set_field(client, Keys(keyspace.prefix).tag, id, "version" if n % 2 else "retry", "x")
    assert ids((await claim(store, wish(number=300))).jobs) == ["good"]
    assert (await queue(store)).counts == {JobState.FAILED: 250, JobState.IN_PROGRESS: 1}
    assert rounds == [250]


async def test_many_damaged_jobs_that_only_their_readers_notice_are_set_aside_together(
    store: Store, keyspace: Keyspace, rounds: list[int]
) -> None:
    """They are leased by then, and no longer at the head."""
    names = [f"bad{n:03}" for n in range(250)]
    await store.create([new_job(id) for id in (*names, "good")])
    with keyspace.server.client() as client:
        for id in names:
            set_field(client, Keys(keyspace.prefix).tag, id, "retry", "x")
    assert ids((await claim(store, wish(number=300))).jobs) == ["good"]
    assert rounds == [250]


async def test_damage_far_from_the_heads_is_mended_one_by_one(
    store: Store, keyspace: Keyspace, clock: Clock, rounds: list[int]
) -> None:
    """The leases that are oldest need not be those that end first."""
    for id in ("bad1", "bad2"):
        await store.create([new_job(id)])
        await claim(store, wish(delivery=300))
    clock.advance(1)
    await store.create([new_job(f"j{n}") for n in range(1000)])
    await claim(store, wish(number=1000, max_in_flight=2000))
    with keyspace.server.client() as client:
        for id in ("bad1", "bad2"):
            set_field(client, Keys(keyspace.prefix).tag, id, "retry", "x")
    clock.advance(1)
    assert len((await store.leased(longer_than=0, limit=2)).jobs) == 2
    assert rounds == [1, 1]


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
        assert dead.revision > last.revision


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
