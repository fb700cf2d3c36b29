"""What a watch costs, and what it keeps for one who does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from tests.store.making import claim, new_job, put, shove, wish

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter
from jobwire_server.domain.job import JobState
from jobwire_server.domain.limits import Limits
from jobwire_server.domain.move import Deletion
from jobwire_server.service import rereading, watch_stream, watches
from jobwire_server.service.admission import Streams
from jobwire_server.service.watch_events import Event, JobsChanged, JobsRemoved, SnapshotDone, SnapshotStarted
from jobwire_server.service.watch_stream import Watch
from jobwire_server.service.watches import WatchService
from jobwire_server.store.base import Snapshot, StoreUnavailable
from jobwire_server.store.sqlite.store import SqliteStore

QUEUES = frozenset({"q", "r"})


class Counted(SqliteStore):
    """A store that knows what was read from it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.reads: list[list[str]] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reading = asyncio.Event()
        self.is_away = False
        self.refused = asyncio.Event()

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        self.reads.append([*job_ids])
        if self.is_away:
            self.refused.set()
            raise StoreUnavailable("away")
        read = await super().get(job_ids)
        self.reading.set()
        await self.may_read.wait()
        return read


@pytest.fixture
async def store() -> AsyncIterator[Counted]:
    store = Counted()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def service(store: Counted) -> AsyncIterator[WatchService]:
    service = WatchService(store, streams=Streams(Limits()))
    task = asyncio.create_task(service.run())
    yield service
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def watching(service: WatchService, *job_ids: str, wanted: JobFilter | None = None) -> AsyncIterator[Watch]:
    """A watch whose snapshot has been told."""
    watch = await service.open(job_ids=job_ids, wanted=wanted)
    while not isinstance(await watch.next(), SnapshotDone):
        pass
    yield watch
    service.close(watch)


async def settled(service: WatchService) -> None:
    """All that has changed is known to those who watch."""
    await service._store.caught_up()
    await service._named.settled()
    await service._others.settled()


async def told(watch: Watch) -> list[Event]:
    """What waits to be told."""
    events: list[Event] = []
    while watch._changed or watch._removed or watch._last or watch._needs_snapshot or watch._snapshot:
        events.append(await watch.next())
    return events


def states(events: Sequence[Event]) -> list[tuple[str, JobState]]:
    return [(job.id, job.state) for event in events if isinstance(event, JobsChanged) for job in event.jobs]


async def test_a_job_is_read_once_however_many_watch_it(store: Counted, service: WatchService) -> None:
    await put(store, "j")
    watches = [await service.open(job_ids=["j"]) for _ in range(1000)]
    for watch in watches:
        while not isinstance(await watch.next(), SnapshotDone):
            pass
    store.reads.clear()
    await claim(store)
    await settled(service)
    assert store.reads == [["j"]]
    for watch in watches:
        assert states(await told(watch)) == [("j", JobState.IN_PROGRESS)]
        service.close(watch)


async def test_what_nobody_watches_is_not_read(store: Counted, service: WatchService) -> None:
    async with watching(service, "j"), watching(service, "k"):
        store.reads.clear()
        await store.create([new_job("other")])
        await settled(service)
        assert store.reads == []


async def test_one_who_does_not_read_is_told_the_latest_only(store: Counted, service: WatchService) -> None:
    await put(store, "j")
    async with watching(service, "j") as watch:
        for priority in range(1, 9):
            await shove(store, "j", JobState.QUEUED, priority=priority)
            await settled(service)
        (event,) = await told(watch)
        assert isinstance(event, JobsChanged)
        assert [job.priority for job in event.jobs] == [8]


async def test_of_large_jobs_that_wait_only_the_ids_are_kept(
    store: Counted, service: WatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "PENDING_BYTES", 10_000)
    async with watching(service, wanted=JobFilter()) as watch:
        await store.create([new_job(f"j{n}", submission=b"x" * 1000) for n in range(100)])
        await settled(service)
        assert sum(job is not None for job in watch._changed.values()) == 3
        assert watch._bytes <= 10_000
        seen = states(await told(watch))
        assert {id for id, _ in seen} == {f"j{n}" for n in range(100)}
        assert watch._bytes == 0


