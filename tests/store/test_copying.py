"""A copy of a store behaves as the store would have, whichever engines the two stand on."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from tests.conftest import missing
from tests.store import chance, invariants
from tests.store.making import START, Clock, claim, get, move, new_job, silence, wish
from tests.store.planting import set_field
from tests.store.player import Player
from tests.store.side_by_side import Meetings, SideBySide
from tests.store.stocked import stock
from tests.valkey_process import Keyspace

from jobwire_server.domain import policy
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import SECOND
from jobwire_server.store.base import CannotOpen, ClaimOutcome, CreateOutcome
from jobwire_server.store.copying import PORTION_BYTES, PORTION_JOBS, Copied, Portion, Source, Target, copy, cut
from jobwire_server.store.redis.keys import Keys
from jobwire_server.store.redis.source import RedisSource
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.redis.target import RedisTarget
from jobwire_server.store.sqlite.source import SqliteSource
from jobwire_server.store.sqlite.store import SqliteStore
from jobwire_server.store.sqlite.target import SqliteTarget

TAPES = 3
STEPS = 80


class Place:
    """Where a store can be: in a file, or under keys of its own."""

    def __init__(self, file: Path, keyspace: Keyspace | None, clock: Clock) -> None:
        self.file = file
        self.keyspace = keyspace
        self._clock = clock

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}" if self.keyspace is None else self.keyspace.url

    def store(self) -> SqliteStore | RedisStore:
        if self.keyspace is None:
            return SqliteStore(str(self.file), clock=self._clock, outage_gap=None)
        return RedisStore(self.keyspace.url, clock=self._clock, outage_gap=None)

    async def opened(self) -> SqliteStore | RedisStore:
        store = self.store()
        await store.open()
        return store

    def source(self) -> Source:
        if self.keyspace is None:
            return SqliteSource(str(self.file), at_rest=True)
        return RedisSource(self.keyspace.url, at_rest=True)

    def target(self) -> Target:
        return SqliteTarget(str(self.file)) if self.keyspace is None else RedisTarget(self.url, now=self._clock)


@pytest.fixture
def origin(keyspace: Keyspace | None, tmp_path: Path, clock: Clock) -> Place:
    return Place(tmp_path / "origin.db", keyspace, clock)


@pytest.fixture(params=["sqlite", "other"])
def other(request: pytest.FixtureRequest, engine: str, tmp_path: Path, clock: Clock) -> Place:
    """Another place, in a file or on an engine that does not hold the origin."""
    if request.param == "sqlite":
        return Place(tmp_path / "other.db", None, clock)
    if reason := missing("redis" if engine == "valkey" else "valkey"):
        pytest.skip(reason)
    server = request.getfixturevalue("redis_server" if engine == "valkey" else "valkey")
    server.flush()
    return Place(tmp_path / "none", Keyspace(server, "other"), clock)


def copied(origin: Place, other: Place) -> Copied:
    return copy(origin.source(), other.target(), lambda jobs: None)


def contents(place: Place) -> dict[str, Any]:
    """All that a copy is made of."""
    source = place.source()
    try:
        since = source.begin()
        portions = list(source.portions(lambda unreadable: pytest.fail(str(unreadable))))
        source.check()
    finally:
        source.close()
    jobs = [stored for portion in portions for stored in portion.jobs]
    queues = [replace(each, marks=sorted(each.marks)) for portion in portions for each in portion.queues]
    return {
        "since": since,
        "jobs": sorted(jobs, key=lambda stored: stored.job.id),
        "requests": sorted(each for portion in portions for each in portion.requests),
        "queues": sorted(queues, key=lambda queue: queue.settings.name),
        "workers": sorted(
            (each for portion in portions for each in portion.workers), key=lambda worker: worker.info.id
        ),
    }


def refusal(origin: Place, other: Place) -> str:
    with pytest.raises(CannotOpen) as refused:
        copied(origin, other)
    return str(refused.value)


async def stocked(place: Place) -> None:
    store = await place.opened()
    await stock(store)
    await store.close()


@pytest.mark.parametrize("seed", range(TAPES))
async def test_a_copy_goes_on_as_the_model_does_that_knows_of_no_copy(
    origin: Place, other: Place, clock: Clock, seed: int
) -> None:
    tape = chance.tape(Random(seed), STEPS)
    player = Player(purges_requests=origin.keyspace is None)
    player.clock = player.model._clock = clock

    def outage() -> None:
        pytest.fail("these tapes have none")

    tape = [step for step in tape if type(step).__name__ != "Outage"]
    store = await origin.opened()
    await SideBySide(store, player, Meetings(), outage).play(tape[: STEPS // 2], chance.IDS)
    await store.close()

    assert copied(origin, other).is_equal
    assert contents(other) == contents(origin)
    player.model.recovered_at = clock.now  # nobody was there to be heard while it was copied
    player.model._purges_requests = other.keyspace is None
    store = await other.opened()
    await SideBySide(store, player, Meetings(), outage).play(tape[STEPS // 2 :], chance.IDS)
    assert not await invariants.broken(store, other.keyspace)
    await store.close()


async def test_a_copy_of_a_copy_holds_what_the_original_did_and_all_three_are_sound(
    origin: Place, other: Place, tmp_path: Path, clock: Clock
) -> None:
    await stocked(origin)
    back = Place(tmp_path / "back.db", None, clock)
    assert copied(origin, other).read.jobs == copied(other, back).counted.jobs == 5
    assert contents(origin) == contents(other) == contents(back)
    assert [invariants.broken_at(place.url) for place in (origin, other, back)] == [[], [], []]


async def test_who_held_a_lease_settles_in_the_copy_and_who_asks_again_finds_his_job(
    origin: Place, other: Place, clock: Clock
) -> None:
    await stocked(origin)
    store = await origin.opened()
    held = await get(store, "held")
    await store.close()
    copied(origin, other)
    store = await other.opened()
    assert held.token
    assert await move(store, policy.complete("held", held.token, b"done")) is Outcome.OK
    (again,) = await store.create([new_job("waits", user_id="ann", request_key=b"key", submission=b"x")])
    assert (again.outcome, again.job_id) == (CreateOutcome.EXISTED, "waits")
    (reused,) = await store.create([new_job("another", request_key=b"key")])
    assert reused.outcome is CreateOutcome.REQUEST_REUSED
    assert (await claim(store, wish("w", 5, max_in_flight=2))).jobs[0].id == "waits", "credit: one of two was settled"
    await store.close()


async def test_who_is_silent_stays_so_and_what_has_a_limit_keeps_it(origin: Place, other: Place, clock: Clock) -> None:
    store = await origin.opened()
    await silence(store, clock, "s")
    await store.create([new_job("limited", queue="limited", execution_timeout=60 * SECOND)])
    await store.close()
    copied(origin, other)
    store = await other.opened()
    assert (await claim(store, wish("s"))).outcome is ClaimOutcome.SILENT
    (limited,) = (await claim(store, wish("v", delivery=0), queue="limited")).jobs
    assert limited.limit_time == clock.now + 60 * SECOND
    await store.close()


async def test_nothing_is_reaped_in_a_copy_for_one_lease_time(origin: Place, other: Place, clock: Clock) -> None:
    await stocked(origin)
    clock.advance(1500)
    copied(origin, other)
    store = await other.opened()
    assert (await store.overdue(limit=10)).jobs == []
    clock.advance(10)  # both are deliveries that nobody has acknowledged: they wait for that time
    assert len((await store.overdue(limit=10)).jobs) == 2
    await store.close()


async def test_what_cannot_be_read_stays_behind_by_name_and_all_else_comes(origin: Place, other: Place) -> None:
    await stocked(origin)
    if origin.keyspace is None:
        connection = apsw.Connection(str(origin.file))
        connection.execute("UPDATE job SET progress = '{' WHERE id = 'held'")
        connection.close()
    else:
        with origin.keyspace.server.client() as client:
            set_field(client, Keys(origin.keyspace.prefix).tag, "held", "score", "x")
    found = copied(origin, other)
    assert (found.unreadable_count, found.read.jobs, found.is_equal) == (1, 4, True)
    assert found.unreadable[0].startswith("job held: ")
    assert invariants.broken_at(other.url) == []


async def test_a_store_that_holds_anything_is_no_target_and_stays_as_it_is(origin: Place, other: Place) -> None:
    await stocked(origin)
    store = await other.opened()
    await store.create([new_job("mine", queue="mine")])
    await store.close()
    before = contents(other)
    assert "is not empty: it holds 1 job. " in refusal(origin, other)
    store = await other.opened()
    assert (await store.get(["mine", "held"])).jobs[1] is None
    await store.close()
    assert contents(other) == before


async def test_a_store_that_was_opened_and_never_used_is_a_target(origin: Place, other: Place) -> None:
    await stocked(origin)
    store = await other.opened()
    await store.info()
    await store.close()
    assert copied(origin, other).is_equal
    assert contents(other) == contents(origin)


async def test_a_copy_that_was_cut_off_is_no_store_and_the_next_one_starts_over(
    origin: Place, other: Place, clock: Clock
) -> None:
    await stocked(origin)
    source, target = origin.source(), other.target()
    target.begin(source.begin(), source.url)
    for portion in source.portions(lambda unreadable: None):
        target.put(Portion(jobs=portion.jobs[:2]))
    target.close()
    source.close()
    what = other.file if other.keyspace is None else other.target().url
    said = f"{what} is half filled: copying {origin.source().url} into it"
    with pytest.raises(CannotOpen, match=re.escape(said)):
        await other.opened()
    with pytest.raises(CannotOpen, match=re.escape(said)):
        invariants.broken_at(other.url)
    assert said in refusal(other, Place(origin.file.with_name("third.db"), None, clock))
    assert copied(origin, other).is_equal
    assert contents(other) == contents(origin)
    assert invariants.broken_at(other.url) == []


async def test_a_target_that_does_not_hold_what_was_read_is_left_as_no_store(
    origin: Place, other: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stocked(origin)
    target = other.target()
    put: Callable[[Portion], set[str]] = target.put

    def lose(portion: Portion) -> set[str]:
        return put(replace(portion, jobs=portion.jobs[1:]))

    monkeypatch.setattr(target, "put", lose)
    found = copy(origin.source(), target, lambda jobs: None)
    assert not found.is_equal
    with pytest.raises(CannotOpen, match="half filled"):
        await other.opened()


async def test_jobs_that_a_source_shows_twice_are_there_once(origin: Place, other: Place) -> None:
    await stocked(origin)
    source, target = origin.source(), other.target()
    target.begin(source.begin(), source.url)
    for portion in source.portions(lambda unreadable: None):
        assert target.put(portion) == set()
        assert target.put(Portion(jobs=portion.jobs)) == {job.id for job, _ in portion.jobs}
    assert target.totals().jobs == 5
    target.finish()
    target.close()
    source.close()
    assert invariants.broken_at(other.url) == []


@pytest.mark.parametrize("which", ["source", "target"])
async def test_a_store_with_a_server_at_work_can_be_no(origin: Place, other: Place, which: str) -> None:
    await stocked(origin)
    place = origin if which == "source" else other
    served = RedisStore(place.url) if place.keyspace else place.store()  # by the engine's clock, as servers are
    await served.open()
    await served.overdue(limit=1)
    sweeper = asyncio.create_task(_sweep(served))
    told = await asyncio.to_thread(refusal, origin, other)
    assert ("a server is at work on" if place.keyspace else f"is in use by process {os.getpid()}") in told
    sweeper.cancel()
    await served.close()


async def _sweep(store: SqliteStore | RedisStore) -> None:
    while True:
        await store.overdue(limit=1)
        await asyncio.sleep(0)


async def test_two_copies_into_one_store_do_not_mix(origin: Place, other: Place) -> None:
    await stocked(origin)
    first, second = other.target(), other.target()
    first.begin(START, "first")
    if other.keyspace is None:
        with pytest.raises(CannotOpen, match="is in use by process"):
            second.begin(START, "second")
        first.close()
        return
    second.begin(START, "second")
    with pytest.raises(CannotOpen, match="has begun meanwhile: this one ends"):
        first.put(Portion())
    second.close()
    first.close()


def test_portions_are_cut_by_number_and_by_bytes() -> None:
    def sizes(*items: int) -> list[list[int]]:
        return [list(stretch) for stretch in cut(items, lambda item: item)]

    half = PORTION_BYTES // 2
    assert sizes() == []
    assert [len(stretch) for stretch in sizes(*[1] * (PORTION_JOBS + 1))] == [PORTION_JOBS, 1]
    assert sizes(half, half, 1) == [[half, half], [1]]
    assert sizes(5 * half, 1, 5 * half) == [[5 * half], [1], [5 * half]]
