"""WatchJobs and WaitJob over the wire: a snapshot, a marker, then changes; and the end is never missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from tests.rpc.calls import FOREVER, claim_one, complete, create, fail, get
from tests.rpc.conftest import Wire, seconds
from tests.rpc.standins import failure, reason

from jobwire.v1 import job_pb2
from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import HttpRequest, Job, JobFilter, Payload
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_server.domain.limits import KIB
from jobwire_server.service import watch_stream, watches
from jobwire_server.store.base import StoreUnavailable
from jobwire_server.store.changes import Changes

COMPLETED = job_pb2.JOB_STATE_COMPLETED
QUEUED = job_pb2.JOB_STATE_QUEUED


class Seen:
    """What one watch was told, as a client keeps it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.jobs: dict[str, Job] = {}
        self.events: list[str] = []
        self.ended: dict[str, Job] = {}

    async def next(self) -> api.WatchJobsResponse:
        async with asyncio.timeout(FOREVER):
            event: api.WatchJobsResponse = await anext(self._events())
        self.events.append(event.WhichOneof("event") or "")
        for job in event.changed.jobs:
            self.jobs[job.id] = job
            if job.HasField("finish_time"):
                self.ended[job.id] = job
        for job_id in event.removed.job_ids:
            self.jobs.pop(job_id, None)
        return event

    async def _events(self) -> AsyncIterator[api.WatchJobsResponse]:
        async for event in self.call:
            yield event

    async def until(self, event: str) -> None:
        while (await self.next()).WhichOneof("event") != event:
            pass

    async def until_state(self, job_id: str, state: job_pb2.JobState.ValueType) -> Job:
        while job_id not in self.jobs or self.jobs[job_id].state != state:
            await self.next()
        return self.jobs[job_id]

    async def until_gone(self, job_id: str) -> None:
        while job_id not in (await self.next()).removed.job_ids:
            pass


@asynccontextmanager
async def watching(wire: Wire, *job_ids: str, **wanted: Any) -> AsyncIterator[Seen]:
    """A watch whose snapshot has been told."""
    request = api.WatchJobsRequest(job_ids=job_ids)
    if wanted:
        request.filter.CopyFrom(JobFilter(**wanted))
    seen = Seen(wire.jobs.WatchJobs(request))
    try:
        await seen.until("snapshot_done")
        yield seen
    finally:
        seen.call.cancel()


async def test_a_watch_tells_a_snapshot_a_marker_and_then_changes(wire: Wire) -> None:
    await create(wire, "j")
    async with watching(wire, "j") as seen:
        assert seen.events == ["snapshot_started", "changed", "snapshot_done"]
        assert seen.jobs["j"].state == QUEUED
        assignment = await claim_one(wire)
        await seen.until_state("j", job_pb2.JOB_STATE_IN_PROGRESS)
        await wire.jobs.UpdateJob(complete(assignment, "42"))
        assert (await seen.until_state("j", COMPLETED)).result.text == "42"


async def test_a_watched_job_is_told_without_what_was_asked_for_but_with_its_labels(wire: Wire) -> None:
    await create(
        wire,
        "j",
        payload=Payload(text="long"),
        http=HttpRequest(route_params={"a": "b"}),
        labels={"k": "v"},
        type="mail",
    )
    async with watching(wire, "j") as seen:
        told = seen.jobs["j"]
        assert not told.HasField("payload")
        assert not told.HasField("http")
        assert (dict(told.labels), told.type, told.version) == ({"k": "v"}, "mail", 1)
        whole = await get(wire, "j")
        whole.ClearField("payload")
        whole.ClearField("http")
        assert told == whole


async def test_an_unknown_id_is_removed_in_the_snapshot_and_told_once_it_is_created(wire: Wire) -> None:
    async with watching(wire, "later") as seen:
        assert seen.events == ["snapshot_started", "removed", "snapshot_done"]
        await create(wire, "later")
        await seen.until_state("later", QUEUED)