async def test_one_who_has_missed_too_much_gets_a_new_snapshot(
    store: Counted, service: WatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "MAX_PENDING", 10)
    async with watching(service, wanted=JobFilter()) as watch:
        await store.create([new_job(f"j{n}") for n in range(50)])
        await settled(service)
        assert len(watch._changed) <= 10
        events = await told(watch)
        assert isinstance(events[0], SnapshotStarted)
        assert {id for id, _ in states(events)} == {f"j{n}" for n in range(50)}


async def test_a_snapshot_comes_to_its_end_however_much_changes_meanwhile(
    store: Counted, service: WatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "MAX_PENDING", 10)
    monkeypatch.setattr(watch_stream, "AT_ONCE", 10)
    await store.create([new_job(f"j{n}") for n in range(30)])
    watch = await service.open(wanted=JobFilter())
    events = [await watch.next(), await watch.next()]
    await claim(store, wish(number=20))
    await settled(service)
    events += await told(watch)
    marks = [type(event) for event in events if not isinstance(event, JobsChanged)]
    assert marks == [SnapshotStarted, SnapshotDone] * 2
    assert {id for id, _ in states(events[: events.index(SnapshotStarted(), 1)])} == {f"j{n}" for n in range(30)}
    service.close(watch)


async def test_when_more_changes_than_can_be_read_those_who_watch_by_filter_get_a_new_snapshot(
    store: Counted, service: WatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rereading, "MAX_DIRTY", 10)
    async with watching(service, wanted=JobFilter()) as watch, watching(service, "j0") as by_id:
        await store.create([new_job(f"j{n}") for n in range(50)])
        await settled(service)
        assert isinstance((await told(watch))[0], SnapshotStarted)
        assert states(await told(by_id)) == [("j0", JobState.QUEUED)]


async def test_last_states_that_nobody_takes_are_bounded(
    store: Counted, service: WatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "LAST_BYTES", 10_000)
    async with watching(service, wanted=JobFilter()) as watch:
        for n in range(10):
            await put(store, f"j{n}", retention=0)
            (job,) = (await claim(store)).jobs
            await store.move([policy.complete(job.id, job.token or b"", b"x" * 1000)])
        await settled(service)
        assert len(watch._last) == 3
        events = await told(watch)
        assert SnapshotStarted() in events, "it is told that something is missing"


async def test_a_reading_from_before_a_job_went_is_not_told_after_it(store: Counted, service: WatchService) -> None:
    await put(store, "j", retention=0)
    async with watching(service, "j") as watch:
        (job,) = (await claim(store)).jobs
        await settled(service)
        await told(watch)
        store.may_read.clear()
        store.reading.clear()
        service._named.changed("j")
        await store.reading.wait()  # it has read the job, and has not handed it over
        await store.move([policy.complete("j", job.token or b"", b"r")])
        await store.caught_up()
        store.may_read.set()
        await settled(service)
        assert states(events := await told(watch)) == [("j", JobState.COMPLETED)]
        assert events[-1] == JobsRemoved(["j"])


async def test_what_changes_during_a_snapshot_is_told_after_it(store: Counted, service: WatchService) -> None:
    await put(store, "j")
    watch = await service.open(job_ids=["j"])
    assert isinstance(await watch.next(), SnapshotStarted)
    store.may_read.clear()
    store.reading.clear()
    first = asyncio.create_task(watch.next())
    await store.reading.wait()
    await claim(store)
    store.may_read.set()
    await settled(service)
    assert states([await first]) == [("j", JobState.QUEUED)]
    assert isinstance(await watch.next(), SnapshotDone)
    assert states([await watch.next()]) == [("j", JobState.IN_PROGRESS)]
    service.close(watch)


