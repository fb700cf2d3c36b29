"""A client that opens a stream and does not read: it costs a message, and holds up nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from tests.rpc.calls import FOREVER, create
from tests.rpc.conftest import Wire, seconds

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_pb2 import Payload
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.domain.limits import KIB, Limits
from jobwire_server.service import claims
from jobwire_server.service.claim_stream import BYTES_AT_ONCE

if TYPE_CHECKING:
    from jobwire.v1.job_service_pb2_grpc import JobServiceAsyncStub

HEAVY: Final = 200 * KIB
A_MESSAGE: Final = BYTES_AT_ONCE // HEAVY
JOBS: Final = 8 * A_MESSAGE
NARROW: Final = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * KIB))
"""A connection that takes no more than that of what nobody reads, and does not grow with the traffic."""


@pytest.fixture(autouse=True)
def no_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is helped by the clock."""
    monkeypatch.setattr(claims, "RECHECK", 3600.0)


@pytest.fixture
async def narrow(wire: Wire) -> AsyncIterator[JobServiceAsyncStub]:
    async with grpc.aio.insecure_channel(wire.address, options=NARROW) as channel:
        yield JobServiceStub(channel)


def stream_of(jobs: JobServiceAsyncStub, worker: str, **fields: Any) -> Any:
    return jobs.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id=worker), max_in_flight=1000, **fields))


async def held(wire: Wire, worker: str) -> int:
    return sum(record.held for record in (await wire.app.store.workers(ids=[worker])).workers)


async def create_heavy(wire: Wire, jobs: int) -> None:
    for i in range(jobs):
        await create(wire, f"job-{i}", payload=Payload(data=bytes(HEAVY)))


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_who_does_not_read_holds_one_message_until_it_goes(wire: Wire, narrow: JobServiceAsyncStub) -> None:
    await create_heavy(wire, JOBS)
    deaf = stream_of(narrow, "deaf", delivery_timeout=seconds(60))
    await deaf.initial_metadata()
    reader = stream_of(wire.jobs, "reader", delivery_timeout=seconds(0))
    taken: Counter[str] = Counter()

    async def read() -> list[api.Assignment]:
        message = await reader.read()
        assert message.ByteSize() <= Limits().send
        taken.update(assignment.job.id for assignment in message.jobs.assignments)
        return list(message.jobs.assignments)

    async with asyncio.timeout(FOREVER):
        while taken.total() + await held(wire, "deaf") < JOBS:
            await read()
        kept = await held(wire, "deaf")
        assert 0 < kept <= A_MESSAGE
        deaf.cancel()
        returned: list[api.Assignment] = []
        while len(returned) < kept:
            returned += await read()
    assert taken == Counter({f"job-{i}": 1 for i in range(JOBS)})
    assert {assignment.job.attempt for assignment in returned} == {1}
    reader.cancel()


@pytest.mark.parametrize("engine", ["sqlite", "valkey"])
async def test_who_does_not_read_swallows_no_bell(wire: Wire, narrow: JobServiceAsyncStub) -> None:
    """It has found the end of its queue, and so it is the first in line, while its connection is full."""
    await create_heavy(wire, 1)
    deaf = stream_of(narrow, "deaf", delivery_timeout=seconds(60))
    async with asyncio.timeout(FOREVER):
        while not await held(wire, "deaf"):
            pass
        reader = stream_of(wire.jobs, "reader")
        await reader.initial_metadata()
        await create(wire, "late")
        [assignment] = (await reader.read()).jobs.assignments
    assert assignment.job.id == "late"
    deaf.cancel()
    reader.cancel()
