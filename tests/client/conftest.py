"""A real server for the client's tests: one for all that leave it alone, a queue for each of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from tests.server_process import ServerProcess, serving

from jobwire_client import AsyncClient, Job, Worker
from jobwire_client.errors import Unavailable

PATIENCE = 30.0
"""Seconds after which a test gives up. Nothing that goes well waits for it."""


class Bench:
    """What a test of a worker needs: a client, and ways to wait for what the server says."""

    def __init__(self, client: AsyncClient, address: str) -> None:
        self.client = client
        self.address = address

    async def job_when(self, job_id: str, is_so: Callable[[Job], bool]) -> Job:
        """The job, once the server says that it is so."""
        job = Job()
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        job = await self.client.get(job_id)
                    except Unavailable:
                        continue
                    if is_so(job):
                        return job
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"it never came to be so: {job}") from None

    async def ended(self, job_id: str) -> Job:
        """The job, once it has ended."""
        return await self.job_when(job_id, lambda job: job.HasField("finish_time"))

    def working(self, worker: Worker) -> AbstractAsyncContextManager[asyncio.Task[None]]:
        """Runs the worker for a while; it has ended, drained, when the block is left."""
        return _working(worker)


@asynccontextmanager
async def _working(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(worker.run())
    try:
        yield running
    finally:
        worker.stop()
        await asyncio.wait([running], timeout=PATIENCE)
        assert running.done(), "the worker does not end"
    running.result()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with serving(f"sqlite:///{folder}/jobs.db", folder / "server.log") as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """For tests that kill it."""
    with serving(f"sqlite:///{tmp_path}/jobs.db", tmp_path / "server.log") as server:
        yield server


@pytest_asyncio.fixture
async def bench(shared_server: ServerProcess) -> AsyncIterator[Bench]:
    async with AsyncClient(shared_server.address) as client:
        yield Bench(client, shared_server.address)


@pytest_asyncio.fixture
async def own_bench(own_server: ServerProcess) -> AsyncIterator[Bench]:
    async with AsyncClient(own_server.address) as client:
        yield Bench(client, own_server.address)


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """Of this test alone."""
    return re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[-64:].lstrip("-")