async def test_many_ids_are_told_whole(wire: Wire) -> None:
    ids = [f"j{n}" for n in range(150)]
    await wire.jobs.BatchCreateJobs(
        api.BatchCreateJobsRequest(requests=[api.CreateJobRequest(job=Job(id=id)) for id in ids])
    )
    async with watching(wire, *ids, "missing") as seen:
        assert seen.jobs.keys() == set(ids)
    async with watching(wire) as everything:
        assert everything.jobs.keys() == set(ids)


async def test_a_filter_chooses_the_snapshot_by_state_and_changes_whatever_their_state(wire: Wire) -> None:
    await create(wire, "done", queue="q")
    await wire.jobs.UpdateJob(complete(await claim_from(wire, "q")))
    await create(wire, "waits", queue="q")
    await create(wire, "elsewhere")
    async with watching(wire, queues=["q"], states=[QUEUED]) as seen:
        assert seen.jobs.keys() == {"waits"}
        await wire.jobs.UpdateJob(complete(await claim_one(wire)))
        await wire.jobs.UpdateJob(complete(await claim_from(wire, "q")))
        await seen.until_state("waits", COMPLETED)
        assert seen.jobs.keys() == {"waits"}, "what is elsewhere is none of its business"


@pytest.mark.parametrize(
    "wanted", [{"user_id": "ann"}, {"types": ["mail"]}, {"labels": {"team": "a"}}, {"queues": ["q", "r"]}]
)
async def test_a_filter_tells_what_matches_and_nothing_else(wire: Wire, wanted: dict[str, Any]) -> None:
    async with watching(wire, **wanted) as seen:
        await create(wire, "no", user_id="bob", type="call", labels={"team": "b"}, queue="s")
        await create(wire, "yes", user_id="ann", type="mail", labels={"team": "a"}, queue="r")
        await seen.until_state("yes", QUEUED)
        await wire.jobs.DeleteJob(api.DeleteJobRequest(job_id="no"))
        await wire.jobs.DeleteJob(api.DeleteJobRequest(job_id="yes"))
        removed: list[str] = []
        while "yes" not in removed:
            removed += (await seen.next()).removed.job_ids
        # Nobody knows any more which labels a deleted job had.
        assert "no" not in removed or "labels" in wanted
        assert "no" not in seen.jobs


async def test_a_job_edited_out_of_a_filter_is_removed(wire: Wire) -> None:
    await create(wire, "j", labels={"team": "a"})
    async with watching(wire, labels={"team": "a"}) as seen:
        assert "j" in seen.jobs
        edit = api.EditJob(job=Job(labels={"team": "b"}))
        edit.update_mask.paths.append("labels")
        await wire.jobs.UpdateJob(api.UpdateJobRequest(job_id="j", edit=edit))
        await seen.until_gone("j")


async def test_a_deleted_job_is_removed(wire: Wire) -> None:
    await create(wire, "j")
    async with watching(wire, "j") as by_id, watching(wire) as everything:
        await wire.jobs.DeleteJob(api.DeleteJobRequest(job_id="j"))
        await by_id.until_gone("j")
        await everything.until_gone("j")


@pytest.mark.parametrize("is_failure", [False, True])
async def test_a_job_that_is_not_kept_is_told_as_it_ended_and_then_removed(wire: Wire, is_failure: bool) -> None:
    await create(wire, "j", retention=seconds(0))
    async with watching(wire, "j") as by_id, watching(wire) as everything:
        assignment = await claim_one(wire)
        await wire.jobs.UpdateJob(fail(assignment, permanent=True) if is_failure else complete(assignment, "42"))
        for seen in (by_id, everything):
            await seen.until_gone("j")
            last = seen.ended["j"]
            assert (last.result.text, last.error.code) == (("", "Oops") if is_failure else ("42", ""))


