"""A real server in this process, and requests over its HTTP port with whatever headers a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
from tests.rpc.standins import Running
from tests.valkey_process import Keyspace

from jobwire_server.app import App
from jobwire_server.config import Config
from jobwire_server.service.admission import Streams
from jobwire_server.service.stats import StatsService
from jobwire_server.web.server import WebServer

PATIENCE = 20.0

# It has no build for every machine: there the tests of the dashboard cannot even be read.
collect_ignore = [] if find_spec("playwright") else ["browser"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """Of an error of ours."""
        [info] = [each["debug"] for each in self.json["details"] if each["type"] == "google.rpc.ErrorInfo"]
        assert info["domain"] == "jobwire"
        return cast(str, info["reason"])


class Web:
    """Asks a server over HTTP, a connection for each request.

    Headers are given by keyword, underscores for dashes; an empty one is left out.
    """

    def __init__(self, address: str, server: WebServer | None = None) -> None:
        self.address = address
        self._server = server

    @property
    def server(self) -> WebServer:
        assert self._server is not None
        return self._server

    async def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        sent = {"host": self.address, "connection": "close", "content-length": str(len(body))}
        sent |= {name.replace("_", "-").lower(): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items() if value), "", ""]
        async with asyncio.timeout(PATIENCE):
            reader, writer = await self.connect()
            writer.write("\r\n".join(lines).encode() + body)
            answered = await reader.read()
        writer.close()
        head, _, content = answered.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        found = (line.partition(": ") for line in rest)
        return Answer(int(first.split()[1]), {name.lower(): value for name, _, value in found}, content)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.address.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, b"", headers)

    async def call(self, rpc: str, request: object = None, **headers: str) -> Answer:
        """An RPC such as `JobService/GetJob`; the request is JSON, or bytes as they are."""
        body = request if isinstance(request, bytes) else json.dumps(request or {}).encode()
        headers.setdefault("content_type", "application/json")
        return await self.ask("POST", f"/jobwire.v1.{rpc}", body, headers)


@pytest.fixture
def engine() -> str:
    """What is said here of HTTP holds on every store; a test that doubts it asks for more by `parametrize`."""
    return "memory"


@pytest.fixture
async def app(engine: str, keyspace: Keyspace | None, tmp_path: Path) -> AsyncIterator[App]:
    if keyspace is not None:
        url = keyspace.url
    else:
        url = "memory://" if engine == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    app = App(Config(store=url, listen="127.0.0.1:0", drain_timeout=1))
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


@pytest.fixture
def web(app: App) -> Web:
    assert app.http_address is not None
    return Web(app.http_address)


@asynccontextmanager
async def beside(run: Running, *, only_loopback: bool = True) -> AsyncIterator[Web]:
    """HTTP beside a gRPC server whose services do what a test needs."""
    store = cast("Any", run.services)
    server = WebServer(
        run.server.methods,
        run.server.gate,
        store,
        StatsService(store, streams=Streams(run.limits)),
        run.metrics,
        limits=run.limits,
        only_loopback=only_loopback,
    )
    port = await server.start("127.0.0.1:0")
    try:
        yield Web(f"127.0.0.1:{port}", server)
    finally:
        await server.stop(1)
