"""Changes by filter: what overtakes them on their way to the store, and how far one call goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from jobwire_server.domain import policy
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.guard import Outcome
from jobwire_server.domain.job import ENDED, SECOND, Job, JobError, JobState, NewJob
from jobwire_server.domain.move import JobChanges
from jobwire_server.service.by_filter import BITE, JobsByFilter, Selection
from jobwire_server.store.base import SCAN, ClaimRequest, Found, Renewal, Snapshot
from jobwire_server.store.sqlite.store import SqliteStore

DEFAULT = JobFilter(queues=frozenset({"default"}))
TOKENS = [bytes([i]) * 16 for i in range(10)]


class Overtaken(SqliteStore):
    """A store in which `meanwhile` happens once after each read that a decision is made from."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []
        super().__init__(None, clock=lambda: self.now, outage_gap=None)

    async def find(self, wanted: JobFilter, *, after: Position | None = None, limit: int) -> Found:
        found = await super().find(wanted, after=after, limit=limit)
        await self._happens()
        return found

    async def get(self, job_ids: Sequence[str]) -> Snapshot:
        snapshot = await super().get(job_ids)
        await self._happens()
        return snapshot

    async def job(self, job_id: str) -> Job:
        [job] = (await super().get([job_id])).jobs
        assert job is not None
        return job

    async def _happens(self) -> None:
        if self.meanwhile:
            await self.meanwhile.pop(0)()


@pytest.fixture
async def store() -> AsyncIterator[Overtaken]:
    store = Overtaken()
    await store.open()
    yield store
    await store.close()


def chosen(wanted: JobFilter = DEFAULT, *, max_jobs: int = 1000, validate_only: bool = False) -> Selection:
    return Selection(wanted=wanted, max_jobs=max_jobs, validate_only=validate_only)


async def claim(store: Overtaken, count: int = 1) -> list[Job]:
    request = ClaimRequest(
        worker_id="w",
        session=0,
        max_in_flight=100,
        tokens=TOKENS[:count],
        lease_duration=30 * SECOND,
        delivery_timeout=0,
    )
    [claimed] = (await store.claim("default", [request])).claimed
    return claimed.jobs


async def edit(store: Overtaken, job_id: str, **changes: object) -> None:
    job = await store.job(job_id)
    new: JobChanges = {"submission": b"edited", **changes}  # type: ignore[typeddict-item]  # fields of JobChanges
    [moved] = await store.move([policy.edit(job, new, payload=False, etag=None, now=store.now)])
    assert moved.outcome is Outcome.OK


async def fail(store: Overtaken, job: Job) -> None:
    assert job.token is not None
    error = JobError("Oops", "no")
    move = policy.fail(job, job.token, error, permanent=True, retry_delay=None, now=store.now, random=0.5)
    [moved] = await store.move([move])
    assert moved.outcome is Outcome.OK


async def cancel(store: Overtaken, selection: Selection) -> int:
    return (await JobsByFilter(store).cancel(selection, reason="r", grace=SECOND)).count


# --- overtaken --------------------------------------------------------------------------------------------------


async def test_a_job_that_changed_is_decided_again(store: Overtaken) -> None:
    await store.create([NewJob(id="a"), NewJob(id="b")])
    store.meanwhile = [lambda: edit(store, "a", priority=1)]
    assert await cancel(store, chosen()) == 2
    assert (await store.job("a")).state is JobState.CANCELED


async def test_a_job_that_was_claimed_meanwhile_is_asked_to_stop(store: Overtaken) -> None:
    await store.create([NewJob(id="a")])
    store.meanwhile = [lambda: claim(store)]
    assert await cancel(store, chosen()) == 1
    job = await store.job("a")
    assert (job.state, job.cancel_requested) == (JobState.IN_PROGRESS, True)


async def test_a_job_that_left_the_filter_meanwhile_is_left_alone(store: Overtaken) -> None:
    await store.create([NewJob(id="a"), NewJob(id="b")])
    waiting = JobFilter(queues=DEFAULT.queues, states=frozenset({JobState.QUEUED}))
    store.meanwhile = [lambda: claim(store)]
    assert await cancel(store, chosen(waiting)) == 1
    claimed, other = await store.job("a"), await store.job("b")
    assert (claimed.state, claimed.cancel_requested) == (JobState.IN_PROGRESS, False)
    assert other.state is JobState.CANCELED


async def test_a_job_whose_labels_changed_meanwhile_is_left_alone(store: Overtaken) -> None:
    await store.create([NewJob(id="a", submission=b"meant")])
    store.meanwhile = [lambda: edit(store, "a")]
    meant = JobFilter(submission_matches=lambda submission: submission == b"meant")
    assert (await JobsByFilter(store).delete(chosen(meant))).count == 0
    assert (await store.job("a")).submission == b"edited"