async def test_a_gap_is_answered_with_a_new_snapshot(wire: Wire) -> None:
    await create(wire, "j")
    async with watching(wire, "j") as by_id, watching(wire) as everything:
        wire.app._watches._hear(Changes(is_gap=True))
        for seen in (by_id, everything):
            await seen.until("snapshot_done")
            assert seen.events[-3:] == ["snapshot_started", "changed", "snapshot_done"]


async def test_a_watch_without_news_is_kept_alive_with_the_stores_clock(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "KEEPALIVE", 0.1)
    monkeypatch.setattr(watches, "RECHECK", 0.1)
    async with watching(wire, "j") as seen:
        first = (await seen.next()).keepalive.server_time.ToMicroseconds()
        second = (await seen.next()).keepalive.server_time.ToMicroseconds()
        assert seen.events[-2:] == ["keepalive", "keepalive"]
        assert first < second


async def test_ids_beside_a_filter_are_refused(wire: Wire) -> None:
    request = api.WatchJobsRequest(job_ids=["j"], filter=JobFilter(user_id="ann"))
    error = await failure(Seen(wire.jobs.WatchJobs(request)).next())
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_too_many_ids_are_refused(wire: Wire) -> None:
    request = api.WatchJobsRequest(job_ids=[f"j{n}" for n in range(1001)])
    error = await failure(Seen(wire.jobs.WatchJobs(request)).next())
    assert reason(error) == "INVALID_FIELD"


async def test_a_server_that_drains_ends_its_watches_and_its_waits(wire: Wire) -> None:
    await create(wire, "j")
    async with watching(wire, "j") as seen:
        waiting = asyncio.create_task(failure(wire.jobs.WaitJob(api.WaitJobRequest(job_id="j"))))
        while len(wire.app._watches._watches) < 2:
            await wire.app.store.ping()
        await wire.app._watches.drain()
        assert reason(await failure(seen.next())) == "SERVER_DRAINING"
        assert reason(await waiting) == "SERVER_DRAINING"
        assert reason(await failure(Seen(wire.jobs.WatchJobs(api.WatchJobsRequest(job_ids=["j"]))).next())) == (
            "SERVER_DRAINING"
        )


async def test_a_store_that_goes_ends_watches_and_the_next_one_begins_anew(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> int:
        raise StoreUnavailable("away")

    monkeypatch.setattr(watches, "RECHECK", 0.05)
    monkeypatch.setattr(watches, "GIVE_UP_AFTER", 0.2)
    await create(wire, "j")
    with monkeypatch.context() as patched:
        async with watching(wire, "j") as seen:
            patched.setattr(wire.app.store, "caught_up", away)
            assert reason(await failure(seen.until("never"))) == "STORE_UNAVAILABLE"
    async with watching(wire, "j") as again:
        await claim_one(wire)
        await again.until_state("j", job_pb2.JOB_STATE_IN_PROGRESS)


async def test_nothing_is_left_of_a_watch_whose_client_has_gone(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "RECHECK", 0.01)
    async with watching(wire, "j"), watching(wire, labels={"a": "b"}), watching(wire, queues=["q", "r"], user_id="u"):
        assert len(wire.app._watches._watches) == 3
    service = wire.app._watches
    async with asyncio.timeout(FOREVER):
        while service._watches or service._is_heard:
            await wire.app.store.ping()
    assert not service._by_id
    assert not service._by_filter
    assert not service._streams.count


async def test_one_who_does_not_read_is_told_the_latest_when_it_does(wire: Wire) -> None:
    narrow = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * KIB))
    ids = [f"j{n}" for n in range(40)]
    for job_id in ids:
        await create(wire, job_id)
    async with grpc.aio.insecure_channel(wire.address, options=narrow) as channel:
        deaf = Seen(JobServiceStub(channel).WatchJobs(api.WatchJobsRequest()))
        await deaf.until("snapshot_done")
        for _ in ids:
            await wire.jobs.UpdateJob(complete(await claim_one(wire), "x" * 200 * KIB))
        [watch] = wire.app._watches._watches
        assert watch._bytes <= watch_stream.PENDING_BYTES
        while any(deaf.jobs[job_id].state != COMPLETED for job_id in ids):
            await deaf.next()
        assert deaf.events.count("snapshot_started") == 1, "a bounded memory was enough"
        deaf.call.cancel()


