"""What is counted of each RPC, under the names that dashboards for gRPC know. Calls over HTTP count as well."""

from __future__ import annotations

import time
from typing import Final

from google.protobuf.descriptor import MethodDescriptor
from grpc import StatusCode

from jobwire_server.telemetry.metrics import SECONDS, Registry

_NAMES: Final = {
    code: "".join(part.capitalize() for part in code.name.split("_")) if code is not StatusCode.OK else "OK"
    for code in StatusCode
}
"""As Go writes them, which is what the dashboards expect."""


class Meter:
    """Of one method: `begin`, and `end` with what began."""

    def __init__(self, registry: Registry, method: MethodDescriptor) -> None:
        labels = {
            "grpc_type": "server_stream" if method.server_streaming else "unary",
            "grpc_service": method.containing_service.full_name,
            "grpc_method": method.name,
        }
        self._started = registry.counter("grpc_server_started_total", "Calls that have begun.", labels)
        self._handled = {
            code: registry.counter(
                "grpc_server_handled_total", "Calls that have ended.", {**labels, "grpc_code": name}, sparse=True
            )
            for code, name in _NAMES.items()
        }
        self._seconds = registry.histogram(
            "grpc_server_handling_seconds", "How long calls took.", SECONDS, labels, sparse=True
        )

    def begin(self) -> float:
        self._started.add()
        return time.perf_counter()

    def end(self, began: float, code: StatusCode) -> None:
        self._handled[code].add()
        self._seconds.observe(time.perf_counter() - began)