async def test_a_job_that_keeps_changing_is_decided_twice_and_then_left_alone(store: Overtaken) -> None:
    await store.create([NewJob(id="a")])
    store.meanwhile = [lambda: edit(store, "a", priority=1), lambda: edit(store, "a", priority=2)]
    assert await cancel(store, chosen()) == 0
    assert (await store.job("a")).state is JobState.QUEUED


async def test_a_deletion_never_takes_a_job_that_was_claimed_meanwhile(store: Overtaken) -> None:
    await store.create([NewJob(id="a"), NewJob(id="b")])
    store.meanwhile = [lambda: claim(store)]
    assert (await JobsByFilter(store).delete(chosen())).count == 1
    assert (await store.job("a")).state is JobState.IN_PROGRESS


@pytest.mark.parametrize("verb", ["cancel", "delete"])
async def test_a_job_that_went_meanwhile_does_not_count(store: Overtaken, verb: str) -> None:
    await store.create([NewJob(id="a"), NewJob(id="b")])
    gone = policy.delete(await store.job("a"), force=False, etag=None)
    store.meanwhile = [lambda: store.delete([gone])]
    by_filter = JobsByFilter(store)
    changed = await (by_filter.delete(chosen()) if verb == "delete" else by_filter.cancel(chosen(), reason="", grace=0))
    assert changed.count == 1


async def test_a_beat_that_overtakes_a_cancel_changes_nothing_about_it(store: Overtaken) -> None:
    await store.create([NewJob(id="a")])
    await claim(store)
    store.meanwhile = [lambda: store.renew([Renewal(job_id="a", token=TOKENS[0], fraction=0.5)])]
    assert await cancel(store, chosen()) == 1
    assert (await store.job("a")).cancel_requested


# --- rows of calls ----------------------------------------------------------------------------------------------


async def test_jobs_that_fail_again_while_they_are_replayed_are_not_replayed_twice(store: Overtaken) -> None:
    await store.create([NewJob(id=f"job-{i}") for i in range(4)])
    for job in await claim(store, 4):
        await fail(store, job)
    store.now += SECOND

    async def fails_again() -> None:
        store.now += SECOND
        for job in await claim(store):
            await fail(store, job)

    by_filter = JobsByFilter(store)
    after: Position | None = None
    began: int | None = None
    counts = []
    while True:
        selection = Selection(wanted=DEFAULT, max_jobs=1, after=after, began=began)
        replayed = await by_filter.replay(selection)
        counts.append(replayed.count)
        await fails_again()
        after, began = replayed.end, replayed.began
        if after is None:
            break
    assert sum(counts) == 4
    assert [(await store.job(f"job-{i}")).attempt for i in range(4)] == [2] * 4
    assert (await by_filter.replay(chosen())).count == 4, "a new row"


async def test_one_call_looks_at_no_more_than_a_scan_and_the_next_goes_on_there(store: Overtaken) -> None:
    await store.create([NewJob(id=f"job-{i:05}", submission=b"" if i else b"rare") for i in range(SCAN + BITE)])
    rare = JobFilter(submission_matches=lambda submission: submission == b"rare")
    by_filter = JobsByFilter(store)
    first = await by_filter.delete(chosen(rare))
    assert first.count == 1
    assert first.end is not None
    second = await by_filter.delete(Selection(wanted=rare, max_jobs=1000, after=first.end, began=first.began))
    assert (second.count, second.end) == (0, None)


async def test_a_dry_run_pages_as_the_real_one_does(store: Overtaken) -> None:
    await store.create([NewJob(id=f"job-{i:05}") for i in range(BITE + 5)])
    by_filter = JobsByFilter(store)
    first = await by_filter.delete(chosen(max_jobs=BITE + 1, validate_only=True))
    assert first.count == BITE + 1
    rest = Selection(wanted=DEFAULT, max_jobs=1000, validate_only=True, after=first.end, began=first.began)
    assert (await by_filter.delete(rest)).count == 4
    assert (await store.count(DEFAULT)).by_state == {JobState.QUEUED: BITE + 5}


async def test_states_that_a_verb_cannot_act_on_are_not_even_looked_at(store: Overtaken) -> None:
    ended = JobFilter(states=ENDED)

    async def looked() -> None:
        raise AssertionError

    store.meanwhile = [looked]
    changed = await JobsByFilter(store).cancel(chosen(ended), reason="", grace=0)
    assert (changed.count, changed.end) == (0, None)
