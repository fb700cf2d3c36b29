"""A claim stream as it is written: headers, messages, ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from grpc import StatusCode, aio
from tests.rpc.standins import (
    Running,
    Stream,
    big_job,
    drained,
    failure,
    reason,
    running,
)

from jobwire.v1 import job_service_pb2
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_server.domain.errors import JobwireError, Reason
from jobwire_server.service.claim_events import Assigned, Assignment, KeepAlive


@pytest.fixture
async def wire() -> AsyncIterator[Running]:
    async with running() as run:
        yield run


def claim(run: Running) -> Any:
    run.services.stream = Stream()
    return run.jobs.ClaimJob(job_service_pb2.ClaimJobRequest())


async def test_headers_come_at_once_and_events_as_they_happen(wire: Running) -> None:
    call = claim(wire)
    await call.initial_metadata()
    stream = wire.services.stream
    assert stream is not None
    stream.events.put_nowait(KeepAlive(now=5, held=1, credit=2))
    told = (await call.read()).keepalive
    assert (told.worker_id, told.session, told.held, told.credit) == ("w", 3, 1, 2)
    stream.events.put_nowait(None)
    assert await call.read() is aio.EOF
    assert await call.code() is StatusCode.OK
    assert await stream.closed is False


async def test_jobs_too_large_for_one_message_come_in_several() -> None:
    async with running(send=5000) as run:
        call = claim(run)
        assert run.services.stream is not None
        jobs = [Assignment(big_job(f"j{i}", 1800), bytes(16), b"") for i in range(5)]
        run.services.stream.events.put_nowait(Assigned(0, jobs))
        run.services.stream.events.put_nowait(None)
        messages = await drained(call)
        assert [[one.job.id for one in message.jobs.assignments] for message in messages] == [
            ["j0", "j1"],
            ["j2", "j3"],
            ["j4"],
        ]


async def test_a_stream_that_the_server_ends_leaves_deliveries_their_deadline(wire: Running) -> None:
    call = claim(wire)
    assert wire.services.stream is not None
    wire.services.stream.events.put_nowait(JobwireError(Reason.SUPERSEDED, "a newer stream"))
    error = await failure(drained(call))
    assert (error.code(), reason(error)) == (StatusCode.ABORTED, "SUPERSEDED")
    assert await wire.services.stream.closed is False


async def test_a_stream_that_may_not_open_says_why(wire: Running) -> None:
    wire.services.open_error = JobwireError(Reason.TOO_MANY_STREAMS, "enough", retry_after=1)
    error = await failure(drained(claim(wire)))
    assert (error.code(), reason(error)) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")


async def test_a_client_that_cancels_is_gone(wire: Running) -> None:
    call = claim(wire)
    await call.initial_metadata()
    call.cancel()
    assert wire.services.stream is not None
    assert await wire.services.stream.closed is True


async def test_a_connection_that_breaks_is_a_peer_gone(wire: Running) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{wire.port}") as channel:
        stream = wire.services.stream = Stream()
        await cast("Any", JobServiceStub(channel)).ClaimJob(job_service_pb2.ClaimJobRequest()).initial_metadata()
    assert await stream.closed is True


async def test_the_close_of_a_stream_runs_to_its_end_though_the_call_is_cancelled(wire: Running) -> None:
    call = claim(wire)
    await call.initial_metadata()
    stream = wire.services.stream
    assert stream is not None
    stream.may_close.clear()
    stream.events.put_nowait(None)
    await stream.closing.wait()
    call.cancel()
    # A call on the same connection arrives behind the cancellation.
    await failure(wire.channel.unary_unary("/jobwire.v1.JobService/Nothing")(b""))
    assert not stream.closed.done()
    stream.may_close.set()
    assert await stream.closed is False
