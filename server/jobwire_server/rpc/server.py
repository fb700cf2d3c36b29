"""The gRPC server: every method of the contract, health, reflection, and how it starts and stops."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from jobwire.v1 import admin_service_pb2, job_service_pb2, queue_service_pb2, worker_service_pb2
from jobwire_server.domain.errors import JobwireError
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc.access import Access
from jobwire_server.rpc.interceptors import Gate, Method
from jobwire_server.rpc.metering import Meter
from jobwire_server.rpc.ports import CannotListen, check_free
from jobwire_server.rpc.status import refusal
from jobwire_server.service.certificates import Certificates
from jobwire_server.telemetry.metrics import Registry
from jobwire_server.telemetry.traces import Traces

SERVICES: Final[dict[str, ServiceDescriptor]] = {
    service.full_name: service
    for module in (job_service_pb2, worker_service_pb2, queue_service_pb2, admin_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}
"""The contract, by full name of the service."""

_WAITING: Final = {"WaitJob"}
"""Methods that answer once, when something has happened."""

_LAST_WORDS: Final = 0.5
"""Seconds for answers that are written but not sent, when everything of ours has ended. Health watches, which never
end by themselves, are cut off then."""


@dataclass(frozen=True, slots=True)
class Pings:
    """How a peer is found that has gone without a word, in milliseconds; by default within 30 s, gRPC's own two hours
    aside."""

    every: int = 20_000
    timeout: int = 10_000
    """Until a ping counts as unanswered."""
    allowed_every: int = 10_000
    """A client that pings more often, and says nothing else, is cut off."""


PINGS: Final = Pings()


class Servicer(Protocol):
    """What serves one service. It has a coroutine for each RPC that is built, named like it in snake_case:
    `async def get_job(self, request, context) -> response`, or, for a stream,
    `async def claim_job(self, request, context) -> None` with bytes to `context.write`. What it lacks is not built."""

    SERVICE: ClassVar[str]
    """Full name, such as `jobwire.v1.JobService`."""


class Server:
    """One listening server: `start`, `begin_drain` when the services begin to drain, `stop` when they have."""

    def __init__(
        self,
        servicers: Iterable[Servicer],
        *,
        limits: Limits,
        reflection: bool = True,
        shares_port: bool = False,
        access: Access | None = None,
        certificates: Certificates | None = None,
        pings: Pings = PINGS,
        metrics: Registry | None = None,
        traces: Traces | None = None,
    ) -> None:
        """`shares_port`: other processes listen on it as well, and somebody has seen to it that they are ours.
        `access` None: nobody has to say who he is. `certificates` None: no TLS."""
        by_service = {servicer.SERVICE: servicer for servicer in servicers}
        self.methods: Mapping[str, Method] = dict(_methods(by_service, metrics or Registry()))
        """Every RPC of the contract, built or not, by its path, such as `/jobwire.v1.JobService/GetJob`."""
        self._limits = limits
        self._pings = pings
        self._access = access
        self._certificates = certificates
        self._reflection = reflection
        self._shares_port = shares_port
        self.gate = Gate(calls_in_flight=limits.calls_in_flight, access=access, traces=traces)
        """What lets calls in, whichever way they come."""
        self._health = health.aio.HealthServicer()
        self._server: aio.Server | None = None

    async def start(self, address: str) -> int:
        """Listens on `host:port` and answers the port, which is a free one when 0 was asked for."""
        server = aio.server(options=_options(self._limits, self._pings, shares_port=self._shares_port))
        server.add_generic_rpc_handlers(list(_handlers(self.gate, self.methods)))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for name in SERVICES:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        if self._reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            server.add_generic_rpc_handlers([_reflection(names, self._access)])
        if not self._shares_port:
            check_free(address)
        try:
            if self._certificates is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, _credentials(self._certificates))
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {address}") from error
        await server.start()
        self._server = server
        return port

    async def begin_drain(self) -> None:
        """Tells balancers to look elsewhere (NOT_SERVING). Calls go on: workers settle and beat until the end."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Refuses new calls, waits up to `grace` seconds for those under way, then closes every connection.

        Streams must have been ended by their services before: grpc's own grace only waits for them.
        """
        if self._server is None:
            return
        await self.begin_drain()
        self.gate.close()
        try:
            async with asyncio.timeout(grace):
                await self.gate.idle()
        except TimeoutError:
            pass  # what is still under way has had its time
        await self._server.stop(min(grace, _LAST_WORDS))


def snake_case(name: str) -> str:
    """`CreateJob` → `create_job`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _methods(servicers: Mapping[str, Servicer], metrics: Registry) -> Iterator[tuple[str, Method]]:
    for service in SERVICES.values():
        servicer = servicers.get(service.full_name)
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            yield (
                path,
                Method(
                    path,
                    method.name,
                    GetMessageClass(method.input_type),
                    GetMessageClass(method.output_type),
                    method.server_streaming,
                    getattr(servicer, snake_case(method.name), None),
                    Meter(metrics, method),
                    method.name in _WAITING,
                ),
            )


