"""Spans by OpenTelemetry: on where it is installed (`jobwire[otel]`) and its own variables say where to send them.

Without them nothing of it is imported, and a call pays nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Either of them turns spans on."""

_FLUSHED_WITHIN: Final = 3_000
"""Milliseconds, at the end, for spans that are not sent yet."""

Headers = Iterable[tuple[str, str | bytes]]

log = logging.getLogger("jobwire")


class Traces:
    """Makes spans, and ends them when the server does."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("jobwire")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER

    @contextmanager
    def call(self, path: str, headers: Headers, attributes: Mapping[str, str]) -> Iterator[Span]:
        """The span of a call, current within. It is the child of the caller's, where the headers name one."""
        _, service, method = path.split("/")
        carried = {name: value for name, value in headers if name in _CARRIED and isinstance(value, str)}
        with self._tracer.start_as_current_span(
            path[1:],
            context=self._propagator.extract(carried) if carried else None,
            kind=self._kind,
            attributes={"rpc.service": service, "rpc.method": method, **attributes},
            record_exception=False,  # what an exception says is for the log alone
            set_status_on_exception=False,
        ) as span:
            yield span

    @staticmethod
    def traceparent() -> str:
        """Of the current span; empty when there is none, or nobody will keep it."""
        from opentelemetry.trace import get_current_span

        context = get_current_span().get_span_context()
        if not (context.is_valid and context.trace_flags.sampled):
            return ""
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self) -> None:
        """Sends what is left. It may block for some seconds."""
        self._provider.force_flush(_FLUSHED_WITHIN)
        self._provider.shutdown()


def failed(span: Span, *, code: int, reason: str, is_ours: bool) -> None:
    """Marks the span of a call that was refused; `is_ours`: the fault is the server's."""
    from opentelemetry.trace import StatusCode

    span.set_attributes({"rpc.grpc.status_code": code, "jobwire.reason": reason})
    if is_ours:
        span.set_status(StatusCode.ERROR, reason)


def from_environment() -> Traces | None:
    """As OpenTelemetry's variables say; None when they say nothing."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("%s is set, but there is no OpenTelemetry here: install jobwire[otel]", " or ".join(ENDPOINTS))
        return None
    # What the environment says of the resource, OTEL_SERVICE_NAME included, comes before this name.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "jobwire"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


_CARRIED: Final = frozenset({"traceparent", "tracestate"})