# --- waiting ------------------------------------------------------------------------------------------------


async def claim_from(wire: Wire, queue: str) -> api.Assignment:
    request = api.ClaimJobRequest(queues=[queue], max_jobs=1, wait_timeout=seconds(FOREVER))
    async for event in wire.jobs.ClaimJob(request):
        if event.HasField("jobs"):
            return event.jobs.assignments[0]
    raise AssertionError("the stream ended without a job")


def wait(wire: Wire, job_id: str, timeout: float = FOREVER) -> Any:
    return wire.jobs.WaitJob(api.WaitJobRequest(job_id=job_id, timeout=seconds(timeout)))


async def waiters(wire: Wire, number: int) -> None:
    """Returns when so many watch: known is a watch a little sooner, and what ends then may be gone unheard."""
    service = wire.app._watches
    async with asyncio.timeout(FOREVER):
        while len(service._watches) < number or not service._is_heard:
            await wire.app.store.ping()


async def test_a_wait_is_answered_when_the_job_ends(wire: Wire) -> None:
    await create(wire, "j")
    waiting = [asyncio.ensure_future(wait(wire, "j")) for _ in range(3)]
    await waiters(wire, 3)
    await wire.jobs.UpdateJob(complete(await claim_one(wire), "42"))
    for each in waiting:
        answer = await each
        assert (answer.ended, answer.job.state, answer.job.result.text) == (True, COMPLETED, "42")


async def test_a_wait_for_an_ended_job_is_answered_at_once(wire: Wire) -> None:
    await create(wire, "j")
    await wire.jobs.UpdateJob(complete(await claim_one(wire)))
    assert (await wait(wire, "j")).ended
    assert not wire.app._watches._is_heard, "nobody had to watch for it"


async def test_a_wait_that_has_waited_enough_answers_the_job_as_it_is(wire: Wire) -> None:
    await create(wire, "j", payload=Payload(text="asked"))
    for timeout in (0, 0.01):
        answer = await wait(wire, "j", timeout)
        assert (answer.ended, answer.job.state, answer.job.payload.text) == (False, QUEUED, "asked")


async def test_a_wait_for_no_job_is_refused(wire: Wire) -> None:
    assert reason(await failure(wait(wire, "nobody"))) == "JOB_NOT_FOUND"
    assert reason(await failure(wait(wire, "no such id"))) == "INVALID_FIELD"
    assert reason(await failure(wait(wire, "j", 301))) == "INVALID_FIELD"


async def test_a_wait_for_a_job_that_is_deleted_ends_with_not_found(wire: Wire) -> None:
    await create(wire, "j")
    waiting = asyncio.create_task(failure(wait(wire, "j")))
    await waiters(wire, 1)
    await wire.jobs.DeleteJob(api.DeleteJobRequest(job_id="j"))
    assert reason(await waiting) == "JOB_NOT_FOUND"


async def test_a_wait_for_a_job_that_is_not_kept_answers_its_last_state(wire: Wire) -> None:
    await create(wire, "j", retention=seconds(0))
    waiting = asyncio.ensure_future(wait(wire, "j"))
    await waiters(wire, 1)
    await wire.jobs.UpdateJob(complete(await claim_one(wire), "42"))
    answer = await waiting
    assert (answer.ended, answer.job.result.text) == (True, "42")


async def test_waits_do_not_take_the_place_of_other_calls(wire: Wire) -> None:
    await create(wire, "j")
    gate = wire.app._server.gate
    waiting = asyncio.ensure_future(wait(wire, "j"))
    await waiters(wire, 1)
    assert gate._calls == 0
    waiting.cancel()
