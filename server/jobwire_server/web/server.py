"""The HTTP server: its routes, and how it starts and stops. It runs in gRPC's loop, and owns no signal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.access import Access
from jobwire_server.rpc.interceptors import Gate, Method
from jobwire_server.rpc.ports import bind
from jobwire_server.service.certificates import Certificates
from jobwire_server.service.stats import StatsService
from jobwire_server.store.base import Store
from jobwire_server.telemetry.metrics import Registry
from jobwire_server.web.answers import NAMES
from jobwire_server.web.connect import Gateway
from jobwire_server.web.events import events
from jobwire_server.web.files import dashboard
from jobwire_server.web.health import Health
from jobwire_server.web.login import Login
from jobwire_server.web.metrics import Exposition
from jobwire_server.web.protection import Protection

_CONNECTIONS: Final = 10_000
"""As many as gRPC lets in; who comes then is told 503."""
_HEADERS: Final = 32 * 1024
"""Bytes of a request's headers."""


class WebServer:
    """One listening server: `start`, `begin_drain`, and `stop` when the gate has let the last call out."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        gate: Gate,
        store: Store,
        stats: StatsService,
        metrics: Registry,
        *,
        limits: Limits,
        only_loopback: bool,
        shares_port: bool = False,
        access: Access | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.draining = asyncio.Event()
        """What streams of ours wait for as well: they end when it is set."""
        self._shares_port = shares_port
        health = Health(store, is_draining=self.draining.is_set)
        exposition = Exposition(metrics, store, stats, is_alone=not shares_port)
        gateway = Gateway(methods, gate, limits)
        app = Starlette(
            routes=[
                Route("/healthz", health.healthz),
                Route("/readyz", health.readyz),
                *dashboard(),
                Route("/metrics", exposition.endpoint),
                *(Route(path, gateway.call, methods=["POST"]) for path in methods),
                *events(methods, gate),
            ],
            middleware=[
                Middleware(Protection, only_loopback=only_loopback),
                *([] if access is None else [Middleware(Login, access=access)]),
            ],
        )
        self._config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,  # ours is configured already
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_HEADERS,
        )
        self._config.load()
        self._config.ssl = None if certificates is None else certificates.context()
        self._server = _Uvicorn(self._config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self, address: str) -> int:
        """Listens on `host:port` and answers the port, which is a free one when 0 was asked for. CannotListen."""
        bound = bind(address, socket.SO_REUSEPORT if self._shares_port else socket.SO_REUSEADDR, setting="--http")
        self._serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        await self._server.has_started.wait()
        return int(bound.getsockname()[1])

    def begin_drain(self) -> None:
        """Tells balancers to look elsewhere, and ends our streams."""
        self.draining.set()

    async def stop(self, grace: float) -> None:
        """Closes every connection, within `grace` seconds those that still answer."""
        if self._serving is None:
            return
        self.begin_drain()
        self._config.timeout_graceful_shutdown = max(1, round(grace))
        self._server.should_exit = True
        await self._serving


class _Protocol(H11Protocol):
    """Tells the app which names stand in the certificate that the client has shown."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert") or {}
        app, names = self.app, [name.encode() for _, name in certificate.get("subjectAltName", ())]

        async def named(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, NAMES: names}, receive, send)

        if names:
            self.app = named


class _Uvicorn(uvicorn.Server):
    """Without its signal handlers: the process has its own, which stop all of the server in order."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()
