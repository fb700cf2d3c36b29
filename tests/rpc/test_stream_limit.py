"""How many claim streams one principal may have. Without tokens all callers of a server are one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # the package ships no types
from grpc_status import rpc_status
from tests.rpc.calls import FOREVER, create
from tests.rpc.conftest import Wire, seconds
from tests.rpc.standins import drained, failure, reason

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire.v1.worker_pb2 import WorkerIdentity
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.domain.limits import Limits
from jobwire_server.store.base import StoreUnavailable

LIMIT: Final = 2

Metadata: TypeAlias = tuple[tuple[str, str], ...]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    limits = Limits(streams_per_principal=LIMIT)
    app = App(Config(store="memory://", listen="127.0.0.1:0", http="off", drain_timeout=1, limits=limits))
    address = await app.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield Wire(app, address, channel)
    await app.stop()


def claim(wire: Wire, worker: str, metadata: Metadata = (), *, session: int = 0, **fields: Any) -> Any:
    request = api.ClaimJobRequest(worker=WorkerIdentity(id=worker, session=session), **fields)
    return wire.jobs.ClaimJob(request, metadata=metadata)


async def opened(wire: Wire, worker: str, metadata: Metadata = (), **fields: Any) -> Any:
    """A stream that is open; one that is refused is tried again."""
    async with asyncio.timeout(FOREVER):
        while True:
            stream = claim(wire, worker, metadata, **fields)
            # Of a refusal there are no headers, only its end.
            await stream.initial_metadata()
            if not stream.done():
                return stream
            assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def failure_of(stream: Any) -> grpc.aio.AioRpcError:
    async with asyncio.timeout(FOREVER):
        return await failure(drained(stream))


async def test_one_stream_too_many_is_told_the_limit_and_when_to_come_back(wire: Wire) -> None:
    held = [await opened(wire, f"w{i}") for i in range(LIMIT)]
    error = await failure_of(claim(wire, "late"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert error.details() == f"this server serves at most {LIMIT} streams"
    status = rpc_status.from_call(cast("grpc.Call", error))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert [packed.Unpack(detail) for packed, detail in zip(status.details, (info, retry), strict=True)] == [True, True]
    assert (info.domain, info.reason, dict(info.metadata)) == ("jobwire", "TOO_MANY_STREAMS", {"limit": str(LIMIT)})
    assert retry.retry_delay == seconds(1)
    assert not any(stream.done() for stream in held), "those that are open stay so"


async def its_client_cancels_it(wire: Wire, _: pytest.MonkeyPatch) -> None:
    (await opened(wire, "w")).cancel()


async def its_connection_breaks(wire: Wire, _: pytest.MonkeyPatch) -> None:
    async with grpc.aio.insecure_channel(wire.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        stub: Any = JobServiceStub(channel)
        await stub.ClaimJob(api.ClaimJobRequest(worker=WorkerIdentity(id="w"))).initial_metadata()


async def it_has_given_its_last_job(wire: Wire, _: pytest.MonkeyPatch) -> None:
    await create(wire, "a")
    assert len(await drained(claim(wire, "w", max_jobs=1))) == 1


async def it_has_waited_enough(wire: Wire, _: pytest.MonkeyPatch) -> None:
    assert await drained(claim(wire, "w", wait_timeout=seconds(0.01))) == []


async def a_newer_one_ends_it(wire: Wire, _: pytest.MonkeyPatch) -> None:
    older, newer = await opened(wire, "w", session=1), await opened(wire, "w", session=2)
    assert reason(await failure_of(older)) == "SUPERSEDED"
    newer.cancel()


async def it_comes_too_late(wire: Wire, _: pytest.MonkeyPatch) -> None:
    newer = await opened(wire, "w", session=2)
    assert reason(await failure_of(claim(wire, "w", session=1))) == "SUPERSEDED"
    newer.cancel()


async def the_store_is_away_when_it_opens(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> bool:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(wire.app.store, "beat", away)
        assert reason(await failure_of(claim(wire, "w"))) == "STORE_UNAVAILABLE"


async def its_client_goes_while_it_opens(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def hangs(*_: object) -> bool:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(wire.app.store, "beat", hangs)
        stream = claim(wire, "w")
        await asked.wait()
        stream.cancel()


async def something_in_it_fails(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(wire.app.store, "claim", broken)
        assert reason(await failure_of(claim(wire, "w"))) == "INTERNAL"


ENDS: Final[list[Callable[[Wire, pytest.MonkeyPatch], Awaitable[None]]]] = [
    its_client_cancels_it,
    its_connection_breaks,
    it_has_given_its_last_job,
    it_has_waited_enough,
    a_newer_one_ends_it,
    it_comes_too_late,
    the_store_is_away_when_it_opens,
    its_client_goes_while_it_opens,
    something_in_it_fails,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_a_stream_leaves_nothing_behind_when(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, end: Callable[[Wire, pytest.MonkeyPatch], Awaitable[None]]
) -> None:
    await end(wire, monkeypatch)
    held = [await opened(wire, f"w{i}") for i in range(LIMIT)]
    assert reason(await failure_of(claim(wire, "late"))) == "TOO_MANY_STREAMS", "each is counted once"
    for stream in held:
        stream.cancel()
    service = wire.app._claims
    async with asyncio.timeout(FOREVER):
        while service._streams or service._admission.count:
            await wire.app.store.ping()
    assert not service._deliveries._owners
