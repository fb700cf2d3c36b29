"""Pages and counts as the service puts them together from what the store finds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import Job, JobState, NewJob
from jobwire_server.service.listings import BITE, Listings
from jobwire_server.store.base import SCAN, Found
from jobwire_server.store.sqlite.store import SqliteStore

QUEUED = JobFilter(queues=frozenset({"default"}), states=frozenset({JobState.QUEUED}))


class Watched(SqliteStore):
    """A store that remembers how much it was asked for at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        super().__init__(None)

    async def find(self, wanted: JobFilter, *, after: Position | None = None, limit: int) -> Found:
        self.asked.append(limit)
        return await super().find(wanted, after=after, limit=limit)


@pytest.fixture
async def store() -> AsyncIterator[Watched]:
    store = Watched()
    await store.open()
    yield store
    await store.close()


def labelled(value: bytes) -> JobFilter:
    return JobFilter(submission_matches=lambda submission: submission == value)


async def fill(store: Watched, count: int, *, every: int = 1) -> list[str]:
    """Jobs in their order; each `every`th has the submission `rare`. Answers the ids of those."""
    jobs = [NewJob(id=f"job-{i:05}", submission=b"" if i % every else b"rare") for i in range(count)]
    await store.create(jobs)
    return [job.id for job in jobs if job.submission]


async def read(
    store: Watched, wanted: JobFilter, *, limit: int, after: Position | None = None, room: int = 10**6
) -> tuple[list[str], Position | None]:
    """The ids of one page that has room for so many jobs, and where the next one starts."""
    ids: list[str] = []

    def take(job: Job) -> bool:
        if len(ids) == room:
            return False
        ids.append(job.id)
        return True

    return ids, await Listings(store).page(wanted, after=after, limit=limit, take=take)


async def read_all(store: Watched, wanted: JobFilter, *, limit: int, room: int = 10**6) -> list[list[str]]:
    pages = []
    after: Position | None = None
    while True:
        ids, after = await read(store, wanted, limit=limit, after=after, room=room)
        pages.append(ids)
        if after is None:
            return pages


async def test_the_store_is_asked_in_bites_and_for_no_more_than_is_wanted(store: Watched) -> None:
    ids = await fill(store, 3 * BITE)
    assert (await read(store, QUEUED, limit=BITE + 7))[0] == ids[: BITE + 7]
    assert store.asked == [BITE, 7]


async def test_pages_of_any_size_hold_every_job_once(store: Watched) -> None:
    ids = await fill(store, 2 * BITE + 10)
    for limit in (1, 99, BITE, BITE + 1, 1000):
        pages = await read_all(store, QUEUED, limit=limit)
        assert [job_id for page in pages for job_id in page] == ids
        assert all(len(page) == limit for page in pages[:-1])


async def test_the_job_that_was_refused_begins_the_next_page(store: Watched) -> None:
    ids = await fill(store, 10)
    pages = await read_all(store, QUEUED, limit=1000, room=4)
    assert pages == [ids[:4], ids[4:8], ids[8:]]


async def test_a_page_ends_after_one_scan_whatever_it_found(store: Watched) -> None:
    await fill(store, 2 * SCAN + 5)
    ids, after = await read(store, labelled(b"none"), limit=10)
    assert ids == []
    assert after is not None
    assert sum(store.asked) == SCAN
    assert await read_all(store, labelled(b"none"), limit=10) == [[], [], []]


async def test_labels_that_few_jobs_have_still_fill_pages_without_a_gap(store: Watched) -> None:
    rare = await fill(store, SCAN, every=7)
    for limit in (1, 10, 13, 1000):
        pages = await read_all(store, labelled(b"rare"), limit=limit)
        assert [job_id for page in pages for job_id in page] == rare
        assert max(len(page) for page in pages) <= limit


async def test_counting_goes_on_to_the_end_of_the_listing(store: Watched) -> None:
    rare = await fill(store, 2 * SCAN + 5, every=3)
    listings = Listings(store)
    assert await listings.count(JobFilter()) == {JobState.QUEUED: 2 * SCAN + 5}
    assert await listings.count(JobFilter(created_from=0)) == {JobState.QUEUED: 2 * SCAN + 5}
    assert await listings.count(labelled(b"rare")) == {JobState.QUEUED: len(rare)}
    assert await listings.count(JobFilter(types=frozenset({"none"}))) == {}