async def test_those_who_come_while_the_last_one_leaves_are_heard(store: Counted, service: WatchService) -> None:
    """The store is told to stop while somebody waits for it to begin."""
    await put(store, "j")
    for _ in range(3):
        async with watching(service, "j"):
            pass
        stopping = asyncio.create_task(service._hear_no_more())
        async with watching(service, "j") as watch:
            await stopping
            await claim(store)
            await settled(service)
            assert states(await told(watch)) == [("j", JobState.IN_PROGRESS)]
        await shove(store, "j", JobState.QUEUED)


async def test_a_job_that_nobody_asks_for_is_not_read_however_often_it_changes(
    store: Counted, service: WatchService
) -> None:
    await put(store, "old", user_id="bob")
    async with watching(service, wanted=JobFilter(user_id="ann")), watching(service, wanted=JobFilter(queues=QUEUES)):
        store.reads.clear()
        await store.create([new_job("new", user_id="bob")])
        for priority in (1, 2, 3):
            await shove(store, "new", JobState.QUEUED, priority=priority)
            await shove(store, "old", JobState.QUEUED, priority=priority)
            await settled(service)
        by_shoving = 3
        assert store.reads.count(["new"]) == by_shoving
        assert store.reads.count(["old"]) == by_shoving + 1, "its creation was not heard"


async def test_a_job_that_nobody_asked_for_is_told_to_those_who_come_later(
    store: Counted, service: WatchService
) -> None:
    async with watching(service, wanted=JobFilter(user_id="ann")):
        await store.create([new_job("j", user_id="bob")])
        await settled(service)
        async with watching(service, wanted=JobFilter(user_id="bob")) as watch:
            await shove(store, "j", JobState.QUEUED, priority=1)
            await settled(service)
            assert states(await told(watch)) == [("j", JobState.QUEUED)]


async def test_an_id_that_is_created_anew_is_no_stranger_any_more(store: Counted, service: WatchService) -> None:
    async with watching(service, wanted=JobFilter(user_id="ann")) as watch:
        first = await put(store, "j", user_id="bob")
        await store.delete([Deletion("j", first.version, first.create_time)])
        await store.create([new_job("j", user_id="ann")])
        await settled(service)
        assert states(await told(watch)) == [("j", JobState.QUEUED)]


async def test_strangers_are_forgotten_in_time(
    store: Counted, service: WatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "STRANGERS", 10)
    async with watching(service, wanted=JobFilter(user_id="ann")):
        await store.create([new_job(f"j{n}") for n in range(50)])
        await settled(service)
        assert len(service._strangers) == 10


async def test_a_watch_outlives_a_short_outage_and_is_told_what_changed_before_it(
    store: Counted, service: WatchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rereading, "RETRY_AFTER", 0.01)
    await store.create([new_job("j"), new_job("gone")])
    async with watching(service, "j", "gone") as by_id, watching(service, wanted=JobFilter()) as everything:
        store.is_away = True
        await claim(store, wish(number=2))
        await store.refused.wait()
        with pytest.raises(StoreUnavailable):
            await settled(service)
        await store.delete([Deletion("gone", 2, None)])
        await store.caught_up()
        store.is_away = False
        await settled(service)
        for watch in (by_id, everything):
            events = await told(watch)
            assert states(events) == [("j", JobState.IN_PROGRESS)]
            assert events[-1] == JobsRemoved(["gone"])


async def test_equal_filters_are_asked_once(store: Counted, service: WatchService) -> None:
    asked = 0

    def matches(_: bytes) -> bool:
        nonlocal asked
        asked += 1
        return True

    wanted = JobFilter(user_id="ann", submission_matches=matches)
    async with watching(service, wanted=wanted) as first, watching(service, wanted=wanted) as second:
        await store.create([new_job("theirs", user_id="bob"), new_job("j", user_id="ann")])
        await settled(service)
        assert asked == 1
        for watch in (first, second):
            assert states(await told(watch)) == [("j", JobState.QUEUED)]
