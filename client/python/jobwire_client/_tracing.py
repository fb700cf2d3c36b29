"""Where OpenTelemetry is installed: jobs carry the trace they come from, and each run is a span with a link to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobwire.v1.job_pb2 import Job
from jobwire_client.context import Release, Stopped

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # the extra [otel] brings it
    HAS_TRACES = False
else:
    HAS_TRACES = True


def traceparent() -> str:
    """Of the current span; empty when there is none, or nobody will keep it."""
    if not HAS_TRACES or (span := trace.get_current_span()) is trace.INVALID_SPAN:
        return ""
    context = span.get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def are_kept() -> bool:
    """Whether somebody wants spans. Without a provider they are no-ops, and yet cost 25 µs a run."""
    return HAS_TRACES and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def run_of(job: Job) -> Iterator[None]:
    """The span of one run, current within; for where they are kept. A trace of its own, linked to the job's: a run may
    come days later, and come again."""
    with trace.get_tracer("jobwire").start_as_current_span(
        f"run {job.type}" if job.type else "run",
        context=trace.set_span_in_context(trace.INVALID_SPAN),
        kind=trace.SpanKind.CONSUMER,
        links=_links(job.traceparent),
        attributes={
            "messaging.system": "jobwire",
            "messaging.operation.type": "process",
            "messaging.destination.name": job.queue,
            "messaging.message.id": job.id,
            "jobwire.job.type": job.type,
            "jobwire.job.attempt": job.attempt,
            "jobwire.worker.id": job.lease.worker_id,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except (Release, Stopped):
            raise  # no failure: it will go on elsewhere
        except (Exception, SystemExit) as error:
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def _links(told: str) -> list[trace.Link]:
    if not told:
        return []
    carried = TraceContextTextMapPropagator().extract({"traceparent": told})
    context = trace.get_current_span(carried).get_span_context()
    return [trace.Link(context)] if context.is_valid else []
