"""A worker that knows two servers while both are replaced, one after the other, as a deploy does: nobody notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from tests.server_process import ServerProcess
from tests.store import invariants
from tests.valkey_process import Keyspace, ValkeyProcess

from jobwire.v1.job_pb2 import JobState
from jobwire_client import AsyncClient, JobContext, Worker, new_job
from jobwire_server.store.redis.inspection import RedisInspection

JOBS = 200
CONCURRENCY = 8
PATIENCE = 60


class Work:
    """What runs in the worker's handler, and what has."""

    def __init__(self) -> None:
        self.running = 0
        self.done: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    async def handle(self, context: JobContext) -> None:
        self.running += 1
        await self._tell()
        await asyncio.sleep(0.1)  # stands for the work: the server is to go in the middle of it
        self.running -= 1
        self.done[context.job.id] += 1
        await self._tell()

    async def until_running(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.running >= number)

    async def until_done(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.done) >= number)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@pytest.mark.timeout(2 * PATIENCE)
async def test_a_worker_moves_between_two_servers_that_are_replaced_and_loses_nothing(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    valkey.flush()
    url = Keyspace(valkey, "moving").url
    servers = [ServerProcess(url, tmp_path / f"server-{n}.log") for n in range(2)]
    try:
        for server in servers:
            server.start()
        addresses = [server.address for server in servers]
        worker, work = Worker(",".join(addresses), concurrency=CONCURRENCY, lease_duration=6), Work()
        worker.handler("work")(work.handle)
        working = asyncio.create_task(worker.run())
        async with asyncio.timeout(PATIENCE), AsyncClient(",".join(addresses)) as client:
            await client.create_many(new_job("work") for _ in range(JOBS))
            for server in servers:
                await work.until_running(CONCURRENCY)
                before = len(work.done)
                assert await asyncio.to_thread(server.terminate) == 0
                # More than it held: it has been given others since.
                await work.until_done(before + 2 * CONCURRENCY)
                await asyncio.to_thread(server.start)
            await work.until_done(JOBS)
            worker.stop()
            await working
            jobs = [job async for job in client.list()]
    finally:
        for server in servers:
            server.end()
    spent = Counter((job.state, job.attempt, job.interruption_count, job.retry_count) for job in jobs)
    assert spent == {(JobState.JOB_STATE_COMPLETED, 1, 0, 0): JOBS}
    assert set(work.done.values()) == {1}
    assert invariants.findings(RedisInspection(url).run(lambda _: None)) == []
