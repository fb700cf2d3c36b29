"""Thousands of claim streams of one job each, on a few connections: each job goes out once, and the store is asked in
bulk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from tests.rpc.calls import complete, create, create_many
from tests.rpc.conftest import Wire

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import Job
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server import app
from jobwire_server.app import open_store
from jobwire_server.service import claims
from jobwire_server.service.claim_stream import REQUESTS_AT_ONCE

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

STREAMS: Final = 2_000
CONNECTIONS: Final = 4
"""Of which each may carry a thousand streams."""
ONE_BY_ONE: Final = 20
VERBS: Final = ("create", "get", "find", "count", "claim", "move", "renew", "beat", "queues", "workers")
PATIENCE: Final = 60.0
"""Seconds after which a test gives up. Nothing that goes well waits for it."""


class Crowd:
    """So many workers, each with a stream for one job, and what they were given."""

    def __init__(self) -> None:
        self.given: dict[str, list[api.Assignment]] = {}
        """Worker → in order."""
        self._changed = asyncio.Event()

    @property
    def taken(self) -> Counter[str]:
        """Job → how often it was handed out."""
        return Counter(assignment.job.id for assignments in self.given.values() for assignment in assignments)

    async def claim(self, jobs: JobServiceAsyncStub, worker: str) -> None:
        """Reads its stream for ever."""
        stream = jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id=worker), max_in_flight=1))
        await stream.initial_metadata()
        self.given[worker] = []
        self._changed.set()
        async for event in stream:
            self.given[worker] += event.jobs.assignments
            self._changed.set()

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns when it holds; looks whenever a stream has opened or was told something."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def crowd(wire: Wire, streams: int) -> AsyncIterator[Crowd]:
    """All of them open, none with a job."""
    crowd = Crowd()
    async with AsyncExitStack() as stack:
        options = (("grpc.use_local_subchannel_pool", 1),)  # a connection for each
        channels = [grpc.aio.insecure_channel(wire.address, options=options) for _ in range(CONNECTIONS)]
        stubs: list[JobServiceAsyncStub] = [
            JobServiceStub(await stack.enter_async_context(channel)) for channel in channels
        ]
        async with asyncio.TaskGroup() as tasks:
            claiming = [tasks.create_task(crowd.claim(stubs[i % CONNECTIONS], f"w{i}")) for i in range(streams)]
            await crowd.until(lambda: len(crowd.given) == streams)
            yield crowd
            for task in claiming:
                task.cancel()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of the store by verb, those of the sweep aside. Ask for it before `wire`."""
    count: Counter[str] = Counter()

    def counted(verb: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counting(*arguments: Any, **options: Any) -> Any:
            count[verb] += 1
            return await call(*arguments, **options)

        return counting

    def opened(url: str) -> Any:
        store = open_store(url)
        for verb in VERBS:
            setattr(store, verb, counted(verb, getattr(store, verb)))
        return store

    monkeypatch.setattr(app, "open_store", opened)
    return count


@pytest.fixture
def no_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints alone: what the clock adds is counted in tests/service."""
    monkeypatch.setattr(claims, "RECHECK", 3600.0)


async def all_wait(wire: Wire, streams: int) -> None:
    """Returns when each has found the queue empty."""
    line = wire.app._claims._lines["default"]
    async with asyncio.timeout(PATIENCE):
        while len(line._waiting) < streams or line._claims._task is not None:
            await wire.app.store.ping()


@pytest.mark.usefixtures("no_recheck")
@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_a_job_each_for_two_thousand_streams_costs_a_claim_for_fifty(calls: Counter[str], wire: Wire) -> None:
    async with crowd(wire, STREAMS) as workers:
        await all_wait(wire, STREAMS)
        calls.clear()
        await create_many(wire, *[Job(id=f"job-{i}") for i in range(STREAMS)])
        await workers.until(lambda: workers.taken.total() >= STREAMS)
        assert workers.taken == Counter({f"job-{i}": 1 for i in range(STREAMS)})
        assert {len(given) for given in workers.given.values()} == {1}, "none has two while another has none"
    # A hint that comes after an answer has told the same wakes as many in vain.
    assert calls["claim"] <= 2 * STREAMS / REQUESTS_AT_ONCE


@pytest.mark.usefixtures("no_recheck")
@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_a_job_at_a_time_costs_three_calls_while_a_thousand_streams_wait(calls: Counter[str], wire: Wire) -> None:
    """It is created, claimed, completed; nobody asks the store in vain, not even the worker that is free again."""
    async with crowd(wire, STREAMS // 2) as workers:
        await all_wait(wire, STREAMS // 2)
        calls.clear()
        for i in range(ONE_BY_ONE):
            await create(wire, f"job-{i}")
            await workers.until(lambda: workers.taken.total() > i)  # noqa: B023  awaited at once
            [latest] = [given[-1] for given in workers.given.values() if given and given[-1].job.id == f"job-{i}"]
            await wire.jobs.UpdateJob(complete(latest))
        await all_wait(wire, STREAMS // 2)
        assert max(len(given) for given in workers.given.values()) == 1, "each in its turn"
        assert calls == {"create": ONE_BY_ONE, "claim": ONE_BY_ONE, "move": ONE_BY_ONE}
