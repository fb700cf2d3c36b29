"""Following jobs with the client: to their end, and as they change, through restarts of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.client.conftest import PATIENCE, Bench
from tests.server_process import ServerProcess

from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2 import (
    JobsChanged,
    JobsRemoved,
    SnapshotDone,
    SnapshotStarted,
    WatchJobsResponse,
)
from jobwire_client import (
    AsyncClient,
    Client,
    InvalidField,
    JobChange,
    JobContext,
    JobNotFound,
    JobState,
    Unavailable,
    Worker,
    new_job,
    state_name,
)
from jobwire_client._watching import _View


def states(changes: list[JobChange]) -> list[tuple[str, str]]:
    return [(each.job_id, "gone" if each.job is None else state_name(each.job.state)) for each in changes]


async def until(told: AsyncIterator[JobChange], state: str) -> list[JobChange]:
    """What is told, down to the first job in that state."""
    heard: list[JobChange] = []
    async with asyncio.timeout(PATIENCE):
        async for change in told:
            heard.append(change)
            if states([change])[0][1] == state:
                break
    return heard


async def test_a_watch_tells_what_is_there_and_then_what_changes(bench: Bench, queue: str) -> None:
    made = await bench.client.create("x", "secret", queue=queue, labels={"a": "b"})
    async with aclosing(bench.client.watch(queues=[queue])) as told:  # type: ignore[type-var]  # it is a generator
        [first] = await until(told, "QUEUED")
        assert first.in_snapshot
        assert first.job is not None
        assert dict(first.job.labels) == {"a": "b"}
        assert not first.job.HasField("payload")
        await bench.client.cancel(made.id)
        [ended] = await until(told, "CANCELED")
        assert not ended.in_snapshot
        await bench.client.delete(made.id)
        assert states(await until(told, "gone")) == [(made.id, "gone")]


async def test_a_watch_of_ids_tells_those_that_are_not_there(bench: Bench, queue: str) -> None:
    made = await bench.client.create("x", queue=queue)
    async with aclosing(bench.client.watch([made.id, "nobody"])) as told:  # type: ignore[type-var]  # it is a generator
        assert sorted(states(await until(told, "gone"))) == sorted([(made.id, "QUEUED"), ("nobody", "gone")])


async def test_a_watch_that_cannot_be_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidField):
        await until(bench.client.watch(["no such id"]), "never")


async def test_a_watch_outlives_its_server_and_tells_what_changed_meanwhile(own_server: ServerProcess) -> None:
    async with AsyncClient(own_server.address, timeout=PATIENCE) as client:
        await client.create_many(new_job("x", id=f"j{n}") for n in range(3))
        told = client.watch(["j0", "j1", "j2"])
        heard = [await anext(told) for _ in range(3)]
        assert {each.job_id for each in heard} == {"j0", "j1", "j2"}
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        await client.cancel("j1")
        await client.delete("j2")
        assert sorted(states([await anext(told), await anext(told)])) == [("j1", "CANCELED"), ("j2", "gone")]


async def test_without_a_server_a_watch_and_a_wait_end_in_their_time(own_server: ServerProcess) -> None:
    own_server.kill()
    async with AsyncClient(own_server.address, timeout=0.3) as client:
        with pytest.raises(Unavailable):
            await until(client.watch(), "never")
        with pytest.raises(Unavailable):
            await client.wait("j")


async def test_a_wait_outlives_its_server(own_server: ServerProcess) -> None:
    async with AsyncClient(own_server.address, timeout=PATIENCE) as client:
        await client.create("x", id="j")
        waiting = asyncio.create_task(client.wait("j"))
        await asyncio.sleep(0)
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        await client.cancel("j")
        assert (await waiting).state == JobState.JOB_STATE_CANCELED


async def test_a_wait_for_a_job_that_goes_ends_with_not_found(bench: Bench, queue: str) -> None:
    with pytest.raises(JobNotFound):
        await bench.client.wait("nobody")


async def test_a_watch_tells_how_a_job_ended_that_is_not_kept(bench: Bench, queue: str) -> None:
    made = await bench.client.create("x", queue=queue, retention=0)
    worker = Worker(bench.address, queues=[queue])

    @worker.handler("x")
    async def run(context: JobContext) -> str:
        return "42"

    async with aclosing(bench.client.watch([made.id])) as told:  # type: ignore[type-var]  # it is a generator
        await until(told, "QUEUED")
        async with bench.working(worker):
            *_, last, gone = await until(told, "gone")
        assert states([last, gone]) == [(made.id, "COMPLETED"), (made.id, "gone")]
        assert last.job is not None
        assert last.job.result.text == "42"


def test_the_watch_for_threads_ends_when_it_is_left(shared_server: ServerProcess, queue: str) -> None:
    with Client(shared_server.address) as client:
        made = client.create("x", queue=queue)
        for change in client.watch(queues=[queue]):
            if change.in_snapshot:
                client.cancel(made.id)
            else:
                assert states([change]) == [(made.id, "CANCELED")]
                break
        assert client.get(made.id).id == made.id


# --- what a client keeps of it ------------------------------------------------------------------------------


def job(id: str, version: int, seconds: int = 1) -> Job:
    job = Job(id=id, version=version)
    job.create_time.seconds = seconds
    return job


def told_of(view: _View, *events: Any) -> list[tuple[str, int | None]]:
    """Ids with the version that was told; None = gone."""
    told: list[tuple[str, int | None]] = []
    for event in events:
        match event:
            case "start":
                message = WatchJobsResponse(snapshot_started=SnapshotStarted())
            case "done":
                message = WatchJobsResponse(snapshot_done=SnapshotDone())
            case str():
                message = WatchJobsResponse(removed=JobsRemoved(job_ids=[event]))
            case _:
                message = WatchJobsResponse(changed=JobsChanged(jobs=[event]))
        told += [(each.job_id, each.job.version if each.job else None) for each in view.take(message)]
    return told


def test_what_comes_twice_or_late_is_told_once() -> None:
    view = _View([])
    assert told_of(view, "start", job("a", 1), "done", job("a", 3), job("a", 3), job("a", 2)) == [("a", 1), ("a", 3)]


def test_a_later_life_of_an_id_is_told_although_its_version_is_lower() -> None:
    view = _View([])
    assert told_of(view, "start", job("a", 5), "done", job("a", 1, seconds=2)) == [("a", 5), ("a", 1)]


def test_what_nobody_was_told_of_does_not_go() -> None:
    assert told_of(_View([]), "start", "done", "a") == []
    assert told_of(_View(["a"]), "start", "a", "done", "a") == [("a", None)]


def test_what_a_further_snapshot_does_not_name_is_read_or_gone() -> None:
    view = _View([])
    told_of(view, "start", job("a", 1), job("b", 1), job("c", 1), "done")
    assert told_of(view, "start", job("a", 1), "done") == []
    assert view.unnamed == {"b", "c"}
    settled = [(each.job_id, each.job is None) for each in view.settle([job("b", 2)])]
    assert settled == [("b", False), ("c", True)]
    assert not view.unnamed


async def test_an_end_during_an_outage_is_told_although_the_snapshot_is_of_other_states(
    own_server: ServerProcess,
) -> None:
    async with AsyncClient(own_server.address, timeout=PATIENCE) as client:
        await client.create("x", id="j")
        told = client.watch(states=["QUEUED"])
        assert states([await anext(told)]) == [("j", "QUEUED")]
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        await client.cancel("j")
        assert states([await anext(told)]) == [("j", "CANCELED")]
