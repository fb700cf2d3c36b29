"""A connection that lives and carries nothing any more, as a proxy or a machine that died may leave it: each end
notices by itself. The tests have them look more often than they do by default."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import pytest
from grpc import aio
from tests.client.test_worker_faults import Heard
from tests.faults.proxy import Fault, Proxy
from tests.rpc.standins import Stream, running

from jobwire.v1 import job_service_pb2 as api
from jobwire.v1.job_service_pb2_grpc import JobServiceStub
from jobwire_client import AsyncClient, JobContext, Worker, _channel, _claims
from jobwire_client._channel import Connection
from jobwire_server import app
from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.rpc.server import PINGS, Pings, Server
from jobwire_server.service import claim_stream

EAGER: Final = Pings(every=100, timeout=200, allowed_every=10)
NOTICED_WITHIN: Final = 30_000
"""Milliseconds, as promised."""
PATIENCE: Final = 15.0
"""Seconds after which a test gives up: sooner than anybody would notice by default."""


def client_options() -> dict[str, Any]:
    return dict(Connection.to("127.0.0.1:1").options)


def eager_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings as EAGER has it; which options that takes is the client's affair."""
    shorter = {PINGS.every: EAGER.every, PINGS.timeout: EAGER.timeout}
    options = [(name, shorter.get(value, value)) for name, value in client_options().items()]
    monkeypatch.setattr(_channel, "_OPTIONS", tuple(options))


@contextmanager
def heard_worker() -> Iterator[Heard]:
    """What workers write to their log."""
    heard, log = Heard(), logging.getLogger("jobwire.worker")
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(heard)
    yield heard
    log.removeHandler(heard)
    log.setLevel(before)


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    run = asyncio.create_task(worker.run())
    yield
    worker.stop()
    async with asyncio.timeout(PATIENCE):
        await run


def test_by_default_both_ends_notice_within_thirty_seconds_and_bear_each_other() -> None:
    client = client_options()
    every = client["grpc.keepalive_time_ms"]
    for timeout in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        assert every + client[timeout] <= NOTICED_WITHIN
    assert PINGS.every + PINGS.timeout <= NOTICED_WITHIN
    assert every >= PINGS.allowed_every


async def test_a_server_notices_that_the_client_of_a_stream_is_gone() -> None:
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(running(pings=EAGER))
        proxy = await stack.enter_async_context(Proxy(run.port))
        jobs: Any = JobServiceStub(await stack.enter_async_context(aio.insecure_channel(proxy.address)))
        stream = run.services.stream = Stream()
        call = jobs.ClaimJob(api.ClaimJobRequest())
        await call.initial_metadata()
        proxy.stand(Fault.SILENCE)
        async with asyncio.timeout(PATIENCE):
            assert await stream.closed, "its peer is gone, so that deliveries go back at once"
        call.cancel()


async def test_a_worker_notices_that_its_server_is_gone_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    eager_client(monkeypatch)
    monkeypatch.setattr(app, "Server", partial(Server, pings=Pings(allowed_every=EAGER.allowed_every)))
    served = App(Config(store="memory://", listen="127.0.0.1:0", http="off"))
    address = await served.start()
    async with Proxy(int(address.rpartition(":")[2])) as proxy, AsyncClient(address) as client:
        worker = Worker(proxy.address)
        worker.handler("echo")(text_of)
        with heard_worker() as heard:
            async with working(worker):
                await client.wait((await client.create("echo", "before")).id)
                proxy.stand(Fault.SILENCE)
                async with asyncio.timeout(PATIENCE):
                    await heard.line("keeps trying")
                    proxy.heal()
                    assert (await client.wait((await client.create("echo", "after")).id)).result.text == "after"
    await served.stop()


def text_of(context: JobContext) -> str:
    return context.text


async def test_a_worker_opens_anew_a_stream_that_is_silent_although_its_connection_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a proxy that answers pings by itself. A server that lives says so every few seconds."""
    assert claim_stream.KEEPALIVE * 3 <= _claims.SILENCE
    monkeypatch.setattr(_claims, "SILENCE", 0.2)
    monkeypatch.setattr(_claims, "LOOK", 0.05)
    async with running() as run:
        first = run.services.stream = Stream()
        worker = Worker(f"127.0.0.1:{run.port}")
        worker.handler("any")(text_of)
        with heard_worker() as heard:
            async with working(worker), asyncio.timeout(PATIENCE):
                assert await first.closed
                second = run.services.stream = Stream()
                await heard.line("its stream was silent for 0.2 s")
                assert await second.closed, "that one is as silent"