def _handlers(gate: Gate, methods: Mapping[str, Method]) -> Iterator[grpc.GenericRpcHandler]:
    for service in SERVICES:
        # No (de)serializers: bytes in, bytes out, the gate does both.
        yield grpc.method_handlers_generic_handler(
            service,
            {
                method.name: grpc.unary_stream_rpc_method_handler(gate.stream(method))
                if method.is_stream
                else grpc.unary_unary_rpc_method_handler(gate.unary(method))
                for path, method in methods.items()
                if path.startswith(f"/{service}/")
            },
        )


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Each connection is given the certificates of its time."""
    told = certificates.now

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(told.key, told.cert)], told.client_ca)

    def fetch() -> Any:  # before each handshake, by a thread of gRPC's; None = as before, which the stubs do not know
        nonlocal told
        if told is certificates.now:
            return None
        told = certificates.now
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), fetch, require_client_authentication=certificates.asks_clients
    )


def _reflection(names: Iterable[str], access: Access | None) -> grpc.GenericRpcHandler:
    """That of gRPC's package, for whoever is known, whatever his roles."""
    servicer = reflection.aio.ReflectionServicer(names)

    async def call(requests: Any, context: Any) -> None:
        try:
            if access is not None:
                access.known(context)
        except JobwireError as error:
            told = refusal(error)
            await context.abort(told.code, told.message, told.trailers())
        answers: Any = servicer.ServerReflectionInfo(requests, context)
        async for answer in answers:
            await context.write(answer)

    handler = grpc.stream_stream_rpc_method_handler(
        call, ServerReflectionRequest.FromString, ServerReflectionResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})


def _admitted(limits: Limits) -> int:
    return limits.calls_in_flight + limits.streams_per_principal


def _options(limits: Limits, pings: Pings, *, shares_port: bool) -> list[tuple[str, int]]:
    return [
        # A second server on the port must fail, not share it in silence.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.keepalive_time_ms", pings.every),
        ("grpc.keepalive_timeout_ms", pings.timeout),
        # gRPC heeds the one or the other, by its version; its own is a minute.
        ("grpc.http2.ping_timeout_ms", pings.timeout),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", pings.allowed_every),
        # Connections are renewed now and then, so that balancers spread them over new servers.
        ("grpc.max_connection_age_ms", 30 * 60_000),
        ("grpc.max_connection_age_grace_ms", 5 * 60_000),
        ("grpc.max_concurrent_streams", 1000),
        # Calls that wait for the event loop; gRPC cancels some at random from the first number on. Who is too many is
        # told so by us, and a crowd that comes back after a restart is not.
        ("grpc.server.max_pending_requests", _admitted(limits)),
        ("grpc.server.max_pending_requests_hard_limit", _admitted(limits)),
        ("grpc.max_allowed_incoming_connections", 10_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_receive_message_length", limits.receive),
        # Answers are split or cut before; this one is for the answer that was forgotten.
        ("grpc.max_send_message_length", limits.send + 1024 * 1024),
    ]
